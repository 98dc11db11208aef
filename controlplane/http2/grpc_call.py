"""A call over HTTP/2: one stream of a connection, as the carrier of what serves it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

import grpc

from controlplane.errors import Code, Error
from controlplane.http2.connection import Stream
from controlplane.http2.frames import Buffer, ErrorCode
from controlplane.http2.grpc_messages import ENCODINGS, Messages, percent_encoded
from controlplane.http2.handler import StreamHandler, Transport
from controlplane.http2.headers import Headers
from controlplane.xds_server.discovery import NO_POLLING

# Opens what serves a call from a client at this address. Errors: what the client is told instead.
Open = Callable[[str, Transport], StreamHandler]

# What a client may say on one stream before it is taken, bytes.
STREAM_WINDOW = 256 * 1024

# How long the rest of a message, and how it ended, wait for a client that does not read. Seconds.
_LINGER = 5.0

# What a piece of a message costs its connection, whatever becomes of the message, seconds: thousands of pieces of a few bytes
# are a flood.
_PIECE = 5e-6
# And each byte that gzip makes of one, seconds.
_UNPACKED = 2e-9

_GRPC = "application/grpc"


class Connection(Protocol):
    """What a call needs of its connection."""

    methods: Mapping[str, Open]
    peer: str

    def write(self, call: Call, rest: list[Buffer]) -> None:
        """Sends as much of `rest` as may be sent now, and leaves what may not."""

    def wait(self, call: Call) -> None:
        """A call has something to say, once there is room for it (`notify`)."""

    def headers(self, call: Call, headers: Headers, *, end: bool = False) -> None:
        """Sends these; `end` ends the stream, in both directions."""

    def reset(self, call: Call, reason: ErrorCode) -> None:
        """Ends a call's stream without a word."""

    def forget(self, call: Call) -> None:
        """A call is over."""

    def spent(self, seconds: float) -> None:
        """So much of the server's time went on what the connection says."""

    def took(self, count: int) -> None:
        """So many bytes of DATA are done with."""

    def more(self, call: Call, count: int) -> None:
        """Opens a call's window by so many bytes."""


class Call:
    """A call: one stream of a connection, as the carrier of what serves it."""

    __slots__ = (
        "__weakref__",
        "_connection",
        "_error",
        "_gone",
        "_messages",
        "_over",
        "_received",
        "_rest",
        "_sending",
        "_serves",
        "_timer",
        "half_closed",
        "stream",
    )

    def __init__(self, connection: Connection, stream: Stream) -> None:
        self.stream = stream
        stream.listener = self
        # The client has said that it says no more, and that was heard.
        self.half_closed = False
        self._connection = connection
        self._serves: StreamHandler | None = None
        self._messages: Messages | None = None
        # What is left of the message under way.
        self._rest: list[Buffer] = []
        self._sending = False
        # Bytes received, and not given back to the stream's window yet.
        self._received = 0
        # Set when it is over but for the rest of a message; and how it ended.
        self._over = False
        self._error: Error | None = None
        self._gone = False
        self._timer: asyncio.TimerHandle | None = None

    # --------------------------------------------------------------------------------------------- from the connection

    def open(self, headers: Mapping[str, str]) -> None:
        """The client has asked for something."""
        path = headers.get(":path", "")
        kind = headers.get("content-type", "")
        if headers.get(":method") != "POST" or not (kind == _GRPC or kind.startswith((_GRPC + "+", _GRPC + ";"))):
            self._say(((":status", "415" if headers.get(":method") == "POST" else "405"),))
            return
        opens, encoding = self._connection.methods.get(path), headers.get("grpc-encoding", "identity")
        if opens is None or encoding not in ENCODINGS:
            why = no_method(path) if opens is None else f"grpc-encoding: {encoding[:50]} is not known here"
            self._say(_HEADERS + status(grpc.StatusCode.UNIMPLEMENTED, why))
            return
        try:
            self._messages = Messages(encoding)
            self._serves = opens(self._connection.peer, self)
        except Error as error:
            self._say(_HEADERS + trailers(error))
            return
        # At once: a client may wait for them before it says anything.
        self._connection.headers(self, _HEADERS)

    def data(self, data: bytes, padding: int) -> None:
        """A part of what it says, and how much was added that means nothing."""
        messages, serves = self._messages, self._serves
        if messages is None or serves is None or serves.ended:
            self._connection.spent(_PIECE)
            self._connection.took(len(data))
            return
        self._received += len(data) + padding
        if serves.reading and (message := messages.whole(data)) is not None:
            self._connection.took(len(data))
            serves.receive_message(message)
        else:
            self._connection.spent(_PIECE)
            messages.feed(data)
            self._deliver()
        if self._received > STREAM_WINDOW // 4:
            self._give_back()

    def said_all(self) -> None:
        """The client says no more."""
        self.half_closed = True
        self._deliver()

    def lost(self) -> None:
        """The client has left, or the connection has."""
        self._gone = True
        if self._serves is not None:
            self._serves.end()
        self._finish()

    # ----------------------------------------------------------------------------------------------- from what serves

    def notify(self) -> None:
        """Sends while there is something to send, and room for it; to be called again when there may be room."""
        serves = self._serves
        if serves is None or self._gone or self._sending:
            return
        self._sending = True
        try:
            while not self._gone:
                if not self._rest:
                    if self._over or (message := serves.next_message()) is None:
                        break
                    self._rest = [len(message).to_bytes(5, "big"), message]
                self._connection.write(self, self._rest)
                if self._rest:
                    self._connection.wait(self)
                    return
        finally:
            self._sending = False
        if self._over:
            self._conclude()

    def resume_reading(self) -> None:
        self._deliver()
        self._give_back()

    def end(self, error: Error | None) -> None:
        if self._over or self._gone:
            return
        self._over, self._error = True, error
        if not self._rest:
            self._conclude()
        else:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_LINGER, self._give_up)

    # --------------------------------------------------------------------------------------------------------- inside

    def _deliver(self) -> None:
        """Gives what the client says to what serves it, as long as that reads."""
        messages, serves = self._messages, self._serves
        if messages is None or serves is None:
            return
        kept = messages.size
        try:
            while serves.reading and (message := messages.next()) is not None:
                kept, count = messages.size, kept - messages.size
                # What came, not what it was made into.
                self._connection.took(count)
                if len(message) > count:
                    self._connection.spent(_UNPACKED * len(message))
                serves.receive_message(message)
        except Error as error:
            self._connection.took(kept - messages.size)
            serves.end(error)
        if self.half_closed and messages.partial and serves.reading:
            serves.end(Error(Code.INTERNAL, "CUT_OFF", "the client ended in the middle of a message"))
        if self.half_closed and serves.reading:
            serves.half_closed()

    def _give_back(self) -> None:
        serves = self._serves
        if serves is not None and serves.reading and self._received and not self.half_closed:
            count, self._received = self._received, 0
            self._connection.more(self, count)

    def _conclude(self) -> None:
        if not self._gone:
            self._say(trailers(self._error))

    def _say(self, headers: Headers) -> None:
        self._connection.headers(self, headers, end=True)
        self._gone = True
        self._finish()

    def _give_up(self) -> None:
        self._connection.reset(self, ErrorCode.CANCEL)
        self._gone = True
        self._finish()

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rest = []
        if self._messages is not None:
            self._connection.took(self._messages.clear())
        self._connection.forget(self)
        # Nothing of it points back at it, so that it is gone at once, not when garbage is looked for.
        self._serves = self._error = self.stream.listener = None


_HEADERS: Headers = ((":status", "200"), ("content-type", _GRPC), ("grpc-accept-encoding", "identity,gzip"))


def trailers(error: Error | None) -> Headers:
    """How a call ended, as gRPC says it."""
    return (("grpc-status", "0"),) if error is None else status(grpc.StatusCode[error.code.name], error.message)


def status(code: grpc.StatusCode, message: str) -> Headers:
    """A status that is not OK, as gRPC says it."""
    return (("grpc-status", str(code.value[0])), ("grpc-message", percent_encoded(message)))


def no_method(path: str) -> str:
    """What is said of a method that is not served."""
    service, _, method = path.lstrip("/").partition("/")
    if service.endswith("ClientStatusDiscoveryService"):
        return "client status is served where operators are: at --api"
    if service.endswith("DiscoveryService") and method.startswith("Fetch"):
        return NO_POLLING.format(stem=method.removeprefix("Fetch")[:100])
    return f"there is no method {path[:200]} here"

"""A gRPC call: one stream of an HTTP/2 connection, as the transport of its handler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from controlplane.http2.frames import Buffer, ErrorCode
from controlplane.http2.grpc_messages import ENCODINGS, MessageReader
from controlplane.http2.grpc_status import OK, Status, StatusCode, StatusError, trailers
from controlplane.http2.handler import Open, StreamHandler
from controlplane.http2.headers import Headers
from controlplane.http2.limits import ConnectionLimits
from controlplane.http2.peer import Peer
from controlplane.http2.streams import Stream

_GRPC = "application/grpc"
_RESPONSE_HEADERS: Headers = ((":status", "200"), ("content-type", _GRPC), ("grpc-accept-encoding", "identity,gzip"))


class Connection(Protocol):
    """The connection of a call, as the call sees it."""

    # By path: `/SERVICE/METHOD`.
    methods: Mapping[str, Open]
    peer: Peer
    limits: ConnectionLimits

    def unknown_method(self, path: str) -> str:
        """Return the message for a method that is not served."""

    def write(self, call: Call, unsent: list[Buffer]) -> None:
        """Send as much of `unsent` as flow control permits now, and remove it from the list."""

    def wait(self, call: Call) -> None:
        """Call the call's `notify` once there is room for more."""

    def send_headers(self, call: Call, headers: Headers, *, end: bool = False) -> None:
        """Send a header block; `end` ends the stream in both directions."""

    def reset(self, call: Call, reason: ErrorCode) -> None:
        """End the call's stream with RST_STREAM."""

    def remove(self, call: Call) -> None:
        """Forget an ended call."""

    def later(self, work: Callable[[], None]) -> None:
        """Do work of a call when it is the connection's turn."""

    def hold(self, count: int) -> None:
        """Count bytes of unfinished messages; negative: they are gone."""

    def consumed(self, count: int) -> None:
        """Open the connection's window for DATA bytes that are handled or dropped."""

    def open_window(self, call: Call, count: int) -> None:
        """Open the window of the call's stream by so many bytes."""


class Call:
    """A gRPC call: one stream of an HTTP/2 connection, as the transport of its handler."""

    __slots__ = (
        "__weakref__",
        "_closed",
        "_connection",
        "_ending",
        "_half_closed",
        "_handler",
        "_held",
        "_reader",
        "_status",
        "_timer",
        "_unacknowledged",
        "_unsent",
        "_update_at",
        "_writing",
        "incomplete_since",
        "stream",
    )

    def __init__(self, connection: Connection, stream: Stream) -> None:
        self.stream = stream
        stream.listener = self
        self._connection = connection
        # None before the call is accepted, and after it is closed.
        self._handler: StreamHandler | None = None
        self._reader: MessageReader | None = None
        # Bytes of the reader that are counted for the connection.
        self._held = 0
        # When the message began of which only a part has come; 0 for none.
        self.incomplete_since = 0.0
        # The client has sent its last message.
        self._half_closed = False
        # The part of the current message that is not sent yet.
        self._unsent: list[Buffer] = []
        self._writing = False
        # Received bytes for which no WINDOW_UPDATE was sent on the stream yet. One is sent beyond `_update_at` bytes.
        self._unacknowledged = 0
        self._update_at = connection.limits.stream_window // 4
        # Set when the handler has ended the call. The status is sent after the unsent part of the current message.
        self._ending = False
        self._status = OK
        # Nothing is sent or received on the stream any more.
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------------------------------------- called by the connection

    def open(self, headers: Mapping[str, str]) -> None:
        """Accept or refuse the call by its request headers."""
        path = headers.get(":path", "")
        kind = headers.get("content-type", "")
        if headers.get(":method") != "POST" or not (kind == _GRPC or kind.startswith((_GRPC + "+", _GRPC + ";"))):
            self._send_end(((":status", "415" if headers.get(":method") == "POST" else "405"),))
            return
        connection = self._connection
        open_handler, encoding = connection.methods.get(path), headers.get("grpc-encoding", "identity")
        if open_handler is None or encoding not in ENCODINGS:
            unsupported = f"grpc-encoding {encoding[:50]} is not supported; use {' or '.join(ENCODINGS)}"
            message = connection.unknown_method(path) if open_handler is None else unsupported
            self._send_end(_RESPONSE_HEADERS + trailers(Status(StatusCode.UNIMPLEMENTED, message)))
            return
        try:
            self._reader = MessageReader(connection.limits.max_message_bytes, encoding)
            self._handler = open_handler(connection.peer, self)
        except StatusError as error:
            self._send_end(_RESPONSE_HEADERS + trailers(error.status))
            return
        # Sent at once, because some clients send nothing before they have the response headers.
        connection.send_headers(self, _RESPONSE_HEADERS)

    def data_received(self, data: bytes, padding: int) -> None:
        """Handle a DATA frame's bytes; `padding` is the number of padding bytes in the frame."""
        reader, handler = self._reader, self._handler
        if reader is None or handler is None or handler.ended:
            self._connection.consumed(len(data))
            return
        self._unacknowledged += len(data) + padding
        if handler.reading and (message := reader.whole(data)) is not None:
            self._connection.consumed(len(data))
            handler.receive_message(message)
        else:
            reader.feed(data)
            self._deliver()
        if self._unacknowledged > self._update_at:
            self._open_window()

    def end_received(self) -> None:
        """Handle END_STREAM: the client sends nothing more on this stream."""
        self._half_closed = True
        self._deliver()

    def aborted(self) -> None:
        """Handle the loss of the stream or of the connection."""
        self._closed = True
        if self._handler is not None:
            self._handler.end()
        self._release()

    # ----------------------------------------------------------------------------------------------- called by the handler

    def notify(self) -> None:
        """Send the handler's messages while there is room. The connection calls it again when there may be room."""
        handler = self._handler
        if handler is None or self._closed or self._writing:
            return
        self._writing = True
        try:
            while not self._closed:
                if not self._unsent:
                    if self._ending or (message := handler.next_message()) is None:
                        break
                    self._unsent = [len(message).to_bytes(5, "big"), message]
                self._connection.write(self, self._unsent)
                if self._unsent:
                    self._connection.wait(self)
                    return
        finally:
            self._writing = False
        if self._ending:
            self._send_status()

    def resume_reading(self) -> None:
        """Deliver the messages that waited while the handler was not reading, and open the window."""
        self._deliver()
        self._open_window()

    def later(self, work: Callable[[], None]) -> None:
        """Do work of the handler when it is the connection's turn."""
        self._connection.later(work)

    def waits_since(self) -> float:
        """Return since when the rest of a message is missing; 0 if none is, or if the handler does not read."""
        handler = self._handler
        return self.incomplete_since if handler is not None and handler.reading else 0.0

    def end(self, status: Status | None) -> None:
        """End the call, after the unsent part of the current message; None is OK."""
        if self._ending or self._closed:
            return
        self._ending, self._status = True, status or OK
        if not self._unsent:
            self._send_status()
        else:
            self._timer = asyncio.get_running_loop().call_later(self._connection.limits.end_timeout, self._reset)

    # --------------------------------------------------------------------------------------------------------- private

    def _deliver(self) -> None:
        """Pass complete messages to the handler while it reads, then the end of the client's messages."""
        reader, handler = self._reader, self._handler
        if reader is None or handler is None:
            return
        buffered = reader.size
        try:
            while handler.reading and (message := reader.next()) is not None:
                buffered, count = reader.size, buffered - reader.size
                self.incomplete_since = 0.0
                # The window counts bytes as they were received, before decompression.
                self._connection.consumed(count)
                handler.receive_message(message)
        except StatusError as error:
            self._connection.consumed(buffered - reader.size)
            handler.end(error.status)
        self._count_held()
        if self._half_closed and reader.partial and handler.reading:
            handler.end(Status(StatusCode.INTERNAL, "the client ended its stream in the middle of a message"))
        if self._half_closed and handler.reading:
            handler.half_closed()

    def _count_held(self) -> None:
        """Count the buffered bytes for the connection, and note since when a message is incomplete."""
        size = self._reader.size if self._reader is not None else 0
        if size != self._held:
            self._connection.hold(size - self._held)
            self._held = size
        if not size:
            self.incomplete_since = 0.0
        elif not self.incomplete_since:
            self.incomplete_since = asyncio.get_running_loop().time()

    def _open_window(self) -> None:
        handler = self._handler
        if handler is not None and handler.reading and self._unacknowledged and not self._half_closed:
            count, self._unacknowledged = self._unacknowledged, 0
            self._connection.open_window(self, count)

    def _send_status(self) -> None:
        if not self._closed:
            self._send_end(trailers(self._status))

    def _send_end(self, headers: Headers) -> None:
        self._connection.send_headers(self, headers, end=True)
        self._closed = True
        self._release()

    def _reset(self) -> None:
        self._connection.reset(self, ErrorCode.CANCEL)
        self._closed = True
        self._release()

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._unsent = []
        if self._reader is not None:
            self._connection.consumed(self._reader.clear())
            self._count_held()
        self._connection.remove(self)
        # Break the reference cycles, so that the call is freed by reference count and not by the cycle collector.
        self._handler = self.stream.listener = None

"""The gRPC calls of one HTTP/2 connection, and their flow control.

A gRPC call is a stream: its method is the path, each message goes into DATA behind a prefix (`grpc_messages.py`), and its
status comes in trailers. Beyond that, most of the work is backpressure:

    the client does not read        its window is full: the handler is asked for no more messages (`grpc_call.py`)
    the handler does not read       its messages stay within the window of their stream, which is not opened until it reads
    the socket is full              calls wait here until it takes more, and nothing is read from the client (`transport.py`)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol
from weakref import proxy

from controlplane.http2.charges import Charges
from controlplane.http2.connection import Connection
from controlplane.http2.frames import Buffer, ErrorCode
from controlplane.http2.grpc_call import Call
from controlplane.http2.handler import Open
from controlplane.http2.headers import Headers
from controlplane.http2.limits import ConnectionLimits
from controlplane.http2.logger import Logger
from controlplane.http2.peer import Peer
from controlplane.http2.streams import Stream


class Service(Protocol):
    """The methods that a server serves, and their limits."""

    # By path: `/SERVICE/METHOD`.
    methods: Mapping[str, Open]
    limits: ConnectionLimits
    log: Logger
    # Returns the error text for a method that is not served.
    unknown_method: Callable[[str], str]


class Socket(Protocol):
    """The socket of a connection, as its calls see it."""

    charges: Charges

    def output_added(self) -> None:
        """Write the connection's output soon."""

    def later(self, work: Callable[[], None]) -> None:
        """Do work of a call when it is the connection's turn."""

    def settings_received(self) -> None:
        """Record that the client speaks HTTP/2."""

    def finish(self) -> None:
        """Close the connection soon: its last call has ended."""

    def close(self) -> None:
        """Close the connection."""


# The peer until the socket is open.
_UNKNOWN = Peer("")


class GrpcConnection:
    """The gRPC calls of one HTTP/2 connection."""

    __slots__ = (
        "__weakref__",
        "_socket",
        "_unacknowledged",
        "_update_at",
        "_waiting",
        "calls",
        "closed",
        "draining",
        "http2",
        "limits",
        "methods",
        "output_full",
        "peer",
        "service",
        "unknown_method",
        "writable",
    )

    def __init__(self, service: Service, socket: Socket, clock: Callable[[], float]) -> None:
        limits = service.limits
        self.service = service
        self.methods, self.unknown_method, self.limits = service.methods, service.unknown_method, limits
        self.peer = _UNKNOWN
        self.http2 = Connection(
            self,
            clock,
            max_streams=limits.max_streams,
            stream_window=limits.stream_window,
            connection_window=limits.connection_window,
        )
        # By stream.
        self.calls: dict[int, Call] = {}
        # False while the socket is full.
        self.writable = True
        # No new calls are accepted.
        self.draining = False
        # The socket is gone.
        self.closed = False
        # A call waits because the output is full, not because of the client's windows.
        self.output_full = False
        # Weak, so that a closed connection is freed by reference count and not by the cycle collector.
        self._socket: Socket = proxy(socket)
        # Calls that have a message and no room for it.
        self._waiting: dict[Call, None] = {}
        # Handled bytes for which no WINDOW_UPDATE was sent on the connection yet. One is sent at `_update_at` bytes.
        self._unacknowledged = 0
        self._update_at = limits.window_update_bytes

    # ------------------------------------------------------------------------------------- events of the HTTP/2 connection

    def stream_opened(self, stream: Stream, fields: Mapping[str, str]) -> None:
        """Open a call, unless the connection is draining."""
        if self.draining:
            self.http2.reset(stream, ErrorCode.REFUSED_STREAM)
            return
        self._socket.charges.stream_opened()
        call = self.calls[stream.id] = Call(self, stream)
        call.open(fields)

    def settings_received(self) -> None:
        """Record that the client speaks HTTP/2."""
        self._socket.settings_received()

    def window_opened(self) -> None:
        """Let the waiting calls send again."""
        if not self._waiting or not self.writable or self.closed:
            return
        self.output_full = False
        waiting, self._waiting = self._waiting, {}
        for call in waiting:
            call.notify()

    def goaway_received(self, reason: int) -> None:
        """Close: at once if the client names an error, otherwise after the open calls."""
        if reason:
            self.abort_calls()
            self._socket.close()
        elif not self.draining:
            self.draining = True
            if not self.calls:
                self._socket.finish()

    def consumed(self, count: int) -> None:
        """Open the connection's window for handled DATA bytes, many at a time."""
        self._unacknowledged += count
        if self._unacknowledged >= self._update_at and not self.closed:
            self.http2.open_window(self._unacknowledged)
            self._unacknowledged = 0

    def output_added(self) -> None:
        """Write the connection's output soon."""
        self._socket.output_added()

    # -------------------------------------------------------------------------------------------------- called by the calls

    def write(self, call: Call, unsent: list[Buffer]) -> None:
        """Send as much of `unsent` as flow control permits now, and remove it from the list."""
        if not self.writable:
            return
        http2, limit = self.http2, self.limits.write_high
        if http2.send_data(call.stream, unsent, limit) and not http2.output.silent:
            self._socket.output_added()
        if http2.output.size >= limit:
            self.output_full = True

    def later(self, work: Callable[[], None]) -> None:
        """Do work of a call when it is the connection's turn."""
        self._socket.later(work)

    def hold(self, count: int) -> None:
        """Count bytes of unfinished messages; negative: they are gone."""
        self._socket.charges.hold(count)

    def wait(self, call: Call) -> None:
        """Call the call's `notify` once there is room for more."""
        self._waiting[call] = None

    def send_headers(self, call: Call, headers: Headers, *, end: bool = False) -> None:
        """Send a header block; `end` ends the stream in both directions."""
        self.http2.send_headers(call.stream, headers, end=end)

    def reset(self, call: Call, reason: ErrorCode) -> None:
        """End the call's stream with RST_STREAM."""
        self.http2.reset(call.stream, reason)

    def open_window(self, call: Call, count: int) -> None:
        """Open the window of the call's stream by so many bytes."""
        self.http2.open_window(count, call.stream)

    def remove(self, call: Call) -> None:
        """Forget an ended call."""
        self.calls.pop(call.stream.id, None)
        self._waiting.pop(call, None)
        if self.draining and not self.calls and not self.closed:
            self._socket.finish()

    # ------------------------------------------------------------------------------------------------- called by the socket

    def drain(self) -> None:
        """Accept no new calls (GOAWAY), and close after the open ones."""
        if self.draining or self.closed:
            return
        self.draining = True
        self.http2.send_preface()
        self.http2.refuse_streams()
        if not self.calls:
            self._socket.finish()

    def abort_calls(self) -> None:
        """End every call: the client is gone. An exception in one does not keep the others from ending."""
        for call in list(self.calls.values()):
            try:
                call.aborted()
            except Exception as error:
                self.service.log.error("stream failed", peer=self.peer.address, exc_info=error)

"""The server's side of one HTTP/2 connection (RFC 9113), without I/O and without a clock of its own.

    bytes of the client -> `receive` -> `ConnectionEvents` for the connection, `StreamListener` for each stream
    calls of the server -> `output`, whose frames the caller writes to the socket

It implements what gRPC needs: nothing is pushed, priorities are ignored, and there is no upgrade from HTTP/1.1. `README.md`
says what is missing and why this is not a library.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import proxy

from controlplane.http2.client_settings import ClientSettings
from controlplane.http2.events import ConnectionEvents
from controlplane.http2.frame_handlers import FrameHandlers
from controlplane.http2.frames import (
    DATA,
    HEADER,
    HEADER_BYTES,
    LOW_31_BITS,
    MAX_FRAME,
    PREFACE,
    Buffer,
    ConnectionFault,
    ErrorCode,
    goaway,
    headers,
    ping,
    reset,
    server_preface,
    window_update,
)
from controlplane.http2.headers import MAX_HEADER_LIST, Headers, encoded
from controlplane.http2.output import Output
from controlplane.http2.streams import ANY_LENGTH, Stream, Streams
from controlplane.http2.windows import Windows, receive_overflow


class Connection:
    """The server's side of one HTTP/2 connection."""

    __slots__ = (
        "_clock",
        "_events",
        "_handlers",
        "_missing_preface",
        "_preface_to_send",
        "_settings",
        "_windows",
        "frames",
        "interrupted",
        "output",
        "streams",
    )

    def __init__(
        self,
        events: ConnectionEvents,
        clock: Callable[[], float],
        *,
        max_streams: int,
        stream_window: int,
        connection_window: int,
    ) -> None:
        """Permit `max_streams` streams at a time, and so many bytes in the windows of a new stream and of the connection."""
        # Weak, so that a closed connection is freed by reference count and not by the cycle collector.
        weak: ConnectionEvents = proxy(events)
        self._events = weak
        self._clock = clock
        self.streams = Streams()
        self.output = Output(weak)
        # The newest `receive` ended at its deadline, with whole frames left.
        self.interrupted = False
        # Frames since the caller last set it to 0. Ordinary DATA frames don't count.
        self.frames = 0
        # The server's preface, until it is in the output; b"" afterwards.
        self._preface_to_send = server_preface(max_streams, stream_window, connection_window, MAX_HEADER_LIST)
        # Bytes of the client's preface that have not come yet.
        self._missing_preface = len(PREFACE)
        self._windows = Windows(connection_window)
        self._settings = ClientSettings()
        self._handlers = FrameHandlers(
            weak,
            self.output,
            self.streams,
            self._windows,
            self._settings,
            max_streams=max_streams,
            stream_window=stream_window,
        )

    @property
    def in_header_block(self) -> bool:
        """Return True if the client has sent a part of a header block."""
        return self._handlers.block is not None

    @property
    def closed(self) -> bool:
        """Return True after `close`: nothing is received or sent any more."""
        return self.output.closed

    # ----------------------------------------------------------------------------------------------------------- receiving

    def receive(self, data: bytes, deadline: float) -> bytes:
        """Handle the whole frames in `data`. Return the rest: a part of a frame, or more if `deadline` has passed.

        Then `interrupted` is True. Errors: ConnectionFault, after which the caller must `close` the connection.
        """
        at, whole, streams, output = 0, len(data), self.streams.by_id, self.output
        windows, handlers = self._windows, self._handlers
        output.silent = True
        first, self.interrupted = True, False
        try:
            if self._missing_preface:
                self.send_preface()
                at = self._receive_preface(data)
            while whole - at >= HEADER_BYTES and not output.closed:
                if first:  # nearly always the only frame
                    first = False
                elif self._clock() > deadline:
                    self.interrupted = True
                    break
                high, low, kind, flags, number = HEADER.unpack_from(data, at)
                length = high << 8 | low
                if length > MAX_FRAME:
                    raise ConnectionFault(
                        ErrorCode.FRAME_SIZE_ERROR, f"frame of {length} bytes; at most {MAX_FRAME} are allowed"
                    )
                end = at + HEADER_BYTES + length
                if end > whole:
                    break
                if kind == DATA and not flags and length and handlers.block is None:
                    # Nearly every frame takes this path.
                    stream = streams.get(number)
                    if (
                        stream is not None
                        and not stream.half_closed
                        and stream.remaining_length == ANY_LENGTH
                        and stream.listener is not None
                    ):
                        windows.receive -= length
                        stream.receive_window -= length
                        if windows.receive < 0 or stream.receive_window < 0:
                            raise receive_overflow("connection" if windows.receive < 0 else "stream")
                        stream.listener.data_received(data[at + HEADER_BYTES : end], 0)
                        at = end
                        continue
                self.frames += 1
                handlers.handle(kind, flags, number & LOW_31_BITS, data[at + HEADER_BYTES : end])
                at = end
            return data[at:] if at else data
        finally:
            output.silent = False

    def _receive_preface(self, data: bytes) -> int:
        """Check the client's preface. Return how many bytes of `data` are part of it. Errors: ConnectionFault."""
        done = len(PREFACE) - self._missing_preface
        count = min(self._missing_preface, len(data))
        if data[:count] != PREFACE[done : done + count]:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "invalid connection preface: the client does not speak HTTP/2")
        self._missing_preface -= count
        return count

    # ------------------------------------------------------------------------------------------------------------- sending

    def send_preface(self) -> None:
        """Send the server's preface (SETTINGS), unless it was sent already."""
        if self._preface_to_send:
            self.output.add(self._preface_to_send)
            self._preface_to_send = b""

    def send_headers(self, stream: Stream, fields: Headers, *, end: bool = False) -> None:
        """Send a header block; `end` ends the stream in both directions."""
        if not self.streams.holds(stream):
            return
        self.output.add(headers(stream.id, encoded(fields), self._settings.max_frame, end=end))
        if end:
            self.streams.close(stream.id)
            if not stream.half_closed:
                # Ask the client to stop sending (RFC 9113, section 8.1).
                self._reset(stream.id, ErrorCode.NO_ERROR)

    def send_data(self, stream: Stream, unsent: list[Buffer], limit: int) -> bool:
        """Move the bytes of `unsent` that the windows permit into the output. Return True if any were moved.

        It stops when the output has about `limit` bytes. It does not call `output_added`.
        """
        output, windows = self.output, self._windows
        if self.streams.by_id.get(stream.id) is not stream or output.size >= limit:
            return False
        size, max_frame = sum(map(len, unsent)), self._settings.max_frame
        if size > windows.send or size > stream.send_window or size > max_frame:
            frames = -(-(limit - output.size) // (HEADER_BYTES + max_frame))
            size = min(size, windows.send, stream.send_window, frames * max_frame)
            if size > 0:
                output.add_data_frames(stream.id, unsent, size, max_frame)
        elif size:  # nearly always
            output.add_data_frame(stream.id, unsent, size)
        if size <= 0:
            return False
        windows.send -= size
        stream.send_window -= size
        return True

    def reset(self, stream: Stream, reason: ErrorCode) -> None:
        """End a stream with RST_STREAM."""
        if self.streams.close(stream.id) is not None:
            self._reset(stream.id, reason)

    def _reset(self, number: int, reason: ErrorCode) -> None:
        self.output.add(reset(number, reason))
        self.streams.reset(number)

    def open_window(self, increment: int, stream: Stream | None = None) -> None:
        """Permit the client so many more bytes, on a stream or on the connection (WINDOW_UPDATE)."""
        if stream is None:
            self._windows.receive += increment
        elif stream.half_closed or stream.id not in self.streams.by_id:
            return
        else:
            stream.receive_window += increment
        self.output.add(window_update(stream.id if stream is not None else 0, increment))

    def ping(self) -> None:
        """Send a PING, which the client must answer."""
        self.output.add(ping())

    def refuse_streams(self) -> None:
        """Ask the client to open no more streams (GOAWAY). Open streams go on."""
        self.output.add(goaway(self.streams.last_id, ErrorCode.NO_ERROR))

    def close(self, reason: ErrorCode) -> None:
        """Send the last GOAWAY, and drop all streams."""
        self.output.add(goaway(self.streams.last_id, reason))
        self.output.closed = True
        self.streams.by_id.clear()

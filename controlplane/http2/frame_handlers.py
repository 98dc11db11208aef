"""The effect of each frame that a client sends, except ordinary DATA frames, which `connection.py` handles itself.

    DATA             delivered to its stream, within the flow-control windows and content-length
    HEADERS          begins a header block; a whole block opens a stream or is its trailers
    PRIORITY         checked and ignored
    RST_STREAM       closes its stream
    SETTINGS         applied, and acknowledged
    PUSH_PROMISE     a fault
    PING             answered
    GOAWAY           reported: the client opens no more streams
    WINDOW_UPDATE    opens a window
    CONTINUATION     continues a header block
    other types      ignored

The effect of a frame in each state of its stream is a table in `streams.py`.
"""

from __future__ import annotations

from controlplane.http2.client_settings import ClientSettings
from controlplane.http2.events import ConnectionEvents
from controlplane.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    LOW_31_BITS,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    SETTINGS_ACK,
    WINDOW_UPDATE,
    ConnectionFault,
    ErrorCode,
    StreamFault,
    ping,
    reset,
    unpadded,
)
from controlplane.http2.header_block import HeaderBlock
from controlplane.http2.headers import HeaderReader, content_length
from controlplane.http2.output import Output
from controlplane.http2.streams import ANY_LENGTH, CLOSED, Stream, Streams
from controlplane.http2.windows import Windows, grow_send_windows

# By frame type: the exact size of the payload, where it has one.
_SIZES = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
_NAMES = ("DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE")
# Frame types that belong to the connection, never to a stream.
_OF_CONNECTION = frozenset((SETTINGS, PING, GOAWAY))


class FrameHandlers:
    """Applies the frames of one client to the state of its connection."""

    __slots__ = (
        "_events",
        "_max_streams",
        "_output",
        "_reader",
        "_settings",
        "_stream_window",
        "_streams",
        "_windows",
        "block",
    )

    def __init__(
        self,
        events: ConnectionEvents,
        output: Output,
        streams: Streams,
        windows: Windows,
        settings: ClientSettings,
        *,
        max_streams: int,
        stream_window: int,
    ) -> None:
        """Permit `max_streams` streams at a time, and `stream_window` bytes on a new one."""
        self._events = events
        self._output = output
        self._streams = streams
        self._windows = windows
        self._settings = settings
        self._max_streams = max_streams
        self._stream_window = stream_window
        self._reader = HeaderReader()
        # The header block of which more frames must come; None for none.
        self.block: HeaderBlock | None = None

    def handle(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Apply one frame of a stream, or of the connection if `number` is 0. Errors: ConnectionFault."""
        if self.block is not None and (kind != CONTINUATION or number != self.block.stream):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "frame within a header block that is not its CONTINUATION")
        if not self._settings.received and (kind != SETTINGS or flags & ACK):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "first frame is not SETTINGS")
        if kind >= len(self._HANDLERS):
            return
        if number and kind in _OF_CONNECTION:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{_NAMES[kind]} on a stream")
        if len(payload) != _SIZES.get(kind, len(payload)):
            raise wrong_size(_NAMES[kind])
        try:
            self._HANDLERS[kind](self, flags, number, payload)
        except StreamFault as fault:
            self._end_stream(number, fault.reason)

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._windows.receive_data(size)
        data = unpadded(flags, payload)
        try:
            stream = self._streams.accept(DATA, number)
        except StreamFault:
            self._events.consumed(size)
            raise
        if stream is None:
            self._events.consumed(size)
            return
        self._windows.receive_data(size, stream)
        end = flags & END_STREAM
        if stream.remaining_length != ANY_LENGTH:
            stream.remaining_length -= len(data)
            if stream.remaining_length < 0 or (end and stream.remaining_length):
                self._events.consumed(size)
                raise StreamFault(ErrorCode.PROTOCOL_ERROR, "content-length differs from the length of DATA")
        # Set before the listener runs: if it ends the stream, no RST_STREAM must ask the client to stop.
        stream.half_closed = bool(end)
        padding = size - len(data)
        self._events.consumed(padding)
        if stream.listener is None:
            self._events.consumed(len(data))
        elif data or padding:
            stream.listener.data_received(data, padding)
        if end:
            self._end_receiving(stream)

    def _headers(self, flags: int, number: int, payload: bytes) -> None:
        if not number & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"HEADERS on stream {number}, which a client can't open")
        part = unpadded(flags, payload)
        if flags & HAS_PRIORITY:
            if len(part) < 5:
                raise wrong_size("HEADERS")
            self._priority(0, number, part[:5])
            part = part[5:]
        if number <= self._streams.last_id and self._streams.state(number) is CLOSED:
            self._streams.accept(HEADERS, number)  # raises the fault of a closed stream before the block is decoded
        end_stream = bool(flags & END_STREAM)
        if flags & END_HEADERS:
            self._block_received(number, part, end_stream=end_stream)
        else:
            self.block = HeaderBlock(number, part, end_stream=end_stream)

    def _continuation(self, flags: int, number: int, payload: bytes) -> None:
        block = self.block
        if block is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        block.add(payload)
        if flags & END_HEADERS:
            self.block = None
            self._block_received(number, block.received, end_stream=block.end_stream)

    def _block_received(self, number: int, block: bytes, *, end_stream: bool) -> None:
        if number > self._streams.last_id:
            self._open(number, block, end_stream=end_stream)
        else:
            self._trailers(number, block, end_stream=end_stream)

    def _open(self, number: int, block: bytes, *, end_stream: bool) -> None:
        self._streams.last_id = number
        fields = self._reader.read(block)
        if len(self._streams.by_id) >= self._max_streams:
            raise StreamFault(ErrorCode.REFUSED_STREAM, "too many open streams (SETTINGS_MAX_CONCURRENT_STREAMS)")
        length = fields.get("content-length")
        remaining = ANY_LENGTH if length is None else content_length(length, end_stream=end_stream)
        stream = self._streams.open(number, self._settings.initial_window, self._stream_window)
        stream.remaining_length = remaining
        stream.half_closed = end_stream
        self._events.stream_opened(stream, fields)
        if end_stream:
            self._end_receiving(stream)

    def _trailers(self, number: int, block: bytes, *, end_stream: bool) -> None:
        # Decode the block in every state of the stream, because later blocks refer to it.
        self._reader.read(block, trailers=True)
        stream = self._streams.accept(HEADERS, number)
        if stream is None:
            return
        if not end_stream:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "trailers without END_STREAM")
        if stream.remaining_length > 0:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "content-length differs from the length of DATA")
        self._end_receiving(stream)

    def _end_receiving(self, stream: Stream) -> None:
        stream.half_closed = True
        # A listener may have ended the stream while it handled the last bytes.
        if stream.listener is not None and stream.id in self._streams.by_id:
            stream.listener.end_received()

    def _priority(self, flags: int, number: int, payload: bytes) -> None:
        if not number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if int.from_bytes(payload[:4], "big") & LOW_31_BITS == number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"stream {number} depends on itself")

    def _rst_stream(self, flags: int, number: int, payload: bytes) -> None:
        self._streams.accept(RST_STREAM, number)
        stream = self._streams.close(number)
        if stream is not None and stream.listener is not None:
            stream.listener.aborted()

    def _settings_frame(self, flags: int, number: int, payload: bytes) -> None:
        if len(payload) % 6 or (flags & ACK and payload):
            raise wrong_size("SETTINGS")
        if flags & ACK:
            return
        growth = self._settings.apply(payload)
        if growth:
            grow_send_windows(self._streams, growth)
        self._output.add(SETTINGS_ACK)
        self._events.settings_received()
        self._events.window_opened()

    def _push_promise(self, flags: int, number: int, payload: bytes) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE from a client")

    def _ping(self, flags: int, number: int, payload: bytes) -> None:
        if not flags & ACK:
            self._output.add(ping(payload, ack=True))

    def _goaway(self, flags: int, number: int, payload: bytes) -> None:
        if len(payload) < 8:
            raise wrong_size("GOAWAY")
        self._events.goaway_received(int.from_bytes(payload[4:8], "big"))

    def _window_update(self, flags: int, number: int, payload: bytes) -> None:
        increment = int.from_bytes(payload, "big") & LOW_31_BITS
        if not number:
            self._windows.open_send(increment)
        elif (stream := self._streams.accept(WINDOW_UPDATE, number)) is not None:
            self._windows.open_send(increment, stream)
        self._events.window_opened()

    def _end_stream(self, number: int, reason: ErrorCode) -> None:
        """End a stream on which the client broke the protocol."""
        stream = self._streams.by_id.get(number)
        self._streams.reset(number)
        self._output.add(reset(number, reason))
        if stream is not None and stream.listener is not None:
            stream.listener.aborted()

    # By frame type.
    _HANDLERS = (
        _data,
        _headers,
        _priority,
        _rst_stream,
        _settings_frame,
        _push_promise,
        _ping,
        _goaway,
        _window_update,
        _continuation,
    )


def wrong_size(name: str) -> ConnectionFault:
    """Return the fault of a frame whose payload has another size than its type permits."""
    return ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"{name} of the wrong size")

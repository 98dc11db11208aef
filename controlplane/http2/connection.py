"""The server's side of HTTP/2 (RFC 9113) on one connection: which streams there are, what may be sent, and what is an error.

For what gRPC needs of it, and no more: nothing is pushed, no priorities, no upgrade from HTTP/1. There is no socket in here,
and no event loop. What came goes into `receive`; what is to be written piles up in `out`; what a client asks for is told to
the `User`, and what it says on a stream to that stream's `Listener`.

Why this is not a library's: the one there is, `h2`, takes 300 µs to set up a connection and its first stream, and 10 µs for
each frame of DATA; here it is 30 and 1. A fleet that comes back at once is mostly such beginnings. HPACK is a library's
(`headers.py`), and a suite made for the purpose finds what would be wrong here (`tests/http2/test_h2spec.py`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Protocol
from weakref import proxy

from controlplane.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADER,
    HEADER_BYTES,
    MAX_FRAME,
    MAX_WINDOW,
    PADDED,
    PREFACE,
    PRIORITISED,
    SETTINGS,
    SETTINGS_ACK,
    WINDOW,
    Buffer,
    ConnectionFault,
    ErrorCode,
    Setting,
    StreamFault,
    goaway,
    greeting,
    headers,
    ping,
    reset,
    window_update,
)
from controlplane.http2.headers import MAX_LIST, Headers, Reader, written

# A block of headers, as it comes, and in so many frames at most: as much as it can be, compressed.
_MAX_BLOCK, _MAX_FRAMES = MAX_LIST, 64

# Of so many streams that ended on this side first it is known, as the client may still be talking.
_LEFT = 256

# No frame is larger, whatever a client would take: it is one piece to write, and all else on the connection waits behind it.
_LARGEST = 4 * MAX_FRAME

# No content-length was given.
_ANY = -1

_NUMBER = 0x7FFF_FFFF


class Listener(Protocol):
    """What a stream is for."""

    def data_received(self, data: bytes, padding: int) -> None:
        """A part of what the client says, and how many bytes came with it that mean nothing."""

    def end_received(self) -> None:
        """The client says no more."""

    def aborted(self) -> None:
        """The stream is over: the client has left, or did something wrong."""


class User(Protocol):
    """What a connection is for."""

    def requested(self, stream: Stream, fields: Mapping[str, str]) -> None:
        """The client has opened a stream; its `listener` is to be set, or the stream to be ended."""

    def began(self) -> None:
        """The client speaks HTTP/2, and has said what it wants. Called at each SETTINGS."""

    def opened(self) -> None:
        """There may be room to send more."""

    def leaving(self, reason: int) -> None:
        """The client opens no more streams (GOAWAY), for this reason."""

    def consumed(self, count: int) -> None:
        """So many bytes came that nobody wants."""

    def spent(self, seconds: float) -> None:
        """So long it took to see to a frame that is not a message's."""

    def wrote(self) -> None:
        """There is something in `out`."""


class Stream:
    """One stream that is open in one direction at least."""

    __slots__ = ("heard_all", "id", "length", "listener", "room", "window")

    def __init__(self, number: int, window: int, room: int) -> None:
        self.id = number
        # What may be sent, and what may still come, bytes.
        self.window, self.room = window, room
        # The client says no more.
        self.heard_all = False
        # What is still to come by content-length.
        self.length = _ANY
        self.listener: Listener | None = None


class Connection:
    """One connection."""

    __slots__ = (
        "_block",
        "_clock",
        "_ends",
        "_first_window",
        "_frames",
        "_greeting",
        "_in_headers",
        "_left",
        "_limits",
        "_max_frame",
        "_preface",
        "_reader",
        "_room",
        "_settled",
        "_user",
        "_window",
        "held",
        "highest",
        "out",
        "over",
        "size",
        "streams",
    )

    def __init__(
        self, user: User, clock: Callable[[], float], streams: int, stream_window: int, connection_window: int
    ) -> None:
        """At most so many streams at a time; windows are what a client may send before it is taken, in bytes."""
        self.streams: dict[int, Stream] = {}
        # What is to be written, and how many bytes that is.
        self.out: list[Buffer] = []
        self.size = 0
        # Nothing is taken while this is set: `receive` returns.
        self.held = False
        # The client was told that the connection is over.
        self.over = False
        # The newest stream of the client.
        self.highest = 0
        # Who uses it has it, and not the other way round: a connection that is closed is gone at once.
        self._user: User = proxy(user)
        self._clock = clock
        self._limits = streams, stream_window
        self._greeting = greeting(streams, stream_window, connection_window, MAX_LIST)
        # How much of the preface is still to come; and whether the client has said its settings, which come next.
        self._preface = len(PREFACE)
        self._settled = False
        # What may be sent and what may still come, all streams together; what may be sent on a new stream; in one frame.
        self._window, self._room, self._first_window, self._max_frame = WINDOW, connection_window, WINDOW, MAX_FRAME
        self._reader = Reader()
        # A block of headers that is not whole: its stream, 0 if there is none; in how many frames it came; whether the stream
        # ends with it.
        self._in_headers = 0
        self._block = b""
        self._frames = 0
        self._ends = False
        # Streams that this side has ended before the client had said all.
        self._left: dict[int, None] = {}

    # ------------------------------------------------------------------------------------------------------- what comes

    def receive(self, data: bytes) -> bytes:
        """Takes what came, and returns what is left: part of a frame, or all after `held` was set. Errors: Wrong."""
        at, whole, streams = 0, len(data), self.streams
        if self._preface:
            self.greet()
            at = self._begin(data)
        while whole - at >= HEADER_BYTES and not self.held and not self.over:
            high, low, kind, flags, number = HEADER.unpack_from(data, at)
            length = high << 8 | low
            if length > MAX_FRAME:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            end = at + HEADER_BYTES + length
            if end > whole:
                break
            if kind == DATA and not flags and length and not self._in_headers:
                # As nearly all are.
                stream = streams.get(number)
                if stream is not None and not stream.heard_all and stream.length == _ANY and stream.listener is not None:
                    self._room -= length
                    stream.room -= length
                    if self._room < 0 or stream.room < 0:
                        raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than there was room for")
                    stream.listener.data_received(data[at + HEADER_BYTES : end], 0)
                    at = end
                    continue
            self._frame(kind, flags, number & _NUMBER, data[at + HEADER_BYTES : end])
            at = end
        return data[at:] if at else data

    def _begin(self, data: bytes) -> int:
        done = len(PREFACE) - self._preface
        count = min(self._preface, len(data))
        if data[:count] != PREFACE[done : done + count]:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "no HTTP/2: it does not begin like it")
        self._preface -= count
        return count

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._in_headers and (kind != CONTINUATION or number != self._in_headers):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame in the middle of headers")
        if not self._settled and (kind != SETTINGS or flags & ACK):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "no SETTINGS at the beginning")
        began = self._clock()
        if kind < len(self._KINDS):
            try:
                self._KINDS[kind](self, flags, number, payload)
            except StreamFault as error:
                self._drop(number, error.reason)
        self._user.spent(self._clock() - began)

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        stream = self._known(number)
        self._room -= size
        if self._room < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than there was room for on the connection")
        data = self._unpadded(flags, payload)
        if stream is None or stream.heard_all:
            self._user.consumed(size)
            if number not in self._left:
                raise StreamFault("DATA on a stream that is over", ErrorCode.STREAM_CLOSED)
            return
        stream.room -= size
        if stream.room < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than there was room for")
        end = flags & END_STREAM
        if stream.length != _ANY:
            stream.length -= len(data)
            if stream.length < 0 or (end and stream.length):
                self._user.consumed(size)
                raise StreamFault("not as long as content-length says")
        # Before it is told, so that who ends the stream over it need not ask the client to stop.
        stream.heard_all = bool(end)
        padding = size - len(data)
        self._user.consumed(padding)
        if stream.listener is None:
            self._user.consumed(len(data))
        elif data or padding:
            stream.listener.data_received(data, padding)
        if end:
            self._heard_all(stream)

    def _headers(self, flags: int, number: int, payload: bytes) -> None:
        if not number & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "HEADERS on a stream that is not a client's")
        block = self._unpadded(flags, payload)
        if flags & PRIORITISED:
            if len(block) < 5:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS that are too short for a priority")
            self._priority(0, number, block[:5])
            block = block[5:]
        if number <= self.highest and number not in self.streams and number not in self._left:
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "HEADERS on a stream that is over")
        self._in_headers, self._block, self._frames, self._ends = number, b"", 0, bool(flags & END_STREAM)
        self._continued(flags, block)

    def _continuation(self, flags: int, number: int, payload: bytes) -> None:
        if not self._in_headers:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._continued(flags, payload)

    def _continued(self, flags: int, part: bytes) -> None:
        self._block += part
        self._frames += 1
        if len(self._block) > _MAX_BLOCK or self._frames > _MAX_FRAMES:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "headers without end")
        if flags & END_HEADERS:
            number, block = self._in_headers, self._block
            self._in_headers, self._block = 0, b""
            self._said(number, block, end=self._ends)

    def _said(self, number: int, block: bytes, *, end: bool) -> None:
        """A block of headers is whole."""
        stream = self.streams.get(number)
        if number <= self.highest:
            self._reader.read(block, trailers=True)
            if stream is None:
                return  # this side has ended it, and the client did not know yet
            if stream.heard_all:
                raise StreamFault("HEADERS after the end", ErrorCode.STREAM_CLOSED)
            if not end or stream.length > 0:
                raise StreamFault("headers in the middle of a stream")
            self._heard_all(stream)
            return
        self.highest = number
        fields = self._reader.read(block)
        if len(self.streams) >= self._limits[0]:
            raise StreamFault("too many streams", ErrorCode.REFUSED_STREAM)
        stream = Stream(number, self._first_window, self._limits[1])
        if (length := fields.get("content-length")) is not None:
            if not (length.isascii() and length.isdecimal()) or (end and int(length[:20])):
                raise StreamFault("content-length is not so")
            stream.length = int(length[:20])
        self.streams[number] = stream
        stream.heard_all = end
        self._user.requested(stream, fields)
        if end:
            self._heard_all(stream)

    def _heard_all(self, stream: Stream) -> None:
        stream.heard_all = True
        if stream.listener is not None and stream.id in self.streams:
            stream.listener.end_received()

    def _priority(self, flags: int, number: int, payload: bytes) -> None:
        """Nothing is made of it."""
        if len(payload) != 5:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY of another size")
        if not number or int.from_bytes(payload[:4], "big") & _NUMBER == number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY of nothing, or of a stream that depends on itself")

    def _rst_stream(self, flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM of another size")
        stream = self._known(number)
        self._left.pop(number, None)
        if stream is not None:
            del self.streams[number]
            if stream.listener is not None:
                stream.listener.aborted()

    def _settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS of a stream")
        if len(payload) % 6 or (flags & ACK and payload):
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of another size")
        if flags & ACK:
            return
        self._settled = True
        # What is said last holds: a frame may say the same 2,730 times, and each time might be about each stream.
        for key, value in dict(struct.iter_unpack(">HL", payload)).items():
            self._setting(key, value)
        self._say(SETTINGS_ACK)
        self._user.began()
        self._user.opened()

    def _setting(self, key: int, value: int) -> None:
        if key == Setting.INITIAL_WINDOW_SIZE:
            if value > MAX_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window that is too large")
            more, self._first_window = value - self._first_window, value
            for stream in self.streams.values():
                stream.window += more
                if stream.window > MAX_WINDOW:
                    raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window that is too large")
        elif key == Setting.MAX_FRAME_SIZE:
            if not MAX_FRAME <= value < 1 << 24:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE is {value}")
            self._max_frame = min(value, _LARGEST)
        elif key in (Setting.ENABLE_PUSH, Setting.ENABLE_CONNECT_PROTOCOL) and value > 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"a setting that is on or off is {value}")

    def _push_promise(self, flags: int, number: int, payload: bytes) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE from a client")

    def _ping(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING of another size")
        if not flags & ACK:
            self._say(ping(payload, ack=True))

    def _goaway(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY that is too short")
        self._user.leaving(int.from_bytes(payload[4:8], "big"))

    def _window_update(self, flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE of another size")
        more = int.from_bytes(payload, "big") & _NUMBER
        if not number:
            self._window += more
            if not more or self._window > MAX_WINDOW:
                raise ConnectionFault(*_no_window(more))
        elif (stream := self._known(number)) is not None:
            stream.window += more
            if not more or stream.window > MAX_WINDOW:
                reason, message = _no_window(more)
                raise StreamFault(message, reason)
        self._user.opened()

    _KINDS = (
        _data,
        _headers,
        _priority,
        _rst_stream,
        _settings,
        _push_promise,
        _ping,
        _goaway,
        _window_update,
        _continuation,
    )

    def _known(self, number: int) -> Stream | None:
        """A stream that there is, or was; None if it is over. Errors: Wrong if there never was one."""
        if not number or number > self.highest or not number & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"stream {number}, which nobody opened")
        return self.streams.get(number)

    def _unpadded(self, flags: int, payload: bytes) -> bytes:
        if not flags & PADDED:
            return payload
        if not payload or payload[0] >= len(payload):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "more padding than there is room for")
        return payload[1 : len(payload) - payload[0]]

    # ----------------------------------------------------------------------------------------------------- what is said

    def greet(self) -> None:
        """Says what comes first, unless that was said."""
        if self._greeting:
            self._say(self._greeting)
            self._greeting = b""

    def headers(self, stream: Stream, fields: Headers, *, end: bool = False) -> None:
        """Sends these; `end` ends the stream, in both directions."""
        if self.streams.get(stream.id) is not stream:
            return
        self._say(headers(stream.id, written(fields), self._max_frame, end=end))
        if end:
            del self.streams[stream.id]
            if not stream.heard_all:
                # The client need say no more (RFC 9113, 8.1).
                self._leave(stream.id, ErrorCode.NO_ERROR)

    def send(self, stream: Stream, rest: list[Buffer], limit: int) -> bool:
        """Cuts what may be sent of `rest` into frames, until there are about `limit` bytes in `out`. Whether it did."""
        if self.streams.get(stream.id) is not stream or self.size >= limit:
            return False
        size, most = sum(map(len, rest)), self._max_frame
        if size > self._window or size > stream.window or size > most:
            frames = -(-(limit - self.size) // (HEADER_BYTES + most))
            size = min(size, self._window, stream.window, frames * most)
            if size > 0:
                self._in_frames(stream.id, rest, size)
        elif size:  # as nearly always
            self.out.append(HEADER.pack(size >> 8, size & 0xFF, DATA, 0, stream.id))
            self.out += rest
            self.size += HEADER_BYTES + size
            rest.clear()
        if size <= 0:
            return False
        self._window -= size
        stream.window -= size
        return True

    def _in_frames(self, number: int, rest: list[Buffer], size: int) -> None:
        """Takes `size` bytes off the beginning of `rest`, in frames as large as they may be."""
        most, out, at, view = self._max_frame, self.out, 0, memoryview(rest[0])
        header = HEADER.pack(most >> 8, most & 0xFF, DATA, 0, number)
        while size:
            left = min(size, most)
            out.append(header if left == most else HEADER.pack(left >> 8, left & 0xFF, DATA, 0, number))
            self.size += HEADER_BYTES + left
            size -= left
            while left:
                part = view[at : at + left]
                out.append(part)
                left -= len(part)
                at += len(part)
                if at == len(view):
                    del rest[0]
                    at, view = 0, memoryview(rest[0] if rest else b"")
        if at:
            rest[0] = view[at:]

    def reset(self, stream: Stream, reason: ErrorCode) -> None:
        """Ends a stream without a word."""
        if self.streams.pop(stream.id, None) is not None:
            self._leave(stream.id, reason)

    def more(self, count: int, stream: Stream | None = None) -> None:
        """The client may send so many bytes more; on a stream, or all together."""
        if stream is None:
            self._room += count
        elif stream.heard_all or stream.id not in self.streams:
            return
        else:
            stream.room += count
        self._say(window_update(stream.id if stream is not None else 0, count))

    def ping(self) -> None:
        """Asks whether the client is there."""
        self._say(ping())

    def leave(self) -> None:
        """Takes no more streams; those that are open go on."""
        self._say(goaway(self.highest, ErrorCode.NO_ERROR))

    def close(self, reason: ErrorCode) -> None:
        """All is over: nothing more is said, or heard."""
        self._say(goaway(self.highest, reason))
        self.over = True
        self.streams.clear()

    def written(self) -> tuple[list[Buffer], int]:
        """Hands over what is to be written."""
        out, size = self.out, self.size
        self.out, self.size = [], 0
        return out, size

    def _drop(self, number: int, reason: ErrorCode) -> None:
        """A client did something wrong on a stream."""
        stream = self.streams.pop(number, None)
        self._leave(number, reason)
        if stream is not None and stream.listener is not None:
            stream.listener.aborted()

    def _leave(self, number: int, reason: ErrorCode) -> None:
        self._say(reset(number, reason))
        self._left[number] = None
        if len(self._left) > _LEFT:
            del self._left[next(iter(self._left))]

    def _say(self, data: bytes) -> None:
        if self.over:
            return
        self.out.append(data)
        self.size += len(data)
        self._user.wrote()


def _no_window(more: int) -> tuple[ErrorCode, str]:
    if not more:
        return ErrorCode.PROTOCOL_ERROR, "a window that opens by nothing"
    return ErrorCode.FLOW_CONTROL_ERROR, "a window that is too large"

"""The streams of one connection and their states (RFC 9113, section 5.1).

    IDLE           may still be opened by the client; stream 0 and even numbers, which clients can't open, count as idle
    OPEN           open in both directions
    HALF_CLOSED    the client has sent END_STREAM, "half-closed (remote)" in the RFC
    RESET          this server ended it before the client did; the client may not know yet
    CLOSED         ended otherwise

This server ends a stream in both directions at once, so "half-closed (local)" does not occur. It pushes nothing, so neither
does "reserved". A frame has this effect; SF is a fault of the stream, CF of the connection:

                     IDLE                OPEN        HALF_CLOSED         RESET      CLOSED
    HEADERS          opens it            trailers    SF STREAM_CLOSED    ignored    CF STREAM_CLOSED
    DATA             CF PROTOCOL_ERROR   delivered   SF STREAM_CLOSED    ignored    SF STREAM_CLOSED
    RST_STREAM       CF PROTOCOL_ERROR   closes it   closes it           ignored    ignored
    WINDOW_UPDATE    CF PROTOCOL_ERROR   applied     applied             ignored    ignored
    PRIORITY         ignored in every state
"""

from __future__ import annotations

import enum
from typing import Protocol

from controlplane.http2.frames import DATA, HEADERS, RST_STREAM, WINDOW_UPDATE, ConnectionFault, ErrorCode, StreamFault

# The number of RESET streams that are remembered; the oldest become CLOSED.
_MAX_RESET = 256

# No content-length was given.
ANY_LENGTH = -1


class StreamListener(Protocol):
    """Receives the events of one stream."""

    def data_received(self, data: bytes, padding: int) -> None:
        """Handle the bytes of a DATA frame; `padding` is the number of padding bytes in the frame."""

    def end_received(self) -> None:
        """Handle the end of the client's side of the stream."""

    def aborted(self) -> None:
        """Handle the end of the whole stream: the client reset it, or broke the protocol on it."""


class Stream:
    """One stream that is OPEN or HALF_CLOSED."""

    __slots__ = ("half_closed", "id", "listener", "receive_window", "remaining_length", "send_window")

    def __init__(self, number: int, send_window: int, receive_window: int) -> None:
        self.id = number
        # Bytes that may be sent, and that may be received.
        self.send_window, self.receive_window = send_window, receive_window
        # The client has sent END_STREAM.
        self.half_closed = False
        # Bytes of DATA that the client still owes by its content-length.
        self.remaining_length = ANY_LENGTH
        self.listener: StreamListener | None = None


class State(enum.IntEnum):
    """The state of a stream."""

    IDLE = enum.auto()
    OPEN = enum.auto()
    HALF_CLOSED = enum.auto()
    RESET = enum.auto()
    CLOSED = enum.auto()


# Read as globals: in Python 3.11 a member of an enum costs ten times as much.
_IDLE, _OPEN, _HALF_CLOSED, _RESET, CLOSED = State

_Fault = tuple[type[ConnectionFault] | type[StreamFault], ErrorCode, str]

_FAULTS: dict[tuple[int, State], _Fault] = {
    (DATA, _IDLE): (ConnectionFault, ErrorCode.PROTOCOL_ERROR, "DATA on an idle stream"),
    (RST_STREAM, _IDLE): (ConnectionFault, ErrorCode.PROTOCOL_ERROR, "RST_STREAM on an idle stream"),
    (WINDOW_UPDATE, _IDLE): (ConnectionFault, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream"),
    (HEADERS, _HALF_CLOSED): (StreamFault, ErrorCode.STREAM_CLOSED, "HEADERS after END_STREAM"),
    (DATA, _HALF_CLOSED): (StreamFault, ErrorCode.STREAM_CLOSED, "DATA after END_STREAM"),
    (HEADERS, CLOSED): (ConnectionFault, ErrorCode.STREAM_CLOSED, "HEADERS on a closed stream"),
    (DATA, CLOSED): (StreamFault, ErrorCode.STREAM_CLOSED, "DATA on a closed stream"),
}


class Streams:
    """The streams of one connection."""

    __slots__ = ("_reset", "by_id", "last_id")

    def __init__(self) -> None:
        # Streams that are OPEN or HALF_CLOSED.
        self.by_id: dict[int, Stream] = {}
        # The highest number that the client has used; 0 for none.
        self.last_id = 0
        # Streams that are RESET, oldest first.
        self._reset: dict[int, None] = {}

    def state(self, number: int) -> State:
        """Return the state of a stream."""
        stream = self.by_id.get(number)
        if stream is not None:
            return _HALF_CLOSED if stream.half_closed else _OPEN
        if number in self._reset:
            return _RESET
        return CLOSED if number & 1 and number <= self.last_id else _IDLE

    def accept(self, kind: int, number: int) -> Stream | None:
        """Return the stream that a frame of this type is for; None for one to ignore. Errors: see the table above."""
        stream = self.by_id.get(number)
        if stream is not None and not stream.half_closed:
            return stream  # OPEN, where no frame is a fault
        fault = _FAULTS.get((kind, self.state(number)))
        if fault is not None:
            raise fault[0](fault[1], fault[2])
        return stream

    def open(self, number: int, send_window: int, receive_window: int) -> Stream:
        """Add an OPEN stream."""
        stream = self.by_id[number] = Stream(number, send_window, receive_window)
        return stream

    def holds(self, stream: Stream) -> bool:
        """Return True while the stream is OPEN or HALF_CLOSED."""
        return self.by_id.get(stream.id) is stream

    def close(self, number: int) -> Stream | None:
        """Make a stream CLOSED. Return it if it was OPEN or HALF_CLOSED."""
        self._reset.pop(number, None)
        return self.by_id.pop(number, None)

    def reset(self, number: int) -> None:
        """Make a stream RESET."""
        self.by_id.pop(number, None)
        self._reset[number] = None
        if len(self._reset) > _MAX_RESET:
            del self._reset[next(iter(self._reset))]

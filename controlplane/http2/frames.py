"""Frames of HTTP/2 (RFC 9113, 6 and 7): what they are called, and how those are written that a server has."""

from __future__ import annotations

import enum
import functools
import struct
from collections.abc import Mapping

Buffer = bytes | memoryview

# Length in three bytes, type, flags, stream.
HEADER = struct.Struct(">HBBBL")
HEADER_BYTES = 9
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# No frame is larger than this unless who takes it has said so (SETTINGS): clients may, this server does not.
MAX_FRAME = 16_384
MAX_WINDOW = 2**31 - 1
# Of a stream and of a connection, until something else is said.
WINDOW = 65_535

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

# Flags. An ACK is one of SETTINGS and PING.
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITISED = 0x4, 0x8, 0x20


class Setting(enum.IntEnum):
    """What each side says of itself."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6
    ENABLE_CONNECT_PROTOCOL = 8


class ErrorCode(enum.IntEnum):
    """Why a stream or a connection ends."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class ConnectionFault(Exception):
    """What a client says is not HTTP/2: its connection ends."""

    def __init__(self, reason: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class StreamFault(Exception):
    """What a client says on a stream is not HTTP/2: the stream ends."""

    def __init__(self, message: str, reason: ErrorCode = ErrorCode.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.reason = reason


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame; the stream is 0 for one of the connection."""
    size = len(payload)
    return HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def settings(values: Mapping[Setting, int]) -> bytes:
    """What this side says of itself."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HL", key, value) for key, value in values.items()))


SETTINGS_ACK = frame(SETTINGS, ACK, 0)


def window_update(stream: int, more: int) -> bytes:
    """The other side may send so many bytes more."""
    return frame(WINDOW_UPDATE, 0, stream, more.to_bytes(4, "big"))


def reset(stream: int, reason: ErrorCode) -> bytes:
    """A stream is over."""
    return frame(RST_STREAM, 0, stream, reason.to_bytes(4, "big"))


def ping(payload: bytes = bytes(8), *, ack: bool = False) -> bytes:
    """Whether the other side is there; or that this one is."""
    return frame(PING, ACK if ack else 0, 0, payload)


def goaway(last: int, reason: ErrorCode) -> bytes:
    """Streams after `last` are not served; and with a reason, nothing is."""
    return frame(GOAWAY, 0, 0, struct.pack(">LL", last, reason))


def headers(stream: int, block: bytes, size: int = MAX_FRAME, *, end: bool = False) -> bytes:
    """A block of headers, in frames of at most `size` bytes; `end`: nothing comes after it on the stream."""
    flags = END_STREAM if end else 0
    if len(block) <= size:
        return frame(HEADERS, flags | END_HEADERS, stream, block)
    parts = [block[at : at + size] for at in range(0, len(block), size)]
    last = len(parts) - 1
    kinds = ((HEADERS if i == 0 else CONTINUATION, flags if i == 0 else 0) for i in range(len(parts)))
    return b"".join(
        frame(kind, flag | (END_HEADERS if i == last else 0), stream, part)
        for i, ((kind, flag), part) in enumerate(zip(kinds, parts, strict=True))
    )


@functools.lru_cache(16)
def greeting(streams: int, stream_window: int, connection_window: int, header_list: int) -> bytes:
    """What a server says first: how many streams at a time, how much of data and headers before it is taken, in bytes."""
    said = {
        Setting.MAX_CONCURRENT_STREAMS: streams,
        Setting.INITIAL_WINDOW_SIZE: stream_window,
        Setting.MAX_HEADER_LIST_SIZE: header_list,
    }
    return settings(said) + window_update(0, connection_window - WINDOW)

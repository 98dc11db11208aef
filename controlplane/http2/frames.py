"""Frames of HTTP/2 (RFC 9113, sections 6 and 7): constants, faults, and the frames that a server writes."""

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

# The largest payload of a frame until the receiver announces another (SETTINGS_MAX_FRAME_SIZE). This server never does.
MAX_FRAME = 16_384
MAX_WINDOW = 2**31 - 1
# The first window of a stream and of a connection (SETTINGS_INITIAL_WINDOW_SIZE), bytes.
INITIAL_WINDOW = 65_535

# The highest bit of a stream number and of a window increment is reserved.
LOW_31_BITS = 0x7FFF_FFFF

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

# Flags. ACK exists in SETTINGS and PING, END_STREAM in DATA and HEADERS.
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, HAS_PRIORITY = 0x4, 0x8, 0x20


class Setting(enum.IntEnum):
    """Parameters of SETTINGS."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6
    ENABLE_CONNECT_PROTOCOL = 8


class ErrorCode(enum.IntEnum):
    """The reason in RST_STREAM and GOAWAY."""

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
    """The client broke the protocol, and the connection must close (RFC 9113, section 5.4.1)."""

    def __init__(self, reason: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class StreamFault(Exception):
    """The client broke the protocol on one stream, and only the stream ends (RFC 9113, section 5.4.2)."""

    def __init__(self, reason: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame; stream 0 is the connection."""
    size = len(payload)
    return HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def settings(values: Mapping[Setting, int]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HL", key, value) for key, value in values.items()))


SETTINGS_ACK = frame(SETTINGS, ACK, 0)


def window_update(stream: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def reset(stream: int, reason: ErrorCode) -> bytes:
    """Return an RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, reason.to_bytes(4, "big"))


def ping(payload: bytes = bytes(8), *, ack: bool = False) -> bytes:
    """Return a PING frame of eight bytes, or the answer to one."""
    return frame(PING, ACK if ack else 0, 0, payload)


def goaway(last_stream: int, reason: ErrorCode) -> bytes:
    """Return a GOAWAY frame: streams after `last_stream` are not served."""
    return frame(GOAWAY, 0, 0, struct.pack(">LL", last_stream, reason))


def headers(stream: int, block: bytes, size: int = MAX_FRAME, *, end: bool = False) -> bytes:
    """Return a header block in HEADERS and CONTINUATION frames of at most `size` bytes; `end` sets END_STREAM."""
    flags = END_STREAM if end else 0
    if len(block) <= size:
        return frame(HEADERS, flags | END_HEADERS, stream, block)
    parts = [block[at : at + size] for at in range(0, len(block), size)]
    frames = [frame(HEADERS, flags, stream, parts[0])]
    frames += [frame(CONTINUATION, 0, stream, part) for part in parts[1:-1]]
    frames.append(frame(CONTINUATION, END_HEADERS, stream, parts[-1]))
    return b"".join(frames)


@functools.lru_cache(16)
def server_preface(max_streams: int, stream_window: int, connection_window: int, max_header_list: int) -> bytes:
    """Return the server's first frames (RFC 9113, section 3.4); windows and the header list are bytes."""
    values = {
        Setting.MAX_CONCURRENT_STREAMS: max_streams,
        Setting.INITIAL_WINDOW_SIZE: stream_window,
        Setting.MAX_HEADER_LIST_SIZE: max_header_list,
    }
    return settings(values) + window_update(0, connection_window - INITIAL_WINDOW)


def unpadded(flags: int, payload: bytes) -> bytes:
    """Return the payload of DATA or HEADERS without its padding. Errors: ConnectionFault."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "padding longer than the frame")
    return payload[1 : len(payload) - payload[0]]

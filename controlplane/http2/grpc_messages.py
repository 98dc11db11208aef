"""gRPC's messages in a stream of bytes (gRPC over HTTP2: Length-Prefixed-Message).

A message follows a prefix of five bytes: a flag for compression, and the message's length in four bytes.
"""

from __future__ import annotations

import zlib

from controlplane.http2.grpc_status import StatusCode, StatusError

_PREFIX = 5

# Largest message after decompression, bytes. Sixteen kilobytes of gzip can be 16 MB of messages that are expensive to parse.
MAX_DECOMPRESSED = 1024 * 1024

# Values of grpc-encoding that are understood.
ENCODINGS = ("identity", "gzip")


class MessageReader:
    """Splits the bytes of one stream into messages."""

    __slots__ = ("_buffer", "_encoding", "_max_bytes")

    def __init__(self, max_bytes: int, encoding: str = "identity") -> None:
        """Read messages of at most `max_bytes`; compressed ones have this `encoding`, one of `ENCODINGS`."""
        self._max_bytes = max_bytes
        self._encoding = encoding
        # Bytes of messages that were not returned yet; None for none.
        self._buffer: bytearray | None = None

    def whole(self, data: bytes) -> bytes | None:
        """Return the message if `data` is exactly one uncompressed message and nothing is buffered: the usual case."""
        if self._buffer is None and len(data) >= _PREFIX and int.from_bytes(data[:_PREFIX], "big") == len(data) - _PREFIX:
            return data[_PREFIX:]
        return None

    def feed(self, data: bytes) -> None:
        """Add bytes of the stream."""
        if self._buffer is not None:
            self._buffer += data
        elif data:
            self._buffer = bytearray(data)

    def next(self) -> bytes | None:
        """Return the next message; None while it is incomplete. Errors: StatusError."""
        buffer = self._buffer
        if buffer is None or len(buffer) < _PREFIX:
            return None
        compressed, length = buffer[0], int.from_bytes(buffer[1:_PREFIX], "big")
        if compressed > 1:
            raise StatusError(StatusCode.INTERNAL, f"the message's compressed flag is {compressed}; it is 0 or 1")
        if length > self._max_bytes:
            raise self._too_large(length)
        if len(buffer) < _PREFIX + length:
            return None
        message = bytes(memoryview(buffer)[_PREFIX : _PREFIX + length])
        del buffer[: _PREFIX + length]
        if not buffer:
            self._buffer = None
        return self._decompressed(message) if compressed else message

    @property
    def partial(self) -> bool:
        """Return True if bytes are buffered: a part of a message, or messages that `next` has not returned."""
        return self._buffer is not None

    @property
    def size(self) -> int:
        """Return the number of buffered bytes."""
        return len(self._buffer) if self._buffer is not None else 0

    def clear(self) -> int:
        """Drop the buffered bytes. Return their number."""
        buffer, self._buffer = self._buffer, None
        return len(buffer) if buffer is not None else 0

    def _decompressed(self, message: bytes) -> bytes:
        if self._encoding != "gzip":
            raise StatusError(
                StatusCode.INTERNAL, "the message's compressed flag is set, but grpc-encoding names no compression"
            )
        unpack = zlib.decompressobj(wbits=31)
        max_bytes = min(self._max_bytes, MAX_DECOMPRESSED)
        try:
            data = unpack.decompress(message, max_bytes + 1)
        except zlib.error:
            raise StatusError(
                StatusCode.INVALID_ARGUMENT, "the message's compressed flag is set, but it is not gzip"
            ) from None
        if len(data) > max_bytes:
            text = f"the message has more than {max_bytes} bytes after decompression; send larger ones without grpc-encoding"
            raise StatusError(StatusCode.RESOURCE_EXHAUSTED, text)
        if not unpack.eof:
            raise StatusError(StatusCode.INVALID_ARGUMENT, "the gzip message is truncated")
        return data

    def _too_large(self, length: int) -> StatusError:
        message = f"the message has {length} bytes or more; the largest allowed has {self._max_bytes}"
        return StatusError(StatusCode.RESOURCE_EXHAUSTED, message)

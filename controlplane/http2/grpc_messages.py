"""gRPC's messages in a stream of bytes ("gRPC over HTTP2": Length-Prefixed-Message, Status-Message)."""

from __future__ import annotations

import zlib
from urllib.parse import quote

from controlplane.errors import Code, Error
from controlplane.xds_server.limits import MAX_REQUEST_BYTES

# A byte that says whether the message is compressed, and its length in four.
_PREFIX = 5

# How messages may be compressed.
ENCODINGS = ("identity", "gzip")


class Messages:
    """What a client says, taken apart into messages."""

    __slots__ = ("_buffer", "_encoding")

    def __init__(self, encoding: str = "identity") -> None:
        """`encoding` is that of compressed messages: one of `ENCODINGS`."""
        self._encoding = encoding
        # None while it is empty.
        self._buffer: bytearray | None = None

    def whole(self, data: bytes) -> bytes | None:
        """The message that `data` is, if it is just one, uncompressed, and nothing came before it: mostly so."""
        if self._buffer is None and len(data) >= _PREFIX and int.from_bytes(data[:_PREFIX], "big") == len(data) - _PREFIX:
            return data[_PREFIX:]
        return None

    def feed(self, data: bytes) -> None:
        """Takes in what came."""
        if self._buffer is not None:
            self._buffer += data
        elif data:
            self._buffer = bytearray(data)

    def next(self) -> bytes | None:
        """The next message; None while it is not complete. Errors: RESOURCE_EXHAUSTED, INTERNAL, INVALID_ARGUMENT."""
        buffer = self._buffer
        if buffer is None or len(buffer) < _PREFIX:
            return None
        compressed, length = buffer[0], int.from_bytes(buffer[1:_PREFIX], "big")
        if length > MAX_REQUEST_BYTES:
            raise too_large(length)
        if len(buffer) < _PREFIX + length:
            return None
        message = bytes(memoryview(buffer)[_PREFIX : _PREFIX + length])
        del buffer[: _PREFIX + length]
        if not buffer:
            self._buffer = None
        return self._decompressed(message) if compressed else message

    @property
    def partial(self) -> bool:
        """Whether there is a part of a message, or messages that nobody took."""
        return self._buffer is not None

    @property
    def size(self) -> int:
        """How many bytes are kept."""
        return len(self._buffer) if self._buffer is not None else 0

    def clear(self) -> int:
        """Forgets what is left. Returns how many bytes it was."""
        buffer, self._buffer = self._buffer, None
        return len(buffer) if buffer is not None else 0

    def _decompressed(self, message: bytes) -> bytes:
        if self._encoding != "gzip":
            raise Error(Code.INTERNAL, "NOT_ENCODED", "a message is marked as compressed, and grpc-encoding does not say how")
        unpack = zlib.decompressobj(wbits=31)
        try:
            data = unpack.decompress(message, MAX_REQUEST_BYTES + 1)
        except zlib.error:
            raise Error(Code.INVALID_ARGUMENT, "NOT_A_REQUEST", "a message is marked as gzip, and is not") from None
        if len(data) > MAX_REQUEST_BYTES:
            raise too_large(len(data))
        if not unpack.eof:
            raise Error(Code.INVALID_ARGUMENT, "NOT_A_REQUEST", "a message is marked as gzip, and breaks off")
        return data


def too_large(length: int) -> Error:
    """What is said of a request that is too large."""
    message = f"a request of {length} bytes or more; it may have {MAX_REQUEST_BYTES}"
    return Error(Code.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE", message)


def percent_encoded(text: str) -> str:
    """Text as a grpc-message header has it, which may not begin or end with a space."""
    return quote(text.strip(" "), safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")

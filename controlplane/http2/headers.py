"""Header blocks: decoded and checked (RFC 9113, sections 8.2 and 8.3), and encoded. HPACK (RFC 7541) is the hpack library's.

Most connections of a fleet begin with the same block, and a first block has the same meaning on each connection. So first
blocks are decoded once for all connections, and a connection gets its own decoder with its second block. Encoded blocks don't
depend on earlier ones: each sets the size of the dynamic table to 0.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping

from hpack import Decoder, Encoder, HPACKError, OversizedHeaderListError

from controlplane.http2.frames import ConnectionFault, ErrorCode, StreamFault

Headers = tuple[tuple[str, str], ...]

# The size of all fields of a block, as RFC 9113, section 6.5.2 counts it, bytes.
MAX_HEADER_LIST = 64 * 1024

# First blocks up to this size are decoded once for all connections, bytes.
_SHARED_BLOCK = 1024

_PSEUDO_HEADERS = frozenset((b":method", b":scheme", b":authority", b":path"))
# Fields of one HTTP/1.1 connection, forbidden in HTTP/2 (RFC 9113, section 8.2.2).
_CONNECTION_SPECIFIC = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
_NOT_IN_NAME = re.compile(rb"[\x00-\x20A-Z\x7f-\xff:]")
_NOT_IN_VALUE = re.compile(rb"[\x00\r\n]|^[ \t]|[ \t]$")


class HeaderReader:
    """Decodes the header blocks of one connection, in order. Each block must be read, even if its stream is closed."""

    __slots__ = ("_decoder", "_first")

    def __init__(self) -> None:
        # The first block, until there is a second one and with it a decoder.
        self._first: bytes | None = None
        self._decoder: Decoder | None = None

    def read(self, block: bytes, *, trailers: bool = False) -> Mapping[str, str]:
        """Return the fields of a request's header block, or of its trailers. Errors: ConnectionFault, StreamFault."""
        if self._decoder is None:
            if self._first is None and len(block) <= _SHARED_BLOCK:
                self._first = block
                return _read_first(block)
            self._decoder = _decoder()
            if self._first is not None:
                _decoded(self._decoder, self._first)
                self._first = None
        return checked(_decoded(self._decoder, block), trailers=trailers)


@functools.lru_cache(1024)
def _read_first(block: bytes) -> Mapping[str, str]:
    return checked(_decoded(_decoder(), block))


def _decoder() -> Decoder:
    return Decoder(max_header_list_size=MAX_HEADER_LIST)


def _decoded(decoder: Decoder, block: bytes) -> Iterable[tuple[bytes, bytes]]:
    try:
        return decoder.decode(block, raw=True)
    except OversizedHeaderListError:
        message = f"header list larger than {MAX_HEADER_LIST} bytes (SETTINGS_MAX_HEADER_LIST_SIZE)"
        raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, message) from None
    except HPACKError as error:
        raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, f"invalid header block: {error}") from None


def checked(fields: Iterable[tuple[bytes, bytes]], *, trailers: bool = False) -> Mapping[str, str]:
    """Return the fields by name; of repeated fields, the last one. Errors: StreamFault, for a malformed message."""
    values: dict[bytes, bytes] = {}
    regular = False
    for name, value in fields:
        if name in _PSEUDO_HEADERS:
            if trailers or regular:
                place = "in trailers" if trailers else "after regular fields"
                raise _malformed(f"pseudo-header field {name.decode()} {place}")
            if name in values:
                raise _malformed(f"repeated pseudo-header field {name.decode()}")
        else:
            regular = True
            if not name or _NOT_IN_NAME.search(name):
                raise _malformed(f"invalid field name {name[:100]!r}")
            if name in _CONNECTION_SPECIFIC or (name == b"te" and value != b"trailers"):
                raise _malformed(f"forbidden header field {name.decode()}")
        if _NOT_IN_VALUE.search(value):
            raise _malformed(f"invalid value of header field {name.decode()[:100]}")
        if name == b"content-length" and values.get(name, value) != value:
            raise _malformed("two different values of content-length")
        values[name] = value
    if not trailers and values.get(b":method") != b"CONNECT":
        for name in (b":method", b":scheme", b":path"):
            if not values.get(name):
                raise _malformed(f"missing pseudo-header field {name.decode()}")
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in values.items()}


def _malformed(message: str) -> StreamFault:
    return StreamFault(ErrorCode.PROTOCOL_ERROR, message)


def content_length(text: str, *, end_stream: bool) -> int:
    """Return the value of a content-length field, bytes. Errors: StreamFault."""
    if not (text.isascii() and text.isdecimal()):
        raise _malformed("invalid content-length")
    length = int(text[:20])
    if end_stream and length:
        raise _malformed("content-length of a request without DATA is not 0")
    return length


@functools.lru_cache(256)
def encoded(headers: Headers) -> bytes:
    """Return the header block of these fields."""
    encoder = Encoder()
    encoder.header_table_size = 0
    return bytes(encoder.encode(headers))

"""Blocks of HTTP/2 headers: read from clients and checked (RFC 9113, 8.2 and 8.3), and written. HPACK is a library's.

A fleet's connections begin alike, and a block means the same at the beginning of each: so what the first one of a connection
says is worked out once, and a connection has a decoder of its own only from its second on. What is written depends on nothing
that was written before: the table stays empty, which each block says first.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping

from hpack import Decoder, Encoder, HPACKError, OversizedHeaderListError

from controlplane.http2.frames import ConnectionFault, ErrorCode, StreamFault

Headers = tuple[tuple[str, str], ...]

# Of all fields of a block together, as RFC 9113, 6.5.2 counts them, bytes.
MAX_LIST = 64 * 1024

# Larger blocks are not remembered.
_SMALL = 1024

_PSEUDO = frozenset((b":method", b":scheme", b":authority", b":path"))
# Of one connection, and not to be said in HTTP/2.
_CONNECTION = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
_NO_NAME = re.compile(rb"[\x00-\x20A-Z\x7f-\xff:]")
_NO_VALUE = re.compile(rb"[\x00\r\n]|^[ \t]|[ \t]$")


class Reader:
    """What a client's blocks say, one after the other. Every block has to be read, whatever becomes of its stream."""

    __slots__ = ("_decoder", "_first")

    def __init__(self) -> None:
        self._first: bytes | None = None
        self._decoder: Decoder | None = None

    def read(self, block: bytes, *, trailers: bool = False) -> Mapping[str, str]:
        """The fields of a request, or those that come after one. Errors: Wrong, Malformed when it is only this stream's."""
        if self._decoder is None:
            if self._first is None and len(block) <= _SMALL:
                self._first = block
                return _first(block)
            self._decoder = _decoder()
            if self._first is not None:
                _decoded(self._decoder, self._first)
                self._first = None
        return checked(_decoded(self._decoder, block), trailers=trailers)


@functools.lru_cache(1024)
def _first(block: bytes) -> Mapping[str, str]:
    return checked(_decoded(_decoder(), block))


def _decoder() -> Decoder:
    return Decoder(max_header_list_size=MAX_LIST)


def _decoded(decoder: Decoder, block: bytes) -> Iterable[tuple[bytes, bytes]]:
    try:
        return decoder.decode(block, raw=True)
    except OversizedHeaderListError:
        raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"more than {MAX_LIST} bytes of headers") from None
    except HPACKError as error:
        raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, f"headers that can't be read: {error}") from None


def checked(fields: Iterable[tuple[bytes, bytes]], *, trailers: bool = False) -> Mapping[str, str]:
    """Fields by name; the last one of each. Errors: Malformed."""
    found: dict[bytes, bytes] = {}
    regular = False
    for name, value in fields:
        if name in _PSEUDO:
            if regular or trailers or name in found:
                raise StreamFault(f"{name.decode()} where it must not be")
        else:
            regular = True
            if not name or _NO_NAME.search(name) or name in _CONNECTION or (name == b"te" and value != b"trailers"):
                raise StreamFault(f"a field {name[:100]!r}, which must not be")
        if _NO_VALUE.search(value):
            raise StreamFault(f"the value of {name[:100]!r} must not be")
        found[name] = value
    if not trailers and found.get(b":method") != b"CONNECT":
        for name in (b":method", b":scheme", b":path"):
            if not found.get(name):
                raise StreamFault(f"a request without {name.decode()}")
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in found.items()}


@functools.lru_cache(256)
def written(headers: Headers) -> bytes:
    """The block of these."""
    encoder = Encoder()
    encoder.header_table_size = 0
    return bytes(encoder.encode(headers))

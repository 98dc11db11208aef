"""Messages of xDS that are expensive to hold, to decompress, to parse or to remember."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Iterator

from envoy.service.discovery.v3 import discovery_pb2

from controlplane.envoy_types import CLUSTER, ENDPOINTS
from controlplane.http2.frames import RST_STREAM, frame
from tests.attacks.attack import Attack, data, message, opened, request_headers

_BLOCK = request_headers()
_GZIP = request_headers(grpc_encoding="gzip")
_MEGABYTE = 1 << 20


def _field(tag: int, payload: bytes) -> bytes:
    size, length = len(payload), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([tag, *length, size]) + payload


def _request(node: str = "bad", names: tuple[str, ...] = (), type_url: str = CLUSTER) -> bytes:
    request = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=names)
    request.node.id = node
    return bytes(request.SerializeToString())


def _in_turn(block: bytes, payload: bytes, streams: int) -> Iterator[bytes]:
    """Send a message on this many streams, and on new ones afterwards."""
    for first in itertools.count(1, 2 * streams):
        numbers = range(first, first + 2 * streams, 2)
        yield b"".join(opened(n, block) for n in numbers)
        for n in numbers:
            yield data(n, payload)


# Node is field 1, its `extensions` are field 9; `resource_names_subscribe` is field 3.
_EXTENSIONS = _request() + _field(0x0A, b"\x4a\x00" * (7 * _MEGABYTE))
_NAMES = _request() + b"\x1a\x00" * (7 * _MEGABYTE)
_ZIPPED = message(gzip.compress(_EXTENSIONS), 1)
_ZIPPED_NAMES = message(gzip.compress(_NAMES), 1)
_LARGE = message(_request(names=tuple(f"no-such-model-{n}/blue" for n in range(20_000)), type_url=ENDPOINTS))


def _never_ends(connection: int) -> Iterator[bytes]:
    """Begin a message of 16 MB on each of many streams, and send all but its last byte, within the windows."""
    for n in range(1, 401, 2):
        yield opened(n, _BLOCK) + data(n, bytes([0]) + (16 * _MEGABYTE).to_bytes(4, "big") + bytes(250_000))


def _short_lived(connection: int) -> Iterator[bytes]:
    """Name a new node on each stream, with 60 KB of metadata."""
    for n in range(1, 200_001, 2):
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER)
        request.node.id = f"node-{connection}-{n}"
        request.node.metadata.update({f"key-{i}": {f"k{j}": "x" * 10 for j in range(20)} for i in range(60)})
        yield opened(n, _BLOCK) + data(n, message(request.SerializeToString())) + frame(RST_STREAM, 0, n, bytes(4))


def _byte_by_byte(connection: int) -> Iterator[bytes]:
    """Begin a message and send a byte of it now and then; the attacker's pauses come from the socket."""
    yield opened(1, _BLOCK) + data(1, message(_request())[:10])


MESSAGES = (
    Attack("gzip of empty extensions", lambda _: _in_turn(_GZIP, _ZIPPED, 100)),
    Attack("gzip of empty names", lambda _: _in_turn(_GZIP, _ZIPPED_NAMES, 100)),
    Attack("empty extensions", lambda _: _in_turn(_BLOCK, message(_EXTENSIONS)[:4_000_005], 1)),
    Attack("200 streams of large requests", lambda _: _in_turn(_BLOCK, _LARGE, 200)),
    Attack("messages that never end", _never_ends),
    Attack("short-lived nodes with metadata", _short_lived),
    Attack("compressed flag 7", lambda _: _in_turn(_BLOCK, message(_request(), 7), 200)),
    Attack("slow message", _byte_by_byte),
    Attack("idle", lambda _: iter(())),
)

"""One attack: what a connection sends, in HTTP/2 frames that are made beforehand, so that the attacker needs little CPU."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hpack import Encoder

from controlplane.http2.frames import DATA, END_HEADERS, HEADERS, PREFACE, SETTINGS, frame

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


@dataclass(frozen=True, slots=True)
class Attack:
    """The bytes of one connection: the preface, SETTINGS, and then chunk after chunk, as fast as the server takes them."""

    name: str
    # Returns the chunks of one connection; the number is different for each connection. The connection stays open after the
    # last one.
    chunks: Callable[[int], Iterator[bytes]]
    # Entries of the client's SETTINGS.
    settings: tuple[tuple[int, int], ...] = ()
    # False: the client never reads from its socket.
    reads: bool = True

    def opening(self) -> bytes:
        """Return the first bytes of a connection."""
        return PREFACE + frame(SETTINGS, 0, 0, b"".join(struct.pack(">HL", *entry) for entry in self.settings))


def request_headers(path: str = ADS, **more: str) -> bytes:
    """Return the header block of a gRPC request, without the dynamic table. `_` in a name stands for `-`."""
    encoder = Encoder()
    encoder.header_table_size = 0
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x")]
    fields += [("content-type", "application/grpc"), ("te", "trailers")]
    return bytes(encoder.encode([*fields, *((k.replace("_", "-"), v) for k, v in more.items())]))


def opened(stream: int, block: bytes) -> bytes:
    """Return the HEADERS frame that opens a stream."""
    return frame(HEADERS, END_HEADERS, stream, block)


def data(stream: int, payload: bytes, size: int = 16_384) -> bytes:
    """Return DATA frames of at most `size` bytes."""
    return b"".join(frame(DATA, 0, stream, payload[at : at + size]) for at in range(0, len(payload), size))


def message(payload: bytes, flag: int = 0) -> bytes:
    """Return a gRPC message with its prefix."""
    return bytes([flag]) + len(payload).to_bytes(4, "big") + payload


def again(chunk: bytes, size: int = 256_000) -> Iterator[bytes]:
    """Repeat frames for ever, in chunks of about `size` bytes."""
    return itertools.repeat(chunk * max(1, size // len(chunk)))


def each_stream(make: Callable[[int], bytes], at_once: int = 500) -> Iterator[bytes]:
    """Yield what `make` returns for stream 1, 3, 5 and so on, for `at_once` streams a chunk."""
    numbers = itertools.count(1, 2)
    while True:
        yield b"".join(make(n) for n in itertools.islice(numbers, at_once))

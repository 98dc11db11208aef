"""A client that speaks HTTP/2 frame by frame, as no good client would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from envoy.service.discovery.v3 import discovery_pb2
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from controlplane.envoy_types import LISTENER

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


def message(*, node: str = "raw", type_url: str = LISTENER, padding: str = "") -> bytes:
    """A first delta request, with gRPC's prefix."""
    request = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url)
    request.node.id = node
    if padding:
        request.resource_names_subscribe.append(padding)
    return prefixed(request.SerializeToString())


def prefixed(data: bytes, compressed: int = 0) -> bytes:
    return bytes([compressed]) + len(data).to_bytes(4, "big") + data


class Raw:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.events: list[Event] = []
        # By stream: what came in DATA.
        self.data: dict[int, bytes] = {}
        # Gives windows back by itself.
        self.acknowledges = True
        # The server has closed the connection; and not well, with something unread.
        self.closed = self.reset = False

    async def start(self, settings: dict[SettingCodes | int, int] | None = None, **headers: str) -> int:
        """Begins, with these settings, and opens a stream."""
        self.h2.initiate_connection()
        if settings:
            self.h2.update_settings(settings)
        return await self.open(**headers)

    async def open(self, *, path: str = ADS, method: str = "POST", kind: str = "application/grpc", **more: str) -> int:
        """Opens a stream; further headers with `_` for `-`."""
        stream = self.h2.get_next_available_stream_id()
        headers = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "x"), ("content-type", kind)]
        self.h2.send_headers(stream, [*headers, ("te", "trailers"), *((k.replace("_", "-"), v) for k, v in more.items())])
        await self.flush()
        return stream

    async def say(self, stream: int, data: bytes, **how: Any) -> None:
        self.h2.send_data(stream, data, **how)
        await self.flush()

    async def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())
        await self.writer.drain()

    async def until(self, holds: Any, seconds: float = 30.0) -> None:
        """Reads until something is true, or fails."""
        async with asyncio.timeout(seconds):
            while not holds():
                assert not self.closed, "the server has closed the connection"
                await self.read()

    async def read(self) -> None:
        """Reads once."""
        try:
            data = await self.reader.read(65536)
        except ConnectionResetError:
            data, self.reset = b"", True
        self.closed = not data
        if self.closed:
            return
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if isinstance(event, DataReceived):
                self.data[event.stream_id] = self.data.get(event.stream_id, b"") + event.data
                if self.acknowledges and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        try:
            await self.flush()
        except ConnectionError:
            self.closed = True

    async def end(self) -> None:
        """Reads until the server closes the connection."""
        async with asyncio.timeout(30):
            while not self.closed:
                try:
                    await self.read()
                except ProtocolError:
                    self.closed = True

    def heard(self, kind: type[Event], stream: int | None = None) -> list[Any]:
        return [e for e in self.events if isinstance(e, kind) and (stream is None or vars(e).get("stream_id") == stream)]

    def headers(self, stream: int) -> dict[str, str]:
        """All headers and trailers that came on a stream."""
        found: dict[str, str] = {}
        for event in [*self.heard(ResponseReceived, stream), *self.heard(TrailersReceived, stream)]:
            found |= dict(event.headers)
        return found

    def over(self, stream: int) -> bool:
        return bool(self.heard(StreamEnded, stream) or self.heard(StreamReset, stream))

    @property
    def goaway(self) -> Any:
        """The newest one; None if there was none."""
        return next(reversed(self.heard(ConnectionTerminated)), None)

    @property
    def pings(self) -> int:
        return len(self.heard(PingReceived))

    def responses(self, stream: int) -> list[Any]:
        """The responses that are whole."""
        data, found = self.data.get(stream, b""), []
        while len(data) >= 5 and len(data) >= 5 + (length := int.from_bytes(data[1:5], "big")):
            found.append(discovery_pb2.DeltaDiscoveryResponse.FromString(data[5 : 5 + length]))
            data = data[5 + length :]
        return found


@asynccontextmanager
async def raw(port: int) -> AsyncIterator[Raw]:
    """A connection, closed at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()

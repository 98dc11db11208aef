"""A large honest fleet behind one address, with the default bounds."""

from __future__ import annotations

import asyncio
import resource

import pytest
from envoy.service.discovery.v3 import discovery_pb2

from bench.bad_clients import manifest
from controlplane.demo.plane import ControlPlane
from controlplane.envoy_types import CLUSTER
from controlplane.http2.frames import DATA, GOAWAY, HEADER, HEADER_BYTES, PREFACE, SETTINGS, frame
from tests.attacks.attack import data, message, opened, request_headers

PROXIES = 5_000


class Proxy(asyncio.Protocol):
    """Subscribes to all clusters, and notes whether it receives a message."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER)
        request.node.id = f"proxy-{self.number}"
        transport.write(PREFACE + frame(SETTINGS, 0, 0))
        transport.write(opened(1, request_headers()) + data(1, message(request.SerializeToString())))

    def data_received(self, received: bytes) -> None:
        self._received += received
        while len(self._received) >= HEADER_BYTES:
            high, low, kind, _, _ = HEADER.unpack_from(self._received)
            if kind == GOAWAY and not self.answered.done():
                self.answered.set_exception(ConnectionError(repr(self._received[:60])))
            if kind == DATA and not self.answered.done():
                self.answered.set_result(None)
            end = HEADER_BYTES + (high << 8 | low)
            if len(self._received) < end:
                return
            self._received = self._received[end:]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(ConnectionError("closed"))


@pytest.mark.soak
async def test_5000_proxies_of_one_address_connect_at_once() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    try:
        async with ControlPlane() as plane:
            await plane.apply(manifest(20))
            loop = asyncio.get_running_loop()
            proxies = [Proxy(n) for n in range(PROXIES)]
            made = [loop.create_connection(lambda p=p: p, "127.0.0.1", plane.xds_port) for p in proxies]  # type: ignore[misc]
            transports = [transport for transport, _ in await asyncio.gather(*made)]
            async with asyncio.timeout(120):
                await asyncio.gather(*(p.answered for p in proxies))
            for transport in transports:
                transport.abort()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

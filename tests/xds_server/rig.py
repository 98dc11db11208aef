"""A rig: the xDS server on a real socket, with a real store and the real compiler, and a client of one stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from controlplane.compiler import Compiler
from controlplane.config import XDS_TRANSPORTS
from controlplane.domain import Endpoint, Gateway, Model, Version
from controlplane.domain.revision import Action, Draft
from controlplane.domain.state import Changes
from controlplane.fleet import Fleet
from controlplane.observers.folds import FleetFold
from controlplane.reconciler.publish import Publisher
from controlplane.reconciler.report import EventDispatcher
from controlplane.store import Store
from controlplane.xds_server.discovery import SERVICES, Discovery
from controlplane.xds_server.limits import StreamLimits
from controlplane.xds_server.transports import serve
from tests.fakes.xds_client import EOF
from tests.store.opening import open_store

VARIANTS = pytest.mark.parametrize("variant", ["delta", "sotw"])

GATEWAY = Gateway("public", 10000)


def model(split: dict[str, int], name: str = "iris", gateways: tuple[str, ...] = ("public",)) -> Model:
    """Return a model with the versions blue and green."""
    versions = tuple(Version(v, (Endpoint("127.0.0.1", p),)) for v, p in (("blue", 9001), ("green", 9002)))
    return Model(name, gateways, versions, split)


BLUE, GREEN = model({"blue": 10_000}), model({"green": 10_000})


class Rig:
    """Everything between a store and a socket."""

    def __init__(self, store: Store, limits: StreamLimits | None = None, transport: str = "http2") -> None:
        self.limits = limits = limits or StreamLimits()
        self.transport = transport
        self.store = store
        self.fleet = Fleet()
        self.events = EventDispatcher(self.fleet, [FleetFold(self.fleet)])
        self.publisher = Publisher(store.head, Compiler(), self.events.publish)
        self.discovery = Discovery(self.publisher.published, self.events.report, limits)
        self.port = 0
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Serve, publish each head and push it."""
        await self.serve()
        self._loops = [asyncio.create_task(self.publisher.run()), asyncio.create_task(self.discovery.run())]

    async def serve(self) -> None:
        """Serve, but publish nothing."""
        self.server = await serve(self.discovery, "127.0.0.1", 0, self.limits, transport=self.transport)
        self.port = self.server.port

    async def stop(self) -> None:
        """End every stream and the server."""
        self.discovery.close()
        await self.server.stop(20)
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)

    async def commit(self, *objects: Gateway | Model) -> int:
        """Commit these objects and return the number of the revision."""
        changes = Changes({o.resource_name: o for o in objects})
        draft = Draft("me", "", Action.APPLY, time.time())
        head = await self.store.commit(self.store.head.value.after(changes, draft), changes, draft)
        return head.number

    async def commit_and_publish(self, *objects: Gateway | Model) -> None:
        """Commit these objects and wait until their revision is published."""
        revision = await self.commit(*objects)
        await self.until(lambda fleet: fleet.revision >= revision)

    async def until(self, condition: Callable[[Fleet], bool], seconds: float = 60.0) -> None:
        """Wait until a condition holds of the fleet."""
        changed = self.events.changed
        async with asyncio.timeout(seconds):
            while not condition(self.fleet):
                await changed.newer(changed.serial)

    async def held(self, revision: int, nodes: int = 1) -> None:
        """Wait until this many nodes hold a revision."""
        await self.until(lambda fleet: fleet.holding(revision) >= nodes)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store."""
    s = await open_store(tmp_path)
    yield s
    await s.close()


@asynccontextmanager
async def running(store: Store, limits: StreamLimits | None = None, transport: str = "http2") -> AsyncIterator[Rig]:
    """A rig that serves while the block runs."""
    r = Rig(store, limits, transport)
    await r.start()
    try:
        yield r
    finally:
        await r.stop()


@pytest.fixture(params=XDS_TRANSPORTS)
async def rig(store: Store, request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    """A rig on each transport."""
    async with running(store, transport=request.param) as r:
        yield r


class PerTypeStream:
    """A client with one stream of a per-type service. A test decides what it sends."""

    def __init__(self, channel: grpc.aio.Channel, type_url: str, variant: str, node: str = "edge-1") -> None:
        service, stem, _ = next(s for s in SERVICES if s[2] == type_url)
        self.type_url, self.delta = type_url, variant == "delta"
        self.request: Any = discovery_pb2.DeltaDiscoveryRequest if self.delta else discovery_pb2.DiscoveryRequest
        self.response: Any = discovery_pb2.DeltaDiscoveryResponse if self.delta else discovery_pb2.DiscoveryResponse
        self.node = node
        self.features: list[str] = []
        self.names: tuple[str, ...] = ()
        open_stream: Any = channel.stream_stream
        self.call = open_stream(
            f"/envoy.service.{service}/{'Delta' if self.delta else 'Stream'}{stem}",
            request_serializer=self.request.SerializeToString,
            response_deserializer=self.response.FromString,
        )()

    async def subscribe(self, *names: str, type_url: str = "") -> None:
        """Send a first request; "" leaves the type to the service."""
        request = self.request(type_url=type_url)
        request.node.id = self.node
        request.node.client_features.extend(self.features)
        (request.resource_names_subscribe if self.delta else request.resource_names).extend(names)
        self.names = names
        await self.call.write(request)

    async def response_received(self) -> Any:
        """Return the next response."""
        async with asyncio.timeout(60):
            response = await self.call.read()
        assert response is not EOF
        assert response.type_url == self.type_url
        return response

    async def ack(self, response: Any) -> None:
        """ACK a response."""
        request = self.request(response_nonce=response.nonce)
        if not self.delta:
            request.version_info = response.version_info
            request.resource_names.extend(self.names)
        await self.call.write(request)

    async def status(self) -> tuple[grpc.StatusCode, str]:
        """Read until the stream ends, and return its status."""
        try:
            async with asyncio.timeout(60):
                while await self.call.read() is not EOF:
                    pass
        except grpc.aio.AioRpcError:
            pass
        return await self.call.code(), await self.call.details()

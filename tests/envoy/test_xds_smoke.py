"""The xDS cores with a real Envoy: a minimal server connects them, without pumps and without the rest of the control plane."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import grpc
import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2, scoped_route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401 (the import registers it for json_format)
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # noqa: F401
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import json_format

from controlplane.compiler.bootstrap import node_bootstrap
from controlplane.demo.envoy import Envoy
from controlplane.demo.ports import free_port
from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SCOPED_ROUTES, short_name
from controlplane.snapshot import Audience, Resource, Snapshot
from controlplane.xds.delta import DeltaStream
from controlplane.xds.events import Event, Held, Identified, Refused
from controlplane.xds.sotw import SotwStream
from tests.envoy.test_sync import model_server

pytestmark = pytest.mark.envoy

ADS = {"ads": {}, "resource_api_version": "V3"}
ROUTER = {
    "name": "router",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
}
MESSAGES: dict[str, Callable[[], Any]] = {
    CLUSTER: cluster_pb2.Cluster,
    ENDPOINTS: endpoint_pb2.ClusterLoadAssignment,
    LISTENER: listener_pb2.Listener,
    SCOPED_ROUTES: scoped_route_pb2.ScopedRouteConfiguration,
    ROUTES: route_pb2.RouteConfiguration,
}


def resource(type_url: str, name: str, fields: dict[str, Any], *refs: tuple[str, str]) -> Resource:
    message = MESSAGES[type_url]()
    json_format.ParseDict(fields, message)
    return Resource.of(type_url, name, message.SerializeToString(deterministic=True), refs)


def make_snapshot(
    revision: int, port: int, clusters: dict[str, int], weights: dict[str, int], timeout: str = "5s"
) -> Snapshot:
    """Return a snapshot with these clusters, by the port of their server, and one route with these weights."""

    def address(number: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    resources = []
    for name, upstream_port in clusters.items():
        eds = {"name": name, "type": "EDS", "connect_timeout": timeout, "eds_cluster_config": {"eds_config": ADS}}
        endpoint = {"endpoint": {"address": address(upstream_port)}}
        resources.append(resource(CLUSTER, name, eds, (ENDPOINTS, name)))
        resources.append(resource(ENDPOINTS, name, {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}))
    split = {"weighted_clusters": {"clusters": [{"name": n, "weight": w} for n, w in weights.items()]}}
    routes = [{"match": {"prefix": "/"}, "route": split}]
    hosts = [{"name": "all", "domains": ["*"], "routes": routes}]
    resources.append(resource(ROUTES, "m", {"name": "m", "virtual_hosts": hosts}, *((CLUSTER, n) for n in weights)))
    key = {"fragments": [{"string_key": "m"}]}
    scope = {"name": "g/m", "route_configuration_name": "m", "key": key}
    resources.append(resource(SCOPED_ROUTES, "g/m", scope, (ROUTES, "m")))
    fragment = {"header_value_extractor": {"name": "model", "element_separator": ",", "index": 0}}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "g",
        "http_filters": [ROUTER],
        "scoped_routes": {
            "name": "g",
            "scope_key_builder": {"fragments": [fragment]},
            "rds_config_source": ADS,
            "scoped_rds": {"scoped_rds_config_source": ADS},
        },
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    resources.append(resource(LISTENER, "g", {"name": "g", "address": address(port), "filter_chains": [chain]}))
    return Snapshot.of(revision, Audience(("g",)), resources)


class Server:
    """The smallest server of the cores: it offers the newest snapshot to every stream, and records events and responses."""

    def __init__(self, variant: str) -> None:
        self.variant = variant
        self.snapshot: Snapshot | None = None
        self.streams: list[tuple[DeltaStream | SotwStream, asyncio.Event]] = []
        self.events: list[Event] = []
        # (type, names) of each response.
        self.sent: list[tuple[str, tuple[str, ...]]] = []
        self._changed = asyncio.Condition()
        self.port = 0

    async def start(self) -> None:
        delta = self.variant == "delta"
        request = discovery_pb2.DeltaDiscoveryRequest if delta else discovery_pb2.DiscoveryRequest
        method = "DeltaAggregatedResources" if delta else "StreamAggregatedResources"
        handler = grpc.stream_stream_rpc_method_handler(self._stream, request_deserializer=request.FromString)
        service = "envoy.service.discovery.v3.AggregatedDiscoveryService"
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(0)
        self.streams.clear()

    async def offer(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        for core, wake in self.streams:
            await self._record(core.offer(snapshot))
            wake.set()

    async def held(self, revision: int, seconds: float) -> None:
        await self.until(lambda: Held(revision) in self.events, seconds)

    async def until(self, condition: Callable[[], bool], seconds: float) -> None:
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(condition)

    def refused(self) -> list[Refused]:
        return [e for e in self.events if isinstance(e, Refused)]

    async def _record(self, events: list[Event]) -> None:
        async with self._changed:
            self.events += events
            self._changed.notify_all()

    async def _stream(self, requests: AsyncIterator[Any], context: Any) -> None:
        core = DeltaStream() if self.variant == "delta" else SotwStream()
        wake = asyncio.Event()
        self.streams.append((core, wake))

        async def write() -> None:
            while await wake.wait():
                wake.clear()
                for data in core.to_send():
                    self.sent.append(self._summary(data))
                    await context.write(data)

        writer = asyncio.create_task(write())
        try:
            async for request in requests:
                events = core.receive(request)
                if any(isinstance(e, Identified) for e in events) and self.snapshot is not None:
                    events += core.offer(self.snapshot)
                await self._record(events)
                wake.set()
        finally:
            writer.cancel()

    def _summary(self, data: bytes) -> tuple[str, tuple[str, ...]]:
        """Return the type of a response and the names in it; removed ones begin with `-`."""
        if self.variant == "delta":
            delta = discovery_pb2.DeltaDiscoveryResponse.FromString(data)
            names = [r.name for r in delta.resources] + [f"-{n}" for n in delta.removed_resources]
            return short_name(delta.type_url), tuple(names)
        sotw = discovery_pb2.DiscoveryResponse.FromString(data)
        names = []
        for packed in sotw.resources:
            message = MESSAGES[packed.type_url]()
            packed.Unpack(message)
            names.append(message.cluster_name if packed.type_url == ENDPOINTS else message.name)
        return short_name(sotw.type_url), tuple(sorted(names))


async def wait_until_warmed(envoy: Envoy) -> None:
    """Wait until no cluster of an Envoy is warming."""
    warming = "cluster_manager.warming_clusters"
    while (await envoy.stats(warming))[warming]:  # noqa: ASYNC110 (an Envoy has no events to wait for)
        await asyncio.sleep(0.02)


async def answer(port: int) -> str:
    url = f"http://127.0.0.1:{port}/"
    async with aiohttp.ClientSession() as session, session.get(url, headers={"model": "m"}) as response:
        return await response.text()


@pytest.mark.parametrize("variant", ["delta", "sotw"])
async def test_an_envoy_syncs_follows_changes_refuses_and_reconnects(variant: Any) -> None:
    server, port = Server(variant), free_port()
    async with model_server("blue") as blue, model_server("green") as green:
        server.snapshot = make_snapshot(1, port, {"blue": blue}, {"blue": 1})
        await server.start()
        async with Envoy(node_bootstrap("e", xds_port=server.port, variant=variant, admin_port=0)) as envoy:
            # The first sync does not wait for a timeout.
            await server.held(1, 10)
            await envoy.ready(5)
            assert await answer(port) == "blue"

            # Make before break: green is added, the route changes, blue is removed. Each step is ACKed before the next one.
            server.sent.clear()
            await server.offer(make_snapshot(2, port, {"green": green}, {"green": 1}))
            await server.held(2, 5)
            assert await answer(port) == "green"
            both = ("green",) if variant == "delta" else ("blue", "green")
            last = ("-blue",) if variant == "delta" else ("green",)
            assert [s for s in server.sent if s[0] != "ClusterLoadAssignment"] == [
                ("Cluster", both),
                ("RouteConfiguration", ("m",)),
                ("Cluster", last),
            ]

            # A change of shares needs one response with one resource.
            server.sent.clear()
            await server.offer(make_snapshot(3, port, {"green": green, "blue": blue}, {"green": 1}))
            await server.held(3, 5)
            server.sent.clear()
            await server.offer(make_snapshot(4, port, {"green": green, "blue": blue}, {"green": 1, "blue": 3}))
            await server.held(4, 5)
            assert server.sent == [("RouteConfiguration", ("m",))]
            assert {await answer(port) for _ in range(40)} == {"blue", "green"}

            # A changed cluster is warmed soon, because its endpoints are sent again.
            await server.offer(make_snapshot(5, port, {"green": green, "blue": blue}, {"green": 1}, timeout="3s"))
            await server.held(5, 5)
            async with asyncio.timeout(5):
                await wait_until_warmed(envoy)

            # A refusal is reported once, and the refused resource is not sent again.
            server.sent.clear()
            bad = make_snapshot(6, port, {"green": green, "blue": blue}, {"green": 0}, timeout="3s")
            await server.offer(bad)
            await server.until(lambda: bool(server.refused()), 5)
            assert await answer(port) == "green"
            assert server.sent == [("RouteConfiguration", ("m",))]
            refused = server.refused()
            assert len(refused) == 1
            assert refused[0].resources == ("m",)
            assert "weight" in refused[0].message
            await server.offer(make_snapshot(7, port, {"green": green, "blue": blue}, {"blue": 1}, timeout="3s"))
            await server.held(7, 5)
            assert await answer(port) == "blue"

            # The server restarts: a delta client that holds the newest state is sent nothing.
            await server.stop()
            assert await answer(port) == "blue"
            server.sent.clear()
            server.events.clear()
            await server.start()
            await server.held(7, 20)
            if variant == "delta":
                assert server.sent == []

            # The server restarts with a newer snapshot.
            await server.stop()
            server.snapshot = make_snapshot(9, port, {"green": green}, {"green": 1}, timeout="4s")
            await server.start()
            await server.held(9, 20)
            assert await answer(port) == "green"
        await server.stop()
    assert not server.refused()

"""A flat route table to compare with: the same models in one RouteConfiguration, as most set-ups have them.

This is the smallest ADS server that can switch such a table. It sends the whole RouteConfiguration at each change, since xDS
has no smaller unit than a resource. Routes and listener are those of Turnout's compiler, so that the two set-ups differ only
in their layout: each route begins with its model's path, and the listener uses no scopes. Listener and clusters are static.
A complete table would also need routes for TF-Serving's verbs; this one has none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpConnectionManager
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from google.protobuf.json_format import MessageToDict

from bench.rig import GATEWAY, OTHER, USER_HEADER, Switch, address
from controlplane.compiler.bootstrap import node_bootstrap
from controlplane.compiler.listeners import compile_listener
from controlplane.compiler.routes import compile_routes
from controlplane.demo.envoy import Envoy
from controlplane.demo.ports import free_port
from controlplane.domain import FULL_SHARE, Endpoint, Gateway, Model, Sticky, Version
from controlplane.envoy_types import ROUTES

TABLE = "table"


class FlatTable(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):  # type: ignore[misc]
    """The route table of some models, and the ADS server of one Envoy that has it."""

    def __init__(self, models: Iterable[Model]) -> None:
        """Build the table. Each of `models` has all its traffic on one version."""
        self.table = RouteConfiguration(name=TABLE)
        host = self.table.virtual_hosts.add(name=TABLE, domains=["*"])
        # By model: the one cluster in the table that has all its traffic.
        self._weights: dict[str, Any] = {}
        for model in models:
            [own] = RouteConfiguration.FromString(compile_routes(model).body).virtual_hosts
            route = own.routes[-1]  # an earlier one is for requests without the sticky header
            host.retry_policy.CopyFrom(own.retry_policy)
            added = host.routes.add()
            added.CopyFrom(route)
            added.match.path_separated_prefix = f"/v2/models/{model.name}"
            [self._weights[model.name]] = added.route.weighted_clusters.clusters
        self._serial = 0
        self._changed = asyncio.Event()
        self._acked = asyncio.Event()

    async def switch(self, model: str, version: str) -> Switch:
        """Move all traffic of a model, and wait until the Envoy has ACKed the table."""
        start = time.perf_counter()
        self._weights[model].name = f"{model}/{version}"
        self._serial += 1
        self._acked.clear()
        self._changed.set()
        async with asyncio.timeout(30):
            await self._acked.wait()
        seconds = time.perf_counter() - start
        return Switch(seconds, seconds, self.table.ByteSize())

    async def DeltaAggregatedResources(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        """Serve one stream. Send nothing before the Envoy has asked for the table."""
        reader = asyncio.create_task(self._read(requests))
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                answer = discovery_pb2.DeltaDiscoveryResponse(type_url=ROUTES, nonce=str(self._serial))
                resource = answer.resources.add(name=TABLE, version=str(self._serial))
                resource.resource.Pack(self.table, deterministic=True)
                yield answer
        finally:
            reader.cancel()

    async def _read(self, requests: Any) -> None:
        async for request in requests:
            if request.HasField("error_detail"):
                raise ValueError(f"the Envoy refused the table: {request.error_detail.message}")
            if request.response_nonce == str(self._serial):
                self._acked.set()
            elif TABLE in request.resource_names_subscribe:
                self._changed.set()

    @staticmethod
    @asynccontextmanager
    async def serve(models: Iterable[str], ports: Mapping[str, int]) -> AsyncIterator[tuple[FlatTable, Envoy, int]]:
        """Start the server and an Envoy that holds the table. Yield both and the port of the gateway."""
        gateway = Gateway(GATEWAY, free_port(), "127.0.0.1")
        versions = tuple(Version(name, (Endpoint("127.0.0.1", ports[name]),)) for name in OTHER)
        sticky = Sticky(header=USER_HEADER)
        nouns = [Model(name, (GATEWAY,), versions, {"blue": FULL_SHARE}, sticky=sticky) for name in models]
        flat = FlatTable(nouns)
        server = grpc.aio.server()
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(flat, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with Envoy(_bootstrap(gateway, nouns, ports, port)) as envoy:
                async with asyncio.timeout(60):
                    await flat._acked.wait()
                await envoy.ready(60)
                yield flat, envoy, gateway.port
        finally:
            await server.stop(None)


def _bootstrap(gateway: Gateway, models: Iterable[Model], ports: Mapping[str, int], xds_port: int) -> dict[str, Any]:
    listener = Listener.FromString(compile_listener(gateway).body)
    filter_config = listener.filter_chains[0].filters[0].typed_config
    manager = HttpConnectionManager.FromString(filter_config.value)
    del manager.early_header_mutation_extensions[:]
    manager.rds.route_config_name = TABLE
    manager.rds.config_source.CopyFrom(manager.scoped_routes.rds_config_source)
    manager.ClearField("scoped_routes")
    manager.rds.config_source.ads.SetInParent()
    filter_config.Pack(manager)
    bootstrap: dict[str, Any] = node_bootstrap("bench-flat", "bench", xds_port=xds_port, admin_port=0)
    for section in ("cds_config", "lds_config"):
        del bootstrap["dynamic_resources"][section]
    static = bootstrap["static_resources"]
    static["listeners"] = [MessageToDict(listener)]
    static["clusters"] += [_cluster(f"{m.name}/{v}", port) for m in models for v, port in ports.items()]
    return bootstrap


def _cluster(name: str, port: int) -> dict[str, Any]:
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address(port)}}]}
    return {"name": name, "type": "STATIC", "load_assignment": {"cluster_name": name, "endpoints": [endpoint]}}

"""The programs that are measured: the control plane as a process, real Envoys, and cheap model servers."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import grpc

from controlplane.compiler.bootstrap import XDS_CLUSTER, node_bootstrap
from controlplane.demo.envoy import Envoy
from controlplane.demo.ports import free_port
from controlplane.demo.process import Process
from controlplane.generated.turnout.v1 import (
    gateway_pb2,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    revision_pb2,
    revision_service_pb2,
    revision_service_pb2_grpc,
)

GATEWAY = "edge"
USER_HEADER = "x-user"
OTHER = {"blue": "green", "green": "blue"}

# The Envoy's count of bytes from its control plane, with HTTP/2's frames and pings.
RECEIVED = f"cluster.{XDS_CLUSTER}.upstream_cx_rx_bytes_total"


def address(port: int) -> dict[str, Any]:
    """Return a loopback address in Envoy's JSON form."""
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def connection_manager(**routes: Any) -> dict[str, Any]:
    """Return the network filter for HTTP in Envoy's JSON form. `routes` is the source of its routes."""
    http = "type.googleapis.com/envoy.extensions.filters"
    router = {"name": "router", "typed_config": {"@type": f"{http}.http.router.v3.Router"}}
    manager = f"{http}.network.http_connection_manager.v3.HttpConnectionManager"
    return {"name": "http", "typed_config": {"@type": manager, "stat_prefix": "http", **routes, "http_filters": [router]}}


@asynccontextmanager
async def model_servers() -> AsyncIterator[Mapping[str, int]]:
    """Start servers that answer every request with `blue` or `green`: one Envoy with direct responses. Yield their ports."""
    ports = {version: free_port() for version in OTHER}
    listeners = []
    for version, port in ports.items():
        route = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": version}}}
        inline = {"virtual_hosts": [{"name": version, "domains": ["*"], "routes": [route]}]}
        chain = {"filters": [connection_manager(route_config=inline)]}
        listeners.append({"name": version, "address": address(port), "filter_chains": [chain]})
    bootstrap = {"node": {"id": "model-servers", "cluster": "bench"}, "static_resources": {"listeners": listeners}}
    async with Envoy(bootstrap) as envoy:
        await envoy.ready()
        yield ports


@dataclass(frozen=True, slots=True)
class Switch:
    """The costs of one switch, as the operator sees it."""

    ack: float  # seconds from the commit to the last ACK, by the control plane's clock
    wall: float  # seconds from the call to the answer that it is complete
    resource: float  # bytes of the resources that one Envoy is sent
    commit: float = 0.0  # time of the commit, in seconds since the epoch


class Turnout:
    """A `turnout serve` process, and an operator who calls it."""

    def __init__(self, process: Process, channel: grpc.aio.Channel, xds_port: int, gateway_port: int) -> None:
        self.process = process
        self.xds_port = xds_port
        self.gateway_port = gateway_port
        self._models = model_service_pb2_grpc.ModelServiceStub(channel)
        self._revisions = revision_service_pb2_grpc.RevisionServiceStub(channel)

    @staticmethod
    @asynccontextmanager
    async def serve(*flags: str) -> AsyncIterator[Turnout]:
        """Start the server on an empty store with these flags, and end it."""
        api, xds = free_port(), free_port()
        async with AsyncExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="turnout-bench-")))
            command = [sys.executable, "-m", "controlplane.cli.main", "serve", "--data", str(directory / "data")]
            command += ["--api", f"127.0.0.1:{api}", "--xds", f"127.0.0.1:{xds}", "--metrics", "off", *flags]
            process = Process("turnout serve", command, directory / "serve.log")
            limits = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
            await process.start()
            stack.push_async_callback(process.stop)
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{api}", limits))
            turnout = Turnout(process, channel, xds, free_port())
            await turnout._ready()
            yield turnout

    async def restart(self) -> None:
        """Kill the server, start it again on the same store, and wait until it accepts calls."""
        await self.process.kill()
        await self.process.start()
        await self._ready()

    async def _ready(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            self.process.check()
            try:
                await self._revisions.ListRevisions(revision_service_pb2.ListRevisionsRequest(page_size=1))
                return
            except grpc.aio.AioRpcError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.05)

    async def apply(self, models: Iterable[str], ports: Mapping[str, int], endpoints: int = 1) -> None:
        """Apply the gateway, and models with all traffic on `blue`, in one revision. Further endpoints have the next ports."""
        gateway = gateway_pb2.Gateway(name=GATEWAY, address="127.0.0.1", port=self.gateway_port)
        versions = [
            model_pb2.Version(
                name=v, endpoints=[model_pb2.Endpoint(host="127.0.0.1", port=port + i) for i in range(endpoints)]
            )
            for v, port in ports.items()
        ]
        sticky = model_pb2.Sticky(header=USER_HEADER)
        manifest = revision_service_pb2.Manifest(gateways=[gateway])
        for name in models:
            manifest.models.add(name=name, gateways=[GATEWAY], versions=versions, split={"blue": 10_000}, sticky=sticky)
        await self._revisions.Apply(revision_service_pb2.ApplyRequest(manifest=manifest))

    async def move(self, model: str, version: str) -> model_service_pb2.SwitchTrafficResponse:
        """Move all traffic of a model, and return once that is committed."""
        switch = model_service_pb2.TrafficSwitch(model=f"models/{model}", version=version)
        # Without probes: the switch is measured, and not how fast the model servers answer.
        request = model_service_pb2.SwitchTrafficRequest(switches=[switch], force=True, no_probe=True)
        response: model_service_pb2.SwitchTrafficResponse = await self._models.SwitchTraffic(request)
        return response

    async def switch(self, model: str, version: str) -> Switch:
        """Move all traffic of a model, and wait until every node holds that."""
        start = time.perf_counter()
        response = await self.move(model, version)
        progress = await self._completed(response.revision.name)
        wall = time.perf_counter() - start
        ack = progress.last_ack_time.ToNanoseconds() - response.revision.create_time.ToNanoseconds()
        commit = response.revision.create_time.ToNanoseconds() / 1e9
        return Switch(ack / 1e9, wall, response.impact.bytes_per_node, commit)

    async def settled(self, nodes: int) -> None:
        """Wait until this many nodes hold the newest revision."""
        deadline = time.monotonic() + 180
        while True:
            progress = await self._completed("revisions/latest")
            if progress.holding >= nodes:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{progress.holding} of {nodes} nodes hold {progress.revision.name}")
            await asyncio.sleep(0.01)

    async def _completed(self, revision: str) -> Any:
        async with asyncio.timeout(180):
            connected = revision_pb2.NODE_REQUIREMENT_CONNECTED
            request = revision_service_pb2.WatchRevisionRequest(name=revision, require=connected)
            async for answer in self._revisions.WatchRevision(request):
                if answer.progress.complete:
                    return answer.progress
        raise ConnectionError("the watch ended before the revision was complete")

    @asynccontextmanager
    async def envoy(self, node: str, variant: Literal["delta", "sotw"] = "delta") -> AsyncIterator[Envoy]:
        """Start an Envoy that gets everything from this control plane."""
        bootstrap = node_bootstrap(node, "bench", xds_port=self.xds_port, variant=variant, admin_port=0)
        async with Envoy(bootstrap) as envoy:
            await envoy.ready(180)
            yield envoy

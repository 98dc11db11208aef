"""Real Envoys with the real control plane: first sync, switches, refusals, and restarts of the control plane."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from aiohttp import web

from controlplane.app import App
from controlplane.compiler.bootstrap import node_bootstrap
from controlplane.config import Address, Config
from controlplane.demo.envoy import Envoy
from controlplane.demo.ports import free_port
from controlplane.generated.turnout.v1 import (
    gateway_pb2,
    gateway_service_pb2,
    gateway_service_pb2_grpc,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    node_pb2,
    node_service_pb2,
    node_service_pb2_grpc,
    revision_pb2,
    revision_service_pb2,
    revision_service_pb2_grpc,
)

pytestmark = pytest.mark.envoy

VARIANTS = pytest.mark.parametrize("variant", ["delta", "sotw"])

BYTES = "cluster.turnout.upstream_cx_rx_bytes_total"

# The loopback address of these gateways. Other programs on the machine mostly use 127.0.0.1.
HOST = "127.0.0.7"


def taken_port() -> socket.socket:
    """Return a listening socket. Until it is closed, Envoy refuses a listener on its port."""
    sock = socket.socket()
    sock.bind((HOST, 0))
    sock.listen()
    return sock


@asynccontextmanager
async def model_server(answer: str) -> AsyncIterator[int]:
    """Run an HTTP server that always gives this answer. Yield its port."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(text=answer)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class Plane:
    """A control plane in this process, stubs of its operator API, and two model servers behind one model on one gateway."""

    def __init__(self, path: Path, workers: int = 0) -> None:
        self.path, self.workers = path, workers
        self.port = free_port()
        self.xds_port = free_port()  # nothing takes it while the control plane is down
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Plane":
        self.upstreams = {v: await self._stack.enter_async_context(model_server(v)) for v in ("blue", "green")}
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        await self._stack.aclose()

    async def start(self) -> None:
        """Start the control plane, on the same xDS port each time."""
        loopback = Address("127.0.0.1", 0)
        xds = Address("127.0.0.1", self.xds_port)
        self.app = App(Config(self.path, loopback, xds, metrics=None, grace=1.0, workers=self.workers))
        await self.app.start()
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.app.api_port}")
        self.gateways: Any = gateway_service_pb2_grpc.GatewayServiceStub(self._channel)
        self.models: Any = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self.revisions: Any = revision_service_pb2_grpc.RevisionServiceStub(self._channel)
        self.nodes: Any = node_service_pb2_grpc.NodeServiceStub(self._channel)

    async def stop(self) -> None:
        await self._channel.close(None)
        await self.app.stop()

    async def apply(self) -> int:
        """Apply the gateway and the model, with all traffic on blue. Return the revision."""
        versions = [
            model_pb2.Version(name=v, endpoints=[model_pb2.Endpoint(host="127.0.0.1", port=p)])
            for v, p in self.upstreams.items()
        ]
        model = model_pb2.Model(name="iris", gateways=["gateways/public"], versions=versions, split={"blue": 10_000})
        manifest = revision_service_pb2.Manifest(
            gateways=[gateway_pb2.Gateway(name="public", address=HOST, port=self.port)], models=[model]
        )
        response = await self.revisions.Apply(revision_service_pb2.ApplyRequest(manifest=manifest, force=True, allow_cut=True))
        return int(response.revision.number)

    async def switch(self, version: str) -> int:
        """Move all traffic to a version. Return the revision."""
        switch = model_service_pb2.TrafficSwitch(model="models/iris", version=version)
        response = await self.models.SwitchTraffic(model_service_pb2.SwitchTrafficRequest(switches=[switch], force=True))
        return int(response.revision.number)

    async def progress(self, revision: int, condition: Any, seconds: float = 20.0) -> revision_pb2.RevisionProgress:
        """Wait until a condition holds of a revision's progress. Return that progress."""
        async with asyncio.timeout(seconds):
            while True:
                watch = self.revisions.WatchRevision(revision_service_pb2.WatchRevisionRequest(name=f"revisions/{revision}"))
                async for response in watch:
                    if condition(response.progress):
                        return response.progress  # type: ignore[no-any-return]

    async def held(self, revision: int, nodes: int = 1) -> revision_pb2.RevisionProgress:
        """Wait until all nodes, and at least this many, hold a revision. Return its progress."""
        return await self.progress(revision, lambda p: p.complete and p.holding >= nodes)

    async def node(self, name: str) -> node_pb2.Node:
        response = await self.nodes.GetNode(node_service_pb2.GetNodeRequest(name=f"nodes/{name}"))
        return response.node  # type: ignore[no-any-return]

    def envoy(self, name: str, variant: Any) -> Envoy:
        return Envoy(node_bootstrap(name, "edge", xds_port=self.xds_port, variant=variant, admin_port=0))

    async def ask(self, seconds: float = 10.0) -> str:
        """Send a request through the gateway, once it listens. Return the version that answers."""
        async with asyncio.timeout(seconds), aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(f"http://{HOST}:{self.port}/v2/models/iris/infer") as response:
                        return await response.text()
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.01)

    async def answers(self, version: str) -> None:
        """Wait until a version answers."""
        async with asyncio.timeout(10):
            while await self.ask() != version:  # noqa: ASYNC110  there is no event to wait for
                await asyncio.sleep(0.01)


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    async with Plane(tmp_path) as p:
        yield p


async def test_a_delta_and_a_sotw_envoy_sync_and_follow_a_switch(plane: Plane) -> None:
    await plane.apply()
    async with plane.envoy("d", "delta") as d, plane.envoy("s", "sotw") as s:
        progress = await plane.held(1, 2)
        assert [n.node for n in progress.nodes] == ["nodes/d", "nodes/s"]
        assert await plane.ask() == "blue"
        revision = await plane.switch("green")
        progress = await plane.held(revision, 2)
        assert (progress.total, progress.refused) == (2, 0)
        assert {await plane.ask() for _ in range(20)} == {"green"}
        for envoy, variant in ((d, "delta"), (s, "sotw")):
            node = await plane.node(envoy.id)
            assert (list(node.variants), node.state, node.held_revision) == ([variant], node_pb2.NODE_STATE_SYNCED, revision)
            assert node.user_agent.startswith("envoy 1.")
            rejected = await envoy.stats("update_rejected$")
            assert rejected
            assert not any(rejected.values())


@VARIANTS
async def test_a_refusal_is_reported_and_not_repeated_and_the_envoy_follows_switches(plane: Plane, variant: str) -> None:
    await plane.apply()
    async with plane.envoy("edge-1", variant) as envoy:
        await plane.held(1)
        with taken_port() as other:
            taken = other.getsockname()[1]
            gateway = gateway_pb2.Gateway(name="second", address=HOST, port=taken)
            await plane.gateways.CreateGateway(gateway_service_pb2.CreateGatewayRequest(gateway=gateway))
            progress = await plane.progress(2, lambda p: p.refused)
            (node,) = progress.nodes
            assert (node.node, node.state) == ("nodes/edge-1", revision_pb2.NODE_PROGRESS_STATE_REFUSED)
            assert node.refused_type == "Listener"
            assert any(str(taken) in name or name == "second" for name in node.refused_resources)
            assert "in use" in node.error
            status = await plane.node("edge-1")
            assert (status.state, status.held_revision, status.target_revision) == (node_pb2.NODE_STATE_REFUSING, 1, 2)
            assert status.refusals[0].message == node.error
            # The Envoy goes on with the old listener, and follows a switch.
            assert await plane.ask() == "blue"
            switched = await plane.switch("green")
            progress = await plane.held(switched)
            (held,) = progress.nodes
            assert (held.state, progress.refused) == (revision_pb2.NODE_PROGRESS_STATE_HOLDING, 0)
            assert (held.refused_type, held.refused_revision, held.error) == ("Listener", 2, node.error)
            assert await plane.ask() == "green"
            # The refused listener is not sent again and again: in half a second, only HTTP/2's own frames may come.
            pattern = r"update_attempt|update_rejected|upstream_cx_rx_bytes_total"
            before = await envoy.stats(pattern)
            await asyncio.sleep(0.5)
            after = await envoy.stats(pattern)
            received = after.pop(BYTES) - before.pop(BYTES)
            assert received < 300
            assert before == after
            assert after["listener_manager.lds.update_rejected"] == 1
            # A later refusal is reported under its own revision.
            with taken_port() as another:
                gateway.port = another.getsockname()[1]
                changed = await plane.gateways.UpdateGateway(gateway_service_pb2.UpdateGatewayRequest(gateway=gateway))
                progress = await plane.progress(changed.revision, lambda p: p.refused)
                assert progress.nodes[0].refused_revision == changed.revision
                # Deleting the refused gateway ends the refusal. The port stays taken: the listener may be sent once more, when
                # the one of revision 2 is removed, and an Envoy that could open its port would then have it.
                request = gateway_service_pb2.DeleteGatewayRequest(name="gateways/second")
                response = await plane.gateways.DeleteGateway(request)
                await plane.held(response.revision)
                assert (await plane.node("edge-1")).state == node_pb2.NODE_STATE_SYNCED


@VARIANTS
async def test_accepted_listeners_stay_when_a_restarted_control_plane_meets_a_refusal(plane: Plane, variant: str) -> None:
    await plane.apply()
    async with plane.envoy("edge-1", variant) as envoy:
        await plane.held(1)
        with taken_port() as other:
            taken = gateway_pb2.Gateway(name="second", address=HOST, port=other.getsockname()[1])
            await plane.gateways.CreateGateway(gateway_service_pb2.CreateGatewayRequest(gateway=taken))
            await plane.progress(2, lambda p: p.refused)
            await plane.stop()
            await plane.start()
            await plane.progress(2, lambda p: p.refused)
            # On the new stream the Envoy has ACKed clusters and endpoints, and no listeners.
            third = gateway_pb2.Gateway(name="third", address=HOST, port=free_port())
            created = await plane.gateways.CreateGateway(gateway_service_pb2.CreateGatewayRequest(gateway=third))
            await plane.progress(created.revision, lambda p: p.refused or p.holding)
            active = "total_listeners_active"
            async with asyncio.timeout(10):
                while (await envoy.stats(active))[f"listener_manager.{active}"] != 2:  # noqa: ASYNC110  there is no event to wait for
                    await asyncio.sleep(0.05)
            assert await plane.ask() == "blue"
            await plane.switch("green")
            await plane.answers("green")
            removed = await envoy.stats("listener_removed$")
            assert removed == {"listener_manager.listener_removed": 0}


@VARIANTS
async def test_an_envoy_whose_only_listener_was_refused_serves_after_it_reconnects(plane: Plane, variant: str) -> None:
    with taken_port() as other:
        plane.port = other.getsockname()[1]
        async with plane.envoy("edge-1", variant):
            refused = await plane.apply()
            await plane.progress(refused, lambda p: p.refused)
            other.close()
            await plane.nodes.ReconnectNode(node_service_pb2.ReconnectNodeRequest(name="nodes/edge-1"))
            await plane.held(refused)
            assert await plane.ask() == "blue"


@VARIANTS
async def test_a_refused_resource_is_sent_again_when_the_node_reconnects(plane: Plane, variant: str) -> None:
    await plane.apply()
    async with plane.envoy("edge-1", variant):
        await plane.held(1)
        with taken_port() as other:
            plane.port = other.getsockname()[1]
            moved = await plane.apply()
            await plane.progress(moved, lambda p: p.refused)
        await plane.nodes.ReconnectNode(node_service_pb2.ReconnectNodeRequest(name="nodes/edge-1"))
        await plane.held(moved)
        assert await plane.ask() == "blue"
        node = await plane.node("edge-1")
        assert (node.state, len(node.refusals)) == (node_pb2.NODE_STATE_SYNCED, 0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await plane.nodes.ReconnectNode(node_service_pb2.ReconnectNodeRequest(name="nodes/none"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@VARIANTS
async def test_an_envoy_serves_without_the_control_plane_and_reconnects(plane: Plane, variant: str) -> None:
    await plane.apply()
    async with plane.envoy("edge-1", variant) as envoy:
        await plane.held(1)
        await plane.stop()
        assert await plane.ask() == "blue"
        before = await envoy.stats(r"update_success$")
        await plane.start()
        await plane.held(1)
        after = await envoy.stats(r"update_success$")
        if variant == "delta":
            # Its first request named the versions that it holds, so nothing was sent again.
            assert after == before
        await plane.held(await plane.switch("green"))
        assert await plane.ask() == "green"

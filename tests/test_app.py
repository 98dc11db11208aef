"""The whole control plane on real sockets: operators call its API, and xDS clients subscribe."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs

from controlplane.app import App
from controlplane.config import Address, Config
from controlplane.envoy_types import LISTENER, ROUTES
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1 import (
    gateway_pb2,
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
from tests.fakes.xds_client import client
from tests.observers.test_metrics_server import get

VARIANTS = pytest.mark.parametrize("variant", ["delta", "sotw"])


class Operator:
    """Calls of the operator API."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        # The stubs of grpc.aio are typed for blocking calls.
        self.models: Any = model_service_pb2_grpc.ModelServiceStub(channel)
        self.revisions: Any = revision_service_pb2_grpc.RevisionServiceStub(channel)
        self.nodes: Any = node_service_pb2_grpc.NodeServiceStub(channel)
        self.health: Any = health_pb2_grpc.HealthStub(channel)
        self.reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)

    async def apply(self, *models: str) -> int:
        """Apply a gateway, and models with two versions whose traffic goes to blue. Return the revision."""
        gateway = gateway_pb2.Gateway(name="public", port=10000)
        versions = [
            model_pb2.Version(name=v, endpoints=[model_pb2.Endpoint(host="127.0.0.1", port=p)])
            for v, p in (("blue", 9001), ("green", 9002))
        ]
        objects = [
            model_pb2.Model(name=m, gateways=["gateways/public"], versions=versions, split={"blue": 10_000}) for m in models
        ]
        manifest = revision_service_pb2.Manifest(gateways=[gateway], models=objects)
        response = await self.revisions.Apply(revision_service_pb2.ApplyRequest(manifest=manifest, force=True))
        return int(response.revision.number)

    async def switch(self, model: str, version: str) -> int:
        switch = model_service_pb2.TrafficSwitch(model=f"models/{model}", version=version)
        response = await self.models.SwitchTraffic(model_service_pb2.SwitchTrafficRequest(switches=[switch], force=True))
        return int(response.revision.number)

    def watch(self, revision: int, max_nodes: int = 0, require: str = "NODE_REQUIREMENT_KNOWN") -> Any:
        request = revision_service_pb2.WatchRevisionRequest(
            name=f"revisions/{revision}", max_nodes=max_nodes, require=revision_pb2.NodeRequirement.Value(require)
        )
        return self.revisions.WatchRevision(request)

    async def until(
        self, revision: int, condition: Any, seconds: float = 10.0, require: str = "NODE_REQUIREMENT_KNOWN"
    ) -> revision_pb2.RevisionProgress:
        """Return the first progress for which `condition` is true."""
        async with asyncio.timeout(seconds):
            async for response in self.watch(revision, require=require):
                if condition(response.progress):
                    return response.progress  # type: ignore[no-any-return]
        raise AssertionError("the watch ended first")

    async def held(self, revision: int, nodes: int = 1) -> revision_pb2.RevisionProgress:
        """Wait until this many nodes hold a revision, and no connected node is behind. Return the progress."""
        async with asyncio.timeout(10):
            while True:
                progress = await self.until(revision, lambda p: p.complete, require="NODE_REQUIREMENT_CONNECTED")
                if progress.holding >= nodes:
                    return progress

    async def list(self, **request: Any) -> node_service_pb2.ListNodesResponse:
        return await self.nodes.ListNodes(node_service_pb2.ListNodesRequest(**request))  # type: ignore[no-any-return]


def config(path: Path, **more: Any) -> Config:
    return Config(
        **{"data": path, "api": Address("127.0.0.1", 0), "xds": Address("127.0.0.1", 0), "metrics": None, "grace": 2.0, **more}
    )


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[tuple[App, Operator]]:
    app = App(config(path))
    await app.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{app.api_port}") as channel:
            yield app, Operator(channel)
    finally:
        await app.stop()


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[App, Operator]]:
    async with running(tmp_path) as p:
        yield p


async def test_the_api_is_healthy_and_lists_its_services(pair: tuple[App, Operator]) -> None:
    _, operator = pair
    answer = await operator.health.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    call = operator.reflection.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    services = {s.name for s in (await call.read()).list_services_response.service}
    assert {f"turnout.v1.{n}Service" for n in ("Gateway", "Model", "Revision", "Node")} <= services


@VARIANTS
async def test_a_switch_reaches_every_node_and_its_progress_is_complete(pair: tuple[App, Operator], variant: str) -> None:
    app, operator = pair
    assert await operator.apply("iris") == 1
    async with client(app.xds_port, "a", variant) as a, client(app.xds_port, "b", variant):
        await operator.held(1, 2)
        before = len(a.responses)
        revision = await operator.switch("iris", "green")
        progress = await operator.held(revision, 2)
        assert (progress.total, progress.holding, progress.behind, progress.refused, progress.gone) == (2, 2, 0, 0, 0)
        assert progress.revision.name == "revisions/2"
        assert [n.node for n in progress.nodes] == ["nodes/a", "nodes/b"]
        times = [n.hold_time.ToNanoseconds() for n in progress.nodes]
        assert progress.revision.create_time.ToNanoseconds() <= min(times)
        assert max(times) == progress.last_ack_time.ToNanoseconds()
        assert a.responses[before:] == [(ROUTES, ["iris"], [])]
        listed = await operator.list()
        assert [(n.name, n.held_revision, n.state, list(n.gateways)) for n in listed.nodes] == [
            ("nodes/a", 2, node_pb2.NODE_STATE_SYNCED, ["gateways/public"]),
            ("nodes/b", 2, node_pb2.NODE_STATE_SYNCED, ["gateways/public"]),
        ]
        assert (listed.summary.revision, listed.summary.synced, listed.summary.behind) == (2, 2, 0)


async def test_a_switch_of_one_model_is_one_small_response(pair: tuple[App, Operator]) -> None:
    app, operator = pair
    await operator.apply("iris", *(f"m{n}" for n in range(50)))
    async with client(app.xds_port, "a") as a:
        await operator.held(1)
        before = len(a.responses)
        await operator.held(await operator.switch("iris", "green"))
        assert a.responses[before:] == [(ROUTES, ["iris"], [])]
        assert len(a.body(ROUTES, "iris")) < 1_000


@VARIANTS
async def test_a_nack_is_shown_with_the_clients_message(pair: tuple[App, Operator], variant: str) -> None:
    app, operator = pair
    await operator.apply("iris")
    async with client(app.xds_port, "bad", variant) as bad, client(app.xds_port, "good", variant):
        await operator.held(1, 2)
        bad.refuse = lambda type_url, names: "route: no such thing" if type_url == ROUTES else ""
        revision = await operator.switch("iris", "green")
        progress = await operator.until(revision, lambda p: p.refused and p.holding)
        assert (progress.total, progress.holding, progress.refused, progress.complete) == (2, 1, 1, False)
        first = progress.nodes[0]
        assert (first.node, first.state, first.held_revision) == ("nodes/bad", revision_pb2.NODE_PROGRESS_STATE_REFUSED, 1)
        assert (first.refused_type, list(first.refused_resources)) == ("RouteConfiguration", ["iris"])
        assert first.error == "route: no such thing"
        assert not first.HasField("hold_time")
        listed = await operator.list()
        assert (listed.summary.synced, listed.summary.refusing) == (1, 1)
        node = listed.nodes[0]
        assert (node.state, node.held_revision, node.target_revision) == (node_pb2.NODE_STATE_REFUSING, 1, 2)
        assert [(r.type, list(r.resources), r.message, r.revision) for r in node.refusals] == [
            ("RouteConfiguration", ["iris"], "route: no such thing", 2)
        ]
        # A revision that the client accepts clears the NACK.
        bad.refuse = lambda type_url, names: ""
        assert (await operator.held(await operator.switch("iris", "blue"), 2)).refused == 0
        assert (await operator.list()).summary.refusing == 0


async def test_a_node_that_disconnects_during_a_watch_counts_as_gone(pair: tuple[App, Operator]) -> None:
    app, operator = pair
    await operator.apply("iris")
    async with client(app.xds_port, "stays"):
        async with client(app.xds_port, "leaves") as leaves:
            await operator.held(1, 2)
            leaves.reading.clear()
            revision = await operator.switch("iris", "green")
            watch = operator.watch(revision, require="NODE_REQUIREMENT_CONNECTED")
            while (response := await watch.read()).progress.holding < 1:
                pass
            assert (response.progress.total, response.progress.behind) == (2, 1)
        while not (response := await watch.read()).progress.complete:
            pass
        assert (response.progress.total, response.progress.holding, response.progress.gone) == (2, 1, 1)
        assert [(n.node, n.state) for n in response.progress.nodes] == [
            ("nodes/leaves", revision_pb2.NODE_PROGRESS_STATE_GONE),
            ("nodes/stays", revision_pb2.NODE_PROGRESS_STATE_HOLDING),
        ]
        assert await watch.read() is vars(grpc.aio)["EOF"]
        # A watch of all known nodes counts it, also after it has left.
        progress = await operator.until(revision, lambda p: p.gone)
        assert (progress.total, progress.holding, progress.gone, progress.complete) == (2, 1, 1, False)
        await operator.nodes.ForgetNodes(node_service_pb2.ForgetNodesRequest(names=["nodes/leaves"]))
        assert (await operator.until(revision, lambda p: p.complete)).total == 1


async def test_nodes_are_remembered_when_the_control_plane_restarts(tmp_path: Path) -> None:
    async with running(tmp_path) as (app, operator):
        await operator.apply("iris")
        async with client(app.xds_port, "a"), client(app.xds_port, "b"):
            await operator.held(1, 2)
    async with running(tmp_path) as (app, operator), client(app.xds_port, "a"):
        revision = await operator.switch("iris", "green")
        progress = await operator.until(revision, lambda p: p.holding)
        assert (progress.total, progress.holding, progress.gone, progress.complete) == (2, 1, 1, False)
        (listed,) = [n for n in (await operator.list()).nodes if n.id == "b"]
        assert (listed.state, listed.known, listed.cluster) == (node_pb2.NODE_STATE_GONE, True, "edge")
        async with client(app.xds_port, "b"):
            assert (await operator.until(revision, lambda p: p.complete)).holding == 2


async def test_watching_a_missing_revision_is_not_found(pair: tuple[App, Operator]) -> None:
    _, operator = pair
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await operator.watch(7).read()
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_nodes_are_listed_in_pages(pair: tuple[App, Operator]) -> None:
    app, operator = pair
    await operator.apply("iris")
    async with client(app.xds_port, "a/1"), client(app.xds_port, "b"), client(app.xds_port, "c"):
        await operator.held(1, 3)
        first = await operator.list(page_size=2)
        second = await operator.list(page_size=2, page_token=first.next_page_token)
        assert [n.name for n in (*first.nodes, *second.nodes)] == ["nodes/a%2F1", "nodes/b", "nodes/c"]
        assert (first.summary.synced, second.next_page_token) == (3, "")
        got = await operator.nodes.GetNode(node_service_pb2.GetNodeRequest(name="nodes/a%2F1"))
        assert got.node.id == "a/1"
    for request, code in (
        (operator.nodes.GetNode(node_service_pb2.GetNodeRequest(name="nodes/z")), grpc.StatusCode.NOT_FOUND),
        (operator.nodes.GetNode(node_service_pb2.GetNodeRequest(name="z")), grpc.StatusCode.INVALID_ARGUMENT),
        (operator.list(page_token="?"), grpc.StatusCode.INVALID_ARGUMENT),
        (operator.list(page_size=-1), grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await request
        assert caught.value.code() is code


async def test_a_watch_of_the_nodes_answers_at_a_bounded_rate(pair: tuple[App, Operator]) -> None:
    app, operator = pair
    await operator.apply("iris")
    watch = operator.nodes.WatchNodes(node_service_pb2.WatchNodesRequest())
    assert (await watch.read()).summary.synced == 0
    began = time.monotonic()
    async with client(app.xds_port, "a"):
        for n in range(30):
            await operator.held(await operator.switch("iris", "blue" if n % 2 else "green"))
        answers = 0
        while True:
            answer = await watch.read()
            answers += 1
            if answer.summary.revision == 31 and answer.summary.synced == 1:
                break
        assert answers <= (time.monotonic() - began) * 10 + 2
        assert [n.name for n in answer.nodes] == ["nodes/a"]
    watch.cancel()


async def test_after_a_restart_a_client_that_holds_the_state_is_sent_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as (app, operator):
        await operator.apply("iris", "wine")
        await operator.switch("iris", "green")
        async with client(app.xds_port, "a") as before:
            await operator.held(2)
    async with running(tmp_path) as (app, operator), client(app.xds_port, "a", held=before.held) as after:
        await operator.held(2)
        assert after.responses == []


async def test_a_stop_ends_streams_and_watches_at_once_and_frees_the_store(tmp_path: Path) -> None:
    app = App(config(tmp_path, grace=20.0))
    await app.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{app.api_port}") as channel:
        operator = Operator(channel)
        await operator.apply("iris")
        async with client(app.xds_port, "a") as a:
            await operator.held(1)
            watch = operator.nodes.WatchNodes(node_service_pb2.WatchNodesRequest())
            await watch.read()
            health = operator.health.Watch(health_pb2.HealthCheckRequest())
            assert (await health.read()).status == health_pb2.HealthCheckResponse.SERVING
            began = time.monotonic()
            stopping = asyncio.create_task(app.stop())
            assert (await health.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            health.cancel()
            await stopping
            assert time.monotonic() - began < 10
            await a.until(lambda: a.ended is not None)
            assert a.ended is grpc.StatusCode.OK
            assert a.names(LISTENER) == {"0.0.0.0:10000"}
            assert await watch.code() is grpc.StatusCode.UNAVAILABLE
    async with running(tmp_path) as (_, operator):
        assert (await operator.list()).summary.revision == 1


@pytest.mark.parametrize("which", ["api", "xds", "metrics"])
async def test_after_the_error_of_a_taken_port_nothing_stays_open(tmp_path: Path, which: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = Address(*other.getsockname())
        app = App(config(tmp_path, **{which: taken}))
        with pytest.raises(Error, match=f"{taken} is taken") as caught:
            await app.start()
        assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "PORT_TAKEN")
        assert f"give the setting `{which}` another address" in caught.value.message
    async with running(tmp_path):
        pass


async def test_two_control_planes_do_not_share_a_port(tmp_path: Path) -> None:
    async with running(tmp_path / "one") as (app, _):
        with pytest.raises(Error, match="is taken"):
            await App(config(tmp_path / "two", xds=Address("127.0.0.1", app.xds_port))).start()


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid"])
async def test_an_address_of_another_machine_is_an_error(tmp_path: Path, host: str) -> None:
    with pytest.raises(Error) as caught:
        await App(config(tmp_path, api=Address(host, 0), insecure=True)).start()
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert host in caught.value.message


@pytest.mark.parametrize(("host", "probed"), [("127.0.0.1", [1]), ("0.0.0.0", [0])])
async def test_loopback_is_probed_only_if_the_server_listens_on_loopback_alone(
    tmp_path: Path, host: str, probed: list[int]
) -> None:
    app = App(Config(tmp_path, Address("127.0.0.1", 0), Address(host, 0), metrics=None, grace=0.1, insecure=True))
    with capture_logs() as lines:
        await app.start()
    warned = [(line["port"], line["address"]) for line in lines if line["event"].startswith("reachable from other machines")]
    assert warned == ([] if host == "127.0.0.1" else [("xds", "0.0.0.0:0")])
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{app.api_port}") as channel:
            operator = Operator(channel)
            await operator.apply("iris")
            switch = model_service_pb2.TrafficSwitch(model="models/iris", version="green")
            request = model_service_pb2.SwitchTrafficRequest(switches=[switch], force=True)
            response = await operator.models.SwitchTraffic(request)
            assert [p.probed for p in response.impact.probes] == probed
    finally:
        await app.stop(0)


async def test_metrics_count_the_nodes_that_the_status_counts(tmp_path: Path) -> None:
    app = App(config(tmp_path, metrics=Address("127.0.0.1", 0)))
    await app.start()
    try:
        async with (
            grpc.aio.insecure_channel(f"127.0.0.1:{app.api_port}") as channel,
            client(app.xds_port, "a"),
        ):
            await Operator(channel).held(await Operator(channel).apply())
            summary = (await Operator(channel).list()).summary
            status, text = await get(app.metrics_port, "/metrics")
        counts = {line for line in text.splitlines() if line.startswith("turnout_nodes{")}
        assert (status, summary.synced) == (200, 1)
        assert counts == {
            f'turnout_nodes{{state="synced"}} {summary.synced}.0',
            f'turnout_nodes{{state="behind"}} {summary.behind}.0',
            f'turnout_nodes{{state="refusing"}} {summary.refusing}.0',
            f'turnout_nodes{{state="gone"}} {summary.gone}.0',
            f'turnout_nodes{{state="released"}} {summary.released}.0',
        }
    finally:
        await app.stop()
    with pytest.raises(OSError):
        await get(app.metrics_port, "/metrics")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_the_control_plane_gracefully(tmp_path: Path, number: signal.Signals) -> None:
    app = App(config(tmp_path))
    run = asyncio.create_task(app.run())
    async with asyncio.timeout(10):
        await app.started.wait()
        async with client(app.xds_port, "a") as a, grpc.aio.insecure_channel(f"127.0.0.1:{app.api_port}") as channel:
            await Operator(channel).apply()
            # Wait for the client's last answer, because gRPC ends a stream during a write with INTERNAL, whatever its status.
            await a.until(lambda: a.done == 4)
            os.kill(os.getpid(), number)
            await run
            await a.until(lambda: a.ended is not None)
        assert a.ended is grpc.StatusCode.OK


async def test_the_operators_port_decompresses_nothing(tmp_path: Path) -> None:
    """A few KB can be hundreds of MB."""
    async with running(tmp_path) as (_, operator):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await operator.health.Check(health_pb2.HealthCheckRequest(service="x" * 100), compression=grpc.Compression.Gzip)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

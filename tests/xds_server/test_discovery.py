"""The xDS services on real sockets, with a real store, the real compiler, and clients that follow the protocol."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest
from envoy.config.route.v3 import route_pb2

from controlplane.compiler import Compiler
from controlplane.domain import Gateway, NodeSelector
from controlplane.envoy_types import ENDPOINTS, LISTENER, ROUTES
from controlplane.fleet import NodeState, ProgressState
from controlplane.published import CompiledRevision
from controlplane.store import Store
from controlplane.xds_server import pump
from tests.fakes.xds_client import EOF, XdsClient, client
from tests.xds_server.rig import BLUE, GATEWAY, GREEN, VARIANTS, Rig, model, running
from tests.xds_server.rig import rig as _rig
from tests.xds_server.rig import store as _store

rig, store = _rig, _store


def clusters_of(c: XdsClient) -> set[str]:
    """Return the clusters that the client's routes to iris name."""
    routes = route_pb2.RouteConfiguration.FromString(c.body(ROUTES, "iris"))
    return {
        name
        for host in routes.virtual_hosts
        for r in host.routes
        for name in [r.route.cluster, *(w.name for w in r.route.weighted_clusters.clusters)]
        if name
    }


@VARIANTS
async def test_a_client_gets_the_newest_revision_and_the_fleet_records_that_it_holds_it(rig: Rig, variant: str) -> None:
    revision = await rig.commit(GATEWAY, BLUE)
    async with client(rig.port, "edge-1", variant) as c:
        await rig.held(revision)
        assert c.names(LISTENER) == {"0.0.0.0:10000"}
        assert c.names(ENDPOINTS) == {"iris/blue", "iris/green"}
        assert clusters_of(c) == {"iris/blue"}
        node = rig.fleet.nodes["edge-1"]
        assert (node.cluster, node.user_agent, node.variants, node.gateways) == ("edge", "fake 1.0", (variant,), ("public",))
        assert node.peer.startswith("127.0.0.1:")
        assert rig.fleet.counts[NodeState.SYNCED] == 1
    await rig.until(lambda fleet: fleet.counts[NodeState.GONE] == 1)
    assert rig.fleet.streams == 0


@VARIANTS
async def test_a_switch_is_pushed_and_changes_routes_only(rig: Rig, variant: str) -> None:
    await rig.held(await rig.commit(GATEWAY, BLUE), 0)
    async with client(rig.port, "edge-1", variant) as c:
        await rig.held(1)
        before = len(c.responses)
        await rig.held(await rig.commit(GREEN))
        assert c.responses[before:] == [(ROUTES, ["iris"], [])]
        assert clusters_of(c) == {"iris/green"}


@VARIANTS
async def test_a_nack_is_recorded_and_not_retried_and_the_next_good_revision_clears_it(rig: Rig, variant: str) -> None:
    await rig.commit(GATEWAY, BLUE)
    async with client(rig.port, "edge-1", variant) as c:
        await rig.held(1)
        c.refuse = lambda type_url, names: "no such thing" if type_url == ROUTES else ""
        before = len(c.responses)
        await rig.commit(GREEN)
        await rig.until(lambda fleet: fleet.counts[NodeState.REFUSING] == 1)
        (refusal,) = rig.fleet.nodes["edge-1"].refusals
        assert (refusal.type_url, refusal.resources, refusal.message, refusal.revision) == (
            ROUTES,
            ("iris",),
            "no such thing",
            2,
        )
        assert rig.fleet.nodes["edge-1"].held_revision == 1
        c.refuse = lambda type_url, names: ""
        # Refused content is not sent again, so the next response belongs to the next commit.
        await rig.held(await rig.commit(BLUE))
        assert len(c.responses) - before <= 2
        assert rig.fleet.counts[NodeState.SYNCED] == 1


@VARIANTS
async def test_newer_revisions_are_held_except_for_the_refused_resources(rig: Rig, variant: str) -> None:
    await rig.commit(GATEWAY, BLUE)
    async with client(rig.port, "edge-1", variant) as c:
        await rig.held(1)
        node = rig.fleet.nodes["edge-1"]
        c.refuse = lambda type_url, names: "port in use" if type_url == LISTENER else ""
        await rig.commit(Gateway("second", 10001))
        await rig.until(lambda fleet: node.progress(2) is ProgressState.REFUSED)
        # The client keeps the old listener, and accepts the new routes.
        await rig.commit(GREEN)
        await rig.until(lambda fleet: node.progress(3) is ProgressState.HOLDING)
        assert clusters_of(c) == {"iris/green"}
        assert (node.held_revision, node.progress(2)) == (3, ProgressState.REFUSED)
        assert [(r.revision, r.blocked_up_to) for r in node.refusals] == [(2, 2)]
        c.refuse = lambda type_url, names: ""
        await rig.held(await rig.commit(Gateway("second", 10002)))
        assert c.nacks == 1


async def test_a_delta_client_that_holds_everything_gets_nothing_from_a_new_control_plane(store: Store) -> None:
    async with running(store) as first:
        await first.commit(GATEWAY, BLUE)
        async with client(first.port, "edge-1") as c:
            await first.held(1)
            assert c.responses
    async with running(store) as second, client(second.port, "edge-1", held=c.held) as again:
        await second.held(1)
        assert again.responses == []
        await second.held(await second.commit(GREEN))
        assert again.responses == [(ROUTES, ["iris"], [])]


async def test_each_audience_is_served_its_own_resources(rig: Rig) -> None:
    inner = Gateway("inner", 10001, nodes=NodeSelector(metadata={"zone": "in"}))
    outer = Gateway("outer", 10000, nodes=NodeSelector(metadata={"zone": "out"}))
    await rig.commit(inner, outer, model({"blue": 10_000}, "a", ("inner",)), model({"blue": 10_000}, "b", ("outer",)))
    async with (
        client(rig.port, "n-in", metadata={"zone": "in"}) as a,
        client(rig.port, "n-out", "sotw", metadata={"zone": "out"}) as b,
        client(rig.port, "n-none") as none,
    ):
        await rig.held(1, 3)
        assert (a.names(LISTENER), a.names(ROUTES)) == ({"0.0.0.0:10001"}, {"a", "gateways/inner"})
        assert (b.names(LISTENER), b.names(ROUTES)) == ({"0.0.0.0:10000"}, {"b", "gateways/outer"})
        assert (none.names(LISTENER), none.names(ROUTES), rig.fleet.nodes["n-none"].gateways) == (set(), set(), ())
        # A selector that changes moves a node from one audience to another, while it is connected.
        await rig.held(await rig.commit(Gateway("inner", 10001)), 3)
        assert none.names(LISTENER) == {"0.0.0.0:10001"}
        assert rig.fleet.nodes["n-none"].gateways == ("inner",)
        assert rig.fleet.nodes["n-out"].gateways == ("inner", "outer")


async def test_two_streams_of_one_node_are_one_node(rig: Rig) -> None:
    await rig.commit(GATEWAY, BLUE)
    async with client(rig.port, "edge-1"), client(rig.port, "edge-1", "sotw"):
        await rig.until(lambda fleet: fleet.streams == 2 and fleet.holding(1) == 1)
        assert rig.fleet.nodes["edge-1"].variants == ("delta", "sotw")
        assert rig.fleet.connected == 1


async def status_of(port: int, *messages: bytes, method: str = "DeltaAggregatedResources") -> tuple[grpc.StatusCode, str]:
    """Send messages on a stream, and return its status."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        open_stream: Any = channel.stream_stream(
            f"/envoy.service.discovery.v3.AggregatedDiscoveryService/{method}",
            request_serializer=bytes,
            response_deserializer=bytes,
        )
        call = open_stream()
        try:
            for message in messages:
                await call.write(message)
            while await call.read() is not EOF:
                pass
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass
        return await call.code(), await call.details()


@pytest.mark.parametrize("method", ["DeltaAggregatedResources", "StreamAggregatedResources"])
async def test_a_bad_request_ends_its_stream_with_a_status_that_says_why(rig: Rig, method: str) -> None:
    garbage = await status_of(rig.port, b"\xff\xff\xff", method=method)
    assert garbage == (grpc.StatusCode.INVALID_ARGUMENT, "the message is not a discovery request")
    # Every request on ADS must have a type. This one has only a node.
    node = b"\x0a\x03\x0a\x01x" if method.startswith("Delta") else b"\x12\x03\x0a\x01x"
    code, details = await status_of(rig.port, node, method=method)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "type_url" in details
    code, _ = await status_of(rig.port, method="NoSuchMethod")
    assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_an_internal_error_has_the_status_internal_and_no_details(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> tuple[str, ...]:
        raise RuntimeError("a secret")

    await rig.commit(GATEWAY, BLUE)
    async with client(rig.port, "good") as good:
        await rig.held(1)
        monkeypatch.setattr(CompiledRevision, "audience", fail)
        async with client(rig.port, "bad") as bad:
            await bad.until(lambda: bad.ended is not None)
            assert bad.ended is grpc.StatusCode.INTERNAL
            assert "secret" not in bad.details
        monkeypatch.undo()
        await rig.held(await rig.commit(GREEN))
        assert good.ended is None


async def test_streams_are_refused_before_the_state_is_loaded(store: Store) -> None:
    rig = Rig(store)
    await rig.serve()  # nothing is published
    code, details = await status_of(rig.port)
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "not loaded" in details
    await rig.stop()
    assert rig.fleet.streams == 0


@VARIANTS
async def test_when_the_server_stops_streams_end_at_once_with_ok(rig: Rig, variant: str) -> None:
    await rig.commit(GATEWAY, BLUE)
    async with client(rig.port, "edge-1", variant) as c:
        await rig.held(1)
        started = time.monotonic()
        await rig.stop()
        assert time.monotonic() - started < 10
        await c.until(lambda: c.ended is not None)
        assert c.ended is grpc.StatusCode.OK
        assert c.names(LISTENER) == {"0.0.0.0:10000"}
    assert rig.fleet.streams == 0


async def test_a_revision_that_does_not_compile_is_not_served_and_the_next_one_is(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("compiler")

    await rig.commit(GATEWAY, BLUE)
    async with client(rig.port, "edge-1") as c:
        await rig.held(1)
        before = len(c.responses)
        with monkeypatch.context() as patched:
            patched.setattr(Compiler, "compile", fail)
            await rig.commit(GREEN)
            published = rig.publisher.published.value
            await asyncio.sleep(0.05)  # nothing should happen, so there is no condition to wait for
            assert rig.publisher.published.value is published
        await rig.held(await rig.commit(model({"blue": 5_000, "green": 5_000})))
        assert c.responses[before:] == [(ROUTES, ["iris"], [])]
        assert c.ended is None


async def test_a_burst_of_changes_causes_few_pushes_and_ends_at_the_newest(rig: Rig) -> None:
    await rig.commit(GATEWAY, BLUE)
    async with client(rig.port, "edge-1") as c:
        await rig.held(1)
        serial, before = rig.publisher.published.serial, len(c.responses)
        for n in range(60):
            await rig.commit(GREEN if n % 2 == 0 else BLUE)
        await rig.held(61)
        assert clusters_of(c) == {"iris/blue"}
        assert len(c.responses) - before <= rig.publisher.published.serial - serial < 60


async def test_a_slow_push_is_followed_by_idle_time_for_changes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without idle time, each of many changes would be pushed on its own, since few are made during a push."""
    await rig.commit(GATEWAY, BLUE)
    async with client(rig.port, "edge-1") as c:
        await rig.held(1)
        before, push = len(c.responses), pump.Pump.push

        def push_slowly(stream: pump.Pump, now: float) -> float:
            time.sleep(0.02)  # as for a large fleet
            return push(stream, now)

        monkeypatch.setattr(pump.Pump, "push", push_slowly)
        began = time.monotonic()
        for n in range(60):
            await rig.commit(GREEN if n % 2 == 0 else BLUE)
        await rig.held(61)
        seconds = time.monotonic() - began
        # Each push is followed by 40 ms of idle time, except the first two.
        assert len(c.responses) - before <= 2 + seconds / 0.04

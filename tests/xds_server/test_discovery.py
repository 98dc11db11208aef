"""The xDS pumps on real sockets, with a real store and the real compiler, and clients that behave, or don't."""

import asyncio
import gc
import time
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, ClassVar

import grpc
import pytest
from envoy.config.route.v3 import route_pb2
from envoy.service.discovery.v3 import discovery_pb2
from structlog.testing import capture_logs

from controlplane.compiler import Compiler
from controlplane.domain import Gateway, NodeSelector
from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SCOPED_ROUTES
from controlplane.errors import Code
from controlplane.fleet import Fleet, NodeState, ProgressState
from controlplane.http2.grpc_status import Status
from controlplane.http2.handler import GuardedHandler
from controlplane.published import CompiledRevision
from controlplane.store import Store
from controlplane.xds_server import grpc_transport, pump
from controlplane.xds_server.send_queue import SendQueue
from tests.fakes.xds_client import EOF, XdsClient, client
from tests.xds_server.rig import BLUE, GATEWAY, GREEN, VARIANTS, Rig, model, running
from tests.xds_server.rig import rig as _rig
from tests.xds_server.rig import store as _store

rig, store = _rig, _store


def clusters_of(c: XdsClient) -> set[str]:
    """Clusters that the client's routes to iris name."""
    routes = route_pb2.RouteConfiguration.FromString(c.body(ROUTES, "iris"))
    return {
        name
        for host in routes.virtual_hosts
        for r in host.routes
        for name in [r.route.cluster, *(w.name for w in r.route.weighted_clusters.clusters)]
        if name
    }


@VARIANTS
async def test_a_client_gets_the_world_and_is_known_to_hold_it(rig: Rig, variant: str) -> None:
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
async def test_a_switch_is_pushed_and_touches_routes_only(rig: Rig, variant: str) -> None:
    await rig.held(await rig.commit(GATEWAY, BLUE), 0)
    async with client(rig.port, "edge-1", variant) as c:
        await rig.held(1)
        before = len(c.responses)
        await rig.held(await rig.commit(GREEN))
        assert c.responses[before:] == [(ROUTES, ["iris"], [])]
        assert clusters_of(c) == {"iris/green"}


@VARIANTS
async def test_a_refusal_is_known_and_not_repeated_and_the_next_good_one_heals(rig: Rig, variant: str) -> None:
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
        # The same content is not tried again, so what comes next is the answer to the next commit.
        await rig.held(await rig.commit(BLUE))
        assert len(c.responses) - before <= 2
        assert rig.fleet.counts[NodeState.SYNCED] == 1


@VARIANTS
async def test_newer_revisions_are_held_but_for_what_was_refused(rig: Rig, variant: str) -> None:
    await rig.commit(GATEWAY, BLUE)
    async with client(rig.port, "edge-1", variant) as c:
        await rig.held(1)
        node = rig.fleet.nodes["edge-1"]
        c.refuse = lambda type_url, names: "port in use" if type_url == LISTENER else ""
        await rig.commit(Gateway("second", 10001))
        await rig.until(lambda fleet: node.progress(2) is ProgressState.REFUSED)
        # The listener is as it was, and the routes are taken.
        await rig.commit(GREEN)
        await rig.until(lambda fleet: node.progress(3) is ProgressState.HOLDING)
        assert clusters_of(c) == {"iris/green"}
        assert (node.held_revision, node.progress(2)) == (1, ProgressState.REFUSED)
        assert [(r.revision, r.stands_at) for r in node.refusals] == [(2, 2)]
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


async def test_each_audience_is_served_its_own_world(rig: Rig) -> None:
    inner = Gateway("inner", 10001, nodes=NodeSelector(metadata={"zone": "in"}))
    outer = Gateway("outer", 10000, nodes=NodeSelector(metadata={"zone": "out"}))
    await rig.commit(inner, outer, model({"blue": 10_000}, "a", ("inner",)), model({"blue": 10_000}, "b", ("outer",)))
    async with (
        client(rig.port, "n-in", metadata={"zone": "in"}) as a,
        client(rig.port, "n-out", "sotw", metadata={"zone": "out"}) as b,
        client(rig.port, "n-none") as none,
    ):
        await rig.held(1, 3)
        assert (a.names(LISTENER), a.names(ROUTES)) == ({"0.0.0.0:10001"}, {"a"})
        assert (b.names(LISTENER), b.names(ROUTES)) == ({"0.0.0.0:10000"}, {"b"})
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


def _good_holds(revision: int, fleet: Fleet) -> bool:
    return fleet.nodes["good"].held_revision == revision


async def test_a_client_that_does_not_read_delays_nobody(rig: Rig) -> None:
    await rig.commit(GATEWAY, *(model({"blue": 10_000}, f"m{n}") for n in range(300)))
    async with AsyncExitStack() as stack:
        good = await stack.enter_async_context(client(rig.port, "good"))
        slow = await stack.enter_async_context(client(rig.port, "slow"))
        await rig.held(1, 2)
        slow.reading.clear()
        for n in range(20):
            split = {"green": 10_000} if n % 2 == 0 else {"blue": 10_000}
            revision = await rig.commit(*(model(split, f"m{i}") for i in range(300)))
            await rig.until(partial(_good_holds, revision))
        behind = len(slow.responses)
        slow.reading.set()
        await rig.held(21, 2)
        # What it missed it never sees: one response may have been on its way, and one brings it up to date.
        assert len(slow.responses) - behind <= 3
        assert slow.held == good.held


async def test_a_client_that_never_reads_costs_its_own_stream_only(rig: Rig) -> None:
    # More than the flow control of one stream lets through unread, so that the server's writes to it stand still.
    await rig.commit(GATEWAY, *(model({"blue": 10_000}, f"m{n}") for n in range(1_000)))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.port}") as channel, client(rig.port, "good") as good:
        open_stream: Any = channel.stream_stream(
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
            request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=bytes,
        )
        call = open_stream()
        for type_url in (CLUSTER, LISTENER, SCOPED_ROUTES):
            request = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url)
            request.node.id = "deaf"
            await call.write(request)
        await rig.until(lambda fleet: fleet.holding(1) == 1 and "deaf" in fleet.nodes)
        before = len(good.responses)
        await rig.held(await rig.commit(model({"green": 10_000}, "m7")))
        assert good.responses[before:] == [(ROUTES, ["m7"], [])]
        assert rig.fleet.nodes["deaf"].held_revision == 0
        began = time.monotonic()
        await rig.stop()
        assert time.monotonic() - began < 10
        call.cancel()


async def test_a_client_that_asks_and_never_reads_is_not_listened_to_for_long(rig: Rig) -> None:
    await rig.commit(GATEWAY, *(model({"blue": 10_000}, f"m{n}") for n in range(600)))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.port}") as channel:
        open_stream: Any = channel.stream_stream(
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
            request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=bytes,
        )
        call = open_stream()
        first = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER)
        first.node.id = "deaf"
        await call.write(first)
        names = [f"m{n}/blue" for n in range(600)]
        again = discovery_pb2.DeltaDiscoveryRequest(type_url=ENDPOINTS, resource_names_subscribe=names)

        async def ask() -> None:
            for _ in range(150):
                await call.write(again)

        asking = asyncio.create_task(ask())
        await rig.until(lambda fleet: "deaf" in fleet.nodes)
        (stream,) = rig.discovery._pumps.values()
        async with asyncio.timeout(30):
            while not stream._queue.full:  # noqa: ASYNC110  nobody is told of it
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # nothing is to happen: there is no condition to wait on
        assert len(stream._queue) == SendQueue.MAX_MESSAGES
        # What it asked is answered once it reads: the world, and 150 times what it asked for.
        async with asyncio.timeout(30):
            for _ in range(151):
                assert await call.read() is not EOF
            await asking
        call.cancel()


@pytest.mark.parametrize("end", ["half-close", "server", "error"])
async def test_a_stream_that_ends_in_the_middle_of_its_first_response_tells_the_client(rig: Rig, end: str) -> None:
    # More than the flow control of one stream lets through unread, so that the end finds the first write standing still.
    await rig.commit(GATEWAY, *(model({"blue": 10_000}, f"m{n}") for n in range(1_000)))
    small = [("grpc.http2.lookahead_bytes", 1), ("grpc.http2.bdp_probe", 0)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.port}", small) as channel:
        open_stream: Any = channel.stream_stream(
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
            request_serializer=bytes,
            response_deserializer=bytes,
        )
        call = open_stream()
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER)
        request.node.id = "edge-1"
        await call.write(request.SerializeToString())
        await rig.until(lambda fleet: "edge-1" in fleet.nodes)
        if end == "half-close":
            await call.done_writing()
        elif end == "server":
            rig.discovery.reconnect("edge-1")
        else:
            await call.write(b"\xff")
        # Who says no more is still sent what waits for it; to another the end is the end.
        if end != "half-close":
            await rig.until(lambda fleet: fleet.streams == 0)
        got = []
        async with asyncio.timeout(30):
            try:
                while (message := await call.read()) is not EOF:
                    got.append(discovery_pb2.DeltaDiscoveryResponse.FromString(message))
            except grpc.aio.AioRpcError:
                pass
            code = await call.code()
        assert code is (grpc.StatusCode.INVALID_ARGUMENT if end == "error" else grpc.StatusCode.OK)
        if end == "half-close":
            assert len([r for m in got for r in m.resources]) == 2_000


async def test_many_quick_streams_leak_nothing(rig: Rig) -> None:
    await rig.commit(GATEWAY, *(model({"blue": 10_000}, f"m{n}") for n in range(100)))
    with capture_logs() as lines:
        await quick_streams(rig)
    gc.collect()
    assert rig.fleet.counts == {**dict.fromkeys(NodeState, 0), NodeState.GONE: len(rig.fleet.nodes)}
    assert len(rig.fleet.nodes) <= 10
    assert not rig.fleet._streams
    assert not rig.discovery._pumps
    async with asyncio.timeout(30):
        while len(asyncio.all_tasks()) >= 20:  # noqa: ASYNC110  the clients' own need a moment
            await asyncio.sleep(0.01)
    # That clients leave in the middle of what is said to them is nothing to be logged.
    assert {line["log_level"] for line in lines} <= {"info"}


async def quick_streams(rig: Rig) -> None:
    """A thousand streams that end as soon as they have begun, a hundred at a time."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.port}") as channel:
        open_stream: Any = channel.stream_stream(
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
            request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=bytes,
        )

        async def one(n: int) -> None:
            call = open_stream()
            request = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER)
            request.node.id = f"n{n % 10}"
            await call.write(request)
            if n % 2:
                await call.read()
            call.cancel()

        for start in range(0, 1_000, 100):
            await asyncio.gather(*(one(n) for n in range(start, start + 100)))
        await rig.until(lambda fleet: fleet.streams == 0)


async def ended(port: int, *messages: bytes, method: str = "DeltaAggregatedResources") -> tuple[grpc.StatusCode, str]:
    """How a stream ends on which these were sent."""
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
async def test_a_bad_request_gets_a_fitting_status(rig: Rig, method: str) -> None:
    garbage = await ended(rig.port, b"\xff\xff\xff", method=method)
    assert garbage == (grpc.StatusCode.INVALID_ARGUMENT, "the message is not a discovery request")
    # Every request of an aggregated stream says which type it is about. Here: a node alone.
    node = b"\x0a\x03\x0a\x01x" if method.startswith("Delta") else b"\x12\x03\x0a\x01x"
    code, details = await ended(rig.port, node, method=method)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "type_url" in details
    code, _ = await ended(rig.port, method="NoSuchMethod")
    assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_trouble_inside_is_internal_and_says_nothing_of_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> tuple[str, ...]:
        raise RuntimeError("a secret")

    await rig.commit(GATEWAY, BLUE)
    async with client(rig.port, "good") as good:
        await rig.held(1)
        monkeypatch.setattr(CompiledRevision, "audience", broken)
        async with client(rig.port, "bad") as bad:
            await bad.until(lambda: bad.ended is not None)
            assert bad.ended is grpc.StatusCode.INTERNAL
            assert "secret" not in bad.details
        monkeypatch.undo()
        await rig.held(await rig.commit(GREEN))
        assert good.ended is None


async def test_no_state_no_streams(store: Store) -> None:
    rig = Rig(store)
    await rig.serve()  # and publish nothing
    code, details = await ended(rig.port)
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "not loaded" in details
    await rig.stop()
    assert rig.fleet.streams == 0


@VARIANTS
async def test_when_the_server_stops_streams_end_well_and_at_once(rig: Rig, variant: str) -> None:
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


async def test_what_does_not_compile_is_not_served_and_the_next_revision_is(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("compiler")

    await rig.commit(GATEWAY, BLUE)
    async with client(rig.port, "edge-1") as c:
        await rig.held(1)
        before = len(c.responses)
        with monkeypatch.context() as patched:
            patched.setattr(Compiler, "compile", broken)
            await rig.commit(GREEN)
            world = rig.publisher.published.value
            await asyncio.sleep(0.05)  # nothing is to happen: there is no condition to wait on
            assert rig.publisher.published.value is world
        await rig.held(await rig.commit(model({"blue": 5_000, "green": 5_000})))
        assert c.responses[before:] == [(ROUTES, ["iris"], [])]
        assert c.ended is None


async def test_a_burst_of_changes_costs_few_worlds_and_ends_at_the_newest(rig: Rig) -> None:
    await rig.commit(GATEWAY, BLUE)
    async with client(rig.port, "edge-1") as c:
        await rig.held(1)
        serial, before = rig.publisher.published.serial, len(c.responses)
        for n in range(60):
            await rig.commit(GREEN if n % 2 == 0 else BLUE)
        await rig.held(61)
        assert clusters_of(c) == {"iris/blue"}
        assert len(c.responses) - before <= rig.publisher.published.serial - serial < 60


async def test_what_takes_long_to_offer_is_followed_by_time_for_changes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else changes that are called together are each sent to all, since hardly one is made while one is sent."""
    await rig.commit(GATEWAY, BLUE)
    async with client(rig.port, "edge-1") as c:
        await rig.held(1)
        before, push = len(c.responses), pump.Pump.push

        def slowly(stream: pump.Pump, now: float) -> float:
            time.sleep(0.02)  # as a fleet takes
            return push(stream, now)

        monkeypatch.setattr(pump.Pump, "push", slowly)
        began = time.monotonic()
        for n in range(60):
            await rig.commit(GREEN if n % 2 == 0 else BLUE)
        await rig.held(61)
        took = time.monotonic() - began
        # Each is followed by 40 ms, and the first two are not.
        assert len(c.responses) - before <= 2 + took / 0.04


async def test_a_client_that_goes_while_grpc_has_a_message_for_it_is_no_trouble_inside() -> None:
    class Gone:
        async def send_initial_metadata(self, _: object) -> None:
            raise grpc.aio.InternalError('Failed "execute_batch": (SendInitialMetadataOperation,)')

        async def read(self) -> object:
            return await asyncio.Future()

    class Serves(GuardedHandler):
        statuses: ClassVar[list[Status | None]] = []

        def end(self, status: Status | None = None) -> None:
            self.statuses.append(status)
            call.end(status)

    call: Any = grpc_transport._Call(Gone())
    with capture_logs() as lines:
        await call.run(Serves())
    assert set(Serves.statuses) == {None}
    assert not lines


def test_a_peer_is_told_as_people_write_it() -> None:
    assert grpc_transport.address("ipv4:127.0.0.1:5000") == "127.0.0.1:5000"
    assert grpc_transport.address("ipv6:%5B::1%5D:5000") == "[::1]:5000"


@pytest.mark.parametrize("code", list(Code))
def test_every_kind_of_error_has_a_status(code: Code) -> None:
    assert grpc.StatusCode[code.name].value[1] == code.value

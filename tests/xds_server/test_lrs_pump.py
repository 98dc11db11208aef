"""Streams of load reports on a real socket: who is served, how often reports come, and how a stream ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from envoy.service.load_stats.v3 import lrs_pb2

from controlplane.aio.latest import Latest
from controlplane.compiler import Compiler
from controlplane.config import XDS_TRANSPORTS
from controlplane.domain import Endpoint, Gateway, Model, Version
from controlplane.domain.revision import Head
from controlplane.domain.state import State
from controlplane.fleet import Fleet
from controlplane.observers.folds import FleetFold, TrafficFold
from controlplane.published import CompiledRevision
from controlplane.reconciler.report import EventDispatcher
from controlplane.traffic import Traffic
from controlplane.xds.lrs import SEND_ALL
from controlplane.xds_server.discovery import Discovery
from controlplane.xds_server.limits import StreamLimits
from controlplane.xds_server.lrs_pump import LOAD_REPORTS
from controlplane.xds_server.transports import serve
from tests.xds.test_lrs import hello, report, stats

EOF: Any = vars(grpc.aio)["EOF"]


def head(*versions: str) -> Head:
    made = tuple(Version(v, (Endpoint("127.0.0.1", 9001),)) for v in versions)
    model = Model("iris", ("public",), made, {versions[0]: 10_000})
    return Head(1, State({"public": Gateway("public", 10_000)}, {"iris": model}))


class Rig:
    """The services on a port, with one client."""

    def __init__(self, limits: StreamLimits) -> None:
        self.limits = limits
        self.worlds: Latest[CompiledRevision | None] = Latest(None)
        self.fleet, self.traffic = Fleet(), Traffic()
        self.events = EventDispatcher(self.fleet, [FleetFold(self.fleet), TrafficFold(self.traffic)])
        self.discovery = Discovery(self.worlds, self.events.report, limits)

    async def start(self, transport: str) -> None:
        self.server = await serve(self.discovery, "127.0.0.1", 0, self.limits, transport=transport)
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.server.port}")

    async def stop(self) -> None:
        await self.channel.close(None)
        self.discovery.close()
        await self.server.stop(10)

    def publish(self, head: Head) -> None:
        self.events.publish(head)
        self.worlds.set(CompiledRevision(head, Compiler()))

    def open(self) -> Any:
        call: Any = self.channel.stream_stream(
            LOAD_REPORTS,
            request_serializer=lambda r: r if isinstance(r, bytes) else r.SerializeToString(),
            response_deserializer=lrs_pb2.LoadStatsResponse.FromString,
        )
        return call()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while True:
                if holds():
                    return
                await asyncio.sleep(0.005)


@asynccontextmanager
async def running(transport: str = "http2", **limits: Any) -> AsyncIterator[Rig]:
    rig = Rig(StreamLimits(**limits))
    rig.publish(head("blue", "green"))
    await rig.start(transport)
    try:
        yield rig
    finally:
        await rig.stop()


@pytest.fixture(params=XDS_TRANSPORTS)
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with running(request.param) as made:
        yield made


async def ended(call: Any) -> tuple[grpc.StatusCode, str]:
    """How a stream ends."""
    async with asyncio.timeout(10):
        return await call.code(), await call.details()


async def test_a_client_is_told_what_to_report_and_its_reports_are_folded(rig: Rig) -> None:
    call = rig.open()
    await call.write(hello(SEND_ALL))
    answer = await call.read()
    assert (answer.send_all_clusters, answer.load_reporting_interval.seconds) == (True, 10)
    assert (rig.traffic.reporting, rig.fleet.connected) == (1, 0)
    await call.write(report(stats(issued=10, succeeded=9, failed=1), stats("turnout", issued=3)))
    await rig.until(lambda: rig.traffic.cluster("iris/blue").totals.issued == 10)
    assert rig.traffic.cluster("turnout").totals.issued == 0
    call.cancel()
    await rig.until(lambda: rig.traffic.reporting == 0)
    assert rig.traffic.cluster("iris/blue").nodes == 0
    assert rig.traffic.cluster("iris/blue").totals.issued == 10
    assert rig.fleet.streams == 0


async def test_a_client_that_must_be_told_is_told_the_clusters_of_today(rig: Rig) -> None:
    call = rig.open()
    await call.write(hello())
    assert list((await call.read()).clusters) == ["iris/blue", "iris/green"]
    rig.publish(head("green", "red"))
    await call.write(report(stats(issued=1)))
    assert list((await call.read()).clusters) == ["iris/green", "iris/red"]


async def test_the_interval_is_a_setting() -> None:
    async with running(load_reports=1.5) as rig:
        call = rig.open()
        await call.write(hello(SEND_ALL))
        assert (await call.read()).load_reporting_interval.ToMilliseconds() == 1_500


@pytest.mark.parametrize(
    ("sent", "code", "said"),
    [
        (lrs_pb2.LoadStatsRequest(), grpc.StatusCode.INVALID_ARGUMENT, "node.id: is required"),
        (b"\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT, "is not a load report"),
    ],
)
async def test_a_bad_request_gets_a_fitting_status(rig: Rig, sent: Any, code: grpc.StatusCode, said: str) -> None:
    call = rig.open()
    await call.write(sent)
    found, details = await ended(call)
    assert found is code
    assert said in details
    assert rig.traffic.reporting == 0


async def test_a_node_has_so_many_streams_and_no_more() -> None:
    async with running(streams_per_node=2) as rig:
        calls = [rig.open() for _ in range(2)]
        for call in calls:
            await call.write(hello(SEND_ALL))
            await call.read()
        third = rig.open()
        await third.write(hello(SEND_ALL))
        assert (await ended(third))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        calls[0].cancel()
        await rig.until(lambda: rig.fleet.streams == 1)
        again = rig.open()
        await again.write(hello(SEND_ALL))
        assert (await again.read()).send_all_clusters


async def test_who_says_nothing_is_sent_away() -> None:
    async with running(greeting=0.05) as rig:
        code, said = await ended(rig.open())
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "no report came" in said


async def test_streams_have_an_age_and_end_well() -> None:
    async with running(max_stream_age=0.2) as rig:
        call = rig.open()
        await call.write(hello(SEND_ALL))
        assert (await call.read()).send_all_clusters
        assert await call.read() is EOF
        assert (await ended(call))[0] is grpc.StatusCode.OK


async def test_a_server_that_stops_ends_them_well_and_takes_no_more(rig: Rig) -> None:
    call = rig.open()
    await call.write(hello(SEND_ALL))
    await call.read()
    rig.discovery.close()
    assert await call.read() is EOF
    assert (await ended(call))[0] is grpc.StatusCode.OK
    assert (await ended(rig.open()))[0] is grpc.StatusCode.UNAVAILABLE


async def test_who_half_closes_is_answered_first(rig: Rig) -> None:
    call = rig.open()
    await call.write(hello(SEND_ALL))
    await call.done_writing()
    assert (await call.read()).send_all_clusters
    assert await call.read() is EOF


async def test_no_state_no_streams() -> None:
    rig = Rig(StreamLimits())
    await rig.start("http2")
    try:
        code, said = await ended(rig.open())
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "has not loaded its state yet" in said
    finally:
        await rig.stop()

"""Streams of load reports on a real socket: admission, the interval of reports, and the ends of streams."""

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
from controlplane.xds.lrs import SEND_ALL, SHORTEST
from controlplane.xds_server.discovery import Discovery
from controlplane.xds_server.limits import StreamLimits
from controlplane.xds_server.lrs_pump import LOAD_REPORTS
from controlplane.xds_server.transports import serve
from tests.xds.test_lrs import hello, report, stats

EOF: Any = vars(grpc.aio)["EOF"]


def head(*versions: str) -> Head:
    model_versions = tuple(Version(v, (Endpoint("127.0.0.1", 9001),)) for v in versions)
    model = Model("iris", ("public",), model_versions, {versions[0]: 10_000})
    return Head(1, State({"public": Gateway("public", 10_000)}, {"iris": model}))


class Rig:
    """The services on a port, with one client."""

    def __init__(self, limits: StreamLimits) -> None:
        self.limits = limits
        self.published: Latest[CompiledRevision | None] = Latest(None)
        self.fleet, self.traffic = Fleet(), Traffic()
        self.events = EventDispatcher(self.fleet, [FleetFold(self.fleet), TrafficFold(self.traffic)])
        self.discovery = Discovery(self.published, self.events.report, limits)

    async def start(self, transport: str) -> None:
        self.server = await serve(self.discovery, "127.0.0.1", 0, self.limits, transport=transport)
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.server.port}")

    async def stop(self) -> None:
        await self.channel.close(None)
        self.discovery.close()
        await self.server.stop(10)

    def publish(self, head: Head) -> None:
        self.events.publish(head)
        self.published.set(CompiledRevision(head, Compiler()))

    def open(self) -> Any:
        call: Any = self.channel.stream_stream(
            LOAD_REPORTS,
            request_serializer=lambda r: r if isinstance(r, bytes) else r.SerializeToString(),
            response_deserializer=lrs_pb2.LoadStatsResponse.FromString,
        )
        return call()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while True:
                if condition():
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
    async with running(request.param) as rig:
        yield rig


async def ended(call: Any) -> tuple[grpc.StatusCode, str]:
    """Return the status of a stream once it has ended."""
    async with asyncio.timeout(10):
        return await call.code(), await call.details()


async def test_a_client_gets_the_interval_and_its_reports_become_traffic(rig: Rig) -> None:
    call = rig.open()
    await call.write(hello(SEND_ALL))
    answer = await call.read()
    assert (answer.send_all_clusters, answer.load_reporting_interval.seconds) == (True, SHORTEST)
    assert (rig.traffic.reporting, rig.fleet.connected) == (1, 0)
    await call.write(report(stats(issued=10, succeeded=9, failed=1), stats("turnout", issued=3)))
    await rig.until(lambda: rig.traffic.cluster("iris/blue").totals.tries == 10)
    assert rig.traffic.cluster("turnout").totals.tries == 0
    call.cancel()
    await rig.until(lambda: rig.traffic.reporting == 0)
    assert rig.traffic.cluster("iris/blue").nodes == 0
    assert rig.traffic.cluster("iris/blue").totals.tries == 10
    assert rig.fleet.streams == 0


async def test_a_client_that_needs_the_names_of_clusters_gets_the_current_ones(rig: Rig) -> None:
    call = rig.open()
    await call.write(hello())
    assert list((await call.read()).clusters) == ["iris/blue", "iris/green"]
    rig.publish(head("green", "red"))
    await call.write(report(stats(issued=1)))
    assert list((await call.read()).clusters) == ["iris/green", "iris/red"]


async def test_the_interval_of_reports_is_a_setting() -> None:
    async with running(load_report_interval=1.5) as rig:
        call = rig.open()
        await call.write(hello(SEND_ALL))
        assert (await call.read()).load_reporting_interval.ToMilliseconds() == 1_500


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (lrs_pb2.LoadStatsRequest(), grpc.StatusCode.INVALID_ARGUMENT, "node.id: is required"),
        (b"\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT, "is not a load report"),
    ],
)
async def test_a_bad_report_ends_its_stream_with_a_status(rig: Rig, data: Any, code: grpc.StatusCode, text: str) -> None:
    call = rig.open()
    await call.write(data)
    status, details = await ended(call)
    assert status is code
    assert text in details
    assert rig.traffic.reporting == 0


async def test_the_streams_of_a_node_are_limited() -> None:
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


async def test_a_stream_without_a_report_ends() -> None:
    async with running(first_request_timeout=0.05) as rig:
        code, details = await ended(rig.open())
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "no report came" in details


async def test_an_old_stream_ends_with_ok() -> None:
    async with running(max_stream_age=0.2) as rig:
        call = rig.open()
        await call.write(hello(SEND_ALL))
        assert (await call.read()).send_all_clusters
        assert await call.read() is EOF
        assert (await ended(call))[0] is grpc.StatusCode.OK


async def test_a_server_that_stops_ends_streams_with_ok_and_opens_no_more(rig: Rig) -> None:
    call = rig.open()
    await call.write(hello(SEND_ALL))
    await call.read()
    rig.discovery.close()
    assert await call.read() is EOF
    assert (await ended(call))[0] is grpc.StatusCode.OK
    assert (await ended(rig.open()))[0] is grpc.StatusCode.UNAVAILABLE


async def test_a_client_that_half_closes_still_gets_its_answer(rig: Rig) -> None:
    call = rig.open()
    await call.write(hello(SEND_ALL))
    await call.done_writing()
    assert (await call.read()).send_all_clusters
    assert await call.read() is EOF


async def test_streams_are_refused_before_the_state_is_loaded() -> None:
    rig = Rig(StreamLimits())
    await rig.start("http2")
    try:
        code, details = await ended(rig.open())
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "has not loaded its state yet" in details
    finally:
        await rig.stop()

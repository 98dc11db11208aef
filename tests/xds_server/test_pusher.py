"""The loops that push revisions and send heartbeats, over pumps without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from controlplane.envoy_types import CLUSTER, ROUTES
from controlplane.xds_server import pusher
from controlplane.xds_server.limits import StreamLimits
from controlplane.xds_server.pump import Pump
from tests.xds_server.fake_transport import FakeTransport, Rig, request, settle
from tests.xds_server.rig import BLUE, GREEN


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[None]:
    task = asyncio.create_task(rig.discovery.run())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  pumps without sockets notify nobody
            await asyncio.sleep(0)


def connect(rig: Rig, count: int) -> list[tuple[Pump, FakeTransport]]:
    """Open streams of routes that hold the published revision."""
    streams = [rig.open(ROUTES) for _ in range(count)]
    for n, (stream, transport) in enumerate(streams):
        stream.receive_message(request(ROUTES, "iris", node=f"n{n}"))
        settle(stream, transport)
    return streams


async def test_each_stream_gets_the_newest_revision_once_and_the_busy_flag_is_set_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig()
    streams = connect(rig, 3)
    pushed: list[tuple[Pump, bool]] = []
    push = Pump.push

    def record(stream: Pump, now: float) -> float:
        pushed.append((stream, rig.discovery.pusher.pushing))
        return push(stream, now)

    monkeypatch.setattr(Pump, "push", record)
    async with running(rig):
        rig.publish(GREEN)
        rig.publish(BLUE)
        rig.publish(GREEN)
        await until(lambda: len(pushed) == 3 and not rig.discovery.pusher.pushing)
        assert pushed == [(stream, True) for stream, _ in streams]
        assert [settle(*stream) for stream in streams] == [[ROUTES]] * 3
        # A stream that opens gets it at once, and is not pushed to again.
        connect(rig, 1)
        rig.published.set(rig.published.value)
        await asyncio.sleep(0.02)  # nothing should happen, so there is no condition to wait for
        assert len(pushed) == 3


async def test_streams_that_do_not_ack_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    streams = connect(rig, 3)
    pushed: list[Pump] = []
    push = Pump.push

    def record(stream: Pump, now: float) -> float:
        pushed.append(stream)
        return push(stream, now)

    monkeypatch.setattr(Pump, "push", record)
    async with running(rig):
        for model in (GREEN, BLUE):
            rig.publish(model)
            await until(lambda: not rig.discovery.pusher.pushing and pushed)
            await until(lambda: streams[2][0].offered is rig.published.value)
            for stream in streams[1:]:
                settle(*stream)
        pushed.clear()
        rig.publish(GREEN)
        await until(lambda: len(pushed) == 3)
    assert pushed == [streams[1][0], streams[2][0], streams[0][0]]


async def test_output_is_flushed_after_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pusher, "FLUSH_SIZE", 2)
    rig = Rig()
    streams = connect(rig, 5)
    flushed: list[int] = []
    rig.discovery.pusher.flush = lambda: flushed.append(sum(len(transport.messages) for _, transport in streams))
    async with running(rig):
        rig.publish(GREEN)
        await until(lambda: len(flushed) == 3)
    assert flushed == [2, 4, 5]


@pytest.mark.parametrize("flush", [False, True])
async def test_other_tasks_run_between_time_slices(monkeypatch: pytest.MonkeyPatch, flush: bool) -> None:
    monkeypatch.setattr(pusher, "PUSH_TIME_SLICE_WITH_FLUSH" if flush else "PUSH_TIME_SLICE", 0.0)
    rig = Rig()
    streams = connect(rig, 5)
    flushes = 0

    def count() -> None:
        nonlocal flushes
        flushes += 1

    if flush:
        rig.discovery.pusher.flush = count
    turns: set[int] = set()
    async with running(rig):
        rig.publish(GREEN)
        async with asyncio.timeout(10):
            while (done := sum(s.offered is rig.published.value for s, _ in streams)) < 5:
                turns.add(done)
                await asyncio.sleep(0)
        await until(lambda: not rig.discovery.pusher.pushing)
    assert turns >= {1, 2, 3, 4}
    assert flushes == (6 if flush else 0)


async def test_a_stream_that_ends_during_a_push_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    (first, _), (second, transport), (third, _) = connect(rig, 3)
    push = Pump.push

    def end_the_next(stream: Pump, now: float) -> float:
        if stream is first:
            second.end()
        return push(stream, now)

    monkeypatch.setattr(Pump, "push", end_the_next)
    async with running(rig):
        rig.publish(GREEN)
        await until(lambda: third.offered is rig.published.value)
    assert transport.responses() == []


async def test_heartbeats_come_several_times_in_a_ttl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pusher, "_HEARTBEATS_PER_TTL", 50)
    rig = Rig(StreamLimits(resource_ttl=1))
    stream, transport = rig.open(CLUSTER)
    stream.receive_message(request(CLUSTER, node="x"))
    settle(stream, transport)
    async with running(rig):
        for _ in range(3):
            await until(lambda: transport.messages)
            (response,) = transport.responses()
            assert {r.ttl.seconds for r in response.resources} == {1}
            stream.receive_message(request(CLUSTER, nonce=response.nonce))

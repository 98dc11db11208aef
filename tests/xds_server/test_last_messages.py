"""The last message of a stream is reported without an event for each message."""

import asyncio
import time

import pytest

from controlplane.fleet import NodeState
from controlplane.xds.events import LastMessage
from controlplane.xds_server import last_messages
from controlplane.xds_server.last_messages import report_last_messages
from tests.fakes.xds_client import client
from tests.xds_server.rig import BLUE, GATEWAY, Rig
from tests.xds_server.rig import rig as _rig
from tests.xds_server.rig import store as _store

rig, store = _rig, _store


class FakePump:
    """The part of a pump that the reports use."""

    def __init__(self, last_message_time: float) -> None:
        self.last_message_time = last_message_time
        self.ended = False


async def test_each_message_is_reported_once_and_a_silent_stream_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_messages, "INTERVAL", 0.01)
    now = asyncio.get_running_loop().time()
    pumps = {1: FakePump(now - 2.0), 2: FakePump(0.0), 3: FakePump(now)}
    pumps[3].ended = True
    reports: list[tuple[int, LastMessage]] = []
    task = asyncio.create_task(report_last_messages(pumps, lambda stream, event: reports.append((stream, event))))  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        while not reports:  # noqa: ASYNC110  a report wakes nobody
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    assert [stream for stream, _ in reports] == [1]
    assert 2.0 <= reports[0][1].ago < 12.0
    pumps[2].last_message_time = now
    async with asyncio.timeout(10):
        while len(reports) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    task.cancel()
    assert reports[1][0] == 2


async def test_the_fleet_knows_the_last_message_of_a_stream_that_was_closed(rig: Rig) -> None:
    revision = await rig.commit(GATEWAY, BLUE)
    async with client(rig.port, "edge-1", "delta"):
        await rig.held(revision)
        last_message = time.time()
        await asyncio.sleep(0.6)
    await rig.until(lambda fleet: fleet.counts[NodeState.GONE] == 1)
    node = rig.fleet.nodes["edge-1"]
    assert node.gone_since is not None
    assert last_message - 0.5 < node.last_seen < last_message + 0.4 < node.gone_since

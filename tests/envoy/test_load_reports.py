"""Real Envoys report their load: what an operator sees of it before, at and after a switch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from controlplane.demo.lean import LeanServer
from controlplane.generated.turnout.v1.traffic_pb2 import VersionTraffic
from controlplane.generated.turnout.v1.traffic_service_pb2 import GetTrafficRequest, GetTrafficResponse
from tests.envoy.conftest import MODEL, PATH, Fleet

pytestmark = pytest.mark.envoy


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control plane that a test starts wants a report a second."""
    monkeypatch.setenv("TURNOUT_LOAD_REPORT_INTERVAL", "1")


@asynccontextmanager
async def calls(fleet: Fleet) -> AsyncIterator[dict[str, int]]:
    """Calls the model through each Envoy in turn, and counts the answers, while the block runs."""
    counts = {"sent": 0, "answered": 0}

    async def call_on() -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                for port in fleet.ports.values():
                    counts["sent"] += 1
                    async with session.get(f"http://127.0.0.1:{port}{PATH}") as answer:
                        await answer.read()
                        counts["answered"] += answer.status == 200
                await asyncio.sleep(0.01)

    task = asyncio.create_task(call_on())
    try:
        yield counts
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(fleet: Fleet, holds: Callable[[GetTrafficResponse, dict[str, VersionTraffic]], Any]) -> GetTrafficResponse:
    """Waits until the traffic of the model is so."""
    async with asyncio.timeout(30):
        while True:
            seen: Any = await fleet.control_plane.traffic.GetTraffic(GetTrafficRequest(name=f"models/{MODEL}"))
            if holds(seen, {v.version: v for v in seen.traffic.versions}):
                assert isinstance(seen, GetTrafficResponse)
                return seen
            await asyncio.sleep(0.1)


async def test_after_a_switch_the_old_version_is_seen_to_get_nothing(fleet: Fleet, lean: LeanServer) -> None:
    plane = fleet.control_plane
    await plane.apply(fleet.manifest(lean.ports))
    await fleet.start()
    async with calls(fleet) as counts:
        before = await until(fleet, lambda seen, of: of["blue"].nodes == 2)
        blue = {v.version: v for v in before.traffic.versions}["blue"]
        assert blue.share == 10_000
        assert blue.rate.requests_per_second > 0
        assert blue.rate.errors_per_second == 0
        assert {n.node for n in before.nodes} == {"nodes/delta", "nodes/sotw"}
        assert {n.version for n in before.nodes} == {"blue"}
        assert (before.source.reporting_nodes, before.source.connected_nodes) == (2, 2)

        await plane.held(await plane.split(MODEL, {"green": 10_000}), nodes=2)
        after = await until(fleet, lambda seen, of: of["green"].nodes == 2 and of["blue"].nodes == 0)
        of = {v.version: v for v in after.traffic.versions}
        assert (of["green"].share, of["blue"].share) == (10_000, 0)
        assert (of["blue"].rate.requests_per_second, of["blue"].rate.in_progress) == (0, 0)
        assert of["blue"].HasField("last_request_time")
    assert counts["answered"] >= counts["sent"] - 1
    assert 0 < of["green"].totals.requests + of["blue"].totals.requests <= counts["sent"]
    # The Envoys' own static cluster, which they report too, is nobody's model.
    assert of.keys() == {"green", "blue"}


async def test_an_envoy_that_goes_away_is_no_longer_counted(fleet: Fleet, lean: LeanServer) -> None:
    await fleet.control_plane.apply(fleet.manifest(lean.ports))
    await fleet.start()
    async with calls(fleet):
        await until(fleet, lambda seen, of: of["blue"].nodes == 2)
    await fleet.envoys["sotw"].close()
    seen = await until(fleet, lambda seen, of: seen.source.reporting_nodes == 1)
    assert {v.version: v for v in seen.traffic.versions}["blue"].totals.requests > 0

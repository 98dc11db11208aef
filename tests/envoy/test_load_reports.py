"""Real Envoys report their load: the traffic that an operator sees before, during and after a switch."""

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
from tests.envoy.test_mirror import listening, never_answers

pytestmark = pytest.mark.envoy


@pytest.fixture(autouse=True)
def report_every_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the control plane ask for a report each second."""
    monkeypatch.setenv("TURNOUT_LOAD_REPORT_INTERVAL", "1")


@asynccontextmanager
async def calls(fleet: Fleet) -> AsyncIterator[dict[str, int]]:
    """Call the model through each Envoy in turn while the block runs, and count the answers."""
    counts = {"sent": 0, "answered": 0}

    async def call_without_end() -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                for port in fleet.ports.values():
                    counts["sent"] += 1
                    async with session.get(f"http://127.0.0.1:{port}{PATH}") as response:
                        await response.read()
                        counts["answered"] += response.status == 200
                await asyncio.sleep(0.01)

    task = asyncio.create_task(call_without_end())
    try:
        yield counts
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(fleet: Fleet, condition: Callable[[GetTrafficResponse, dict[str, VersionTraffic]], Any]) -> GetTrafficResponse:
    """Wait until a condition holds of the model's traffic, which it gets whole and by version. Return the traffic."""
    async with asyncio.timeout(30):
        while True:
            response: Any = await fleet.control_plane.traffic.GetTraffic(GetTrafficRequest(name=f"models/{MODEL}"))
            if condition(response, {v.version: v for v in response.traffic.versions}):
                assert isinstance(response, GetTrafficResponse)
                return response
            await asyncio.sleep(0.1)


async def test_after_a_switch_the_reported_traffic_of_the_old_version_is_zero(fleet: Fleet, lean: LeanServer) -> None:
    plane = fleet.control_plane
    await plane.apply(fleet.manifest(lean.ports))
    await fleet.start()
    async with calls(fleet) as counts:
        before = await until(fleet, lambda response, versions: versions["blue"].nodes == 2)
        blue = {v.version: v for v in before.traffic.versions}["blue"]
        assert blue.share == 10_000
        assert blue.rate.requests_per_second > 0
        assert blue.rate.errors_per_second == 0
        assert {n.node for n in before.nodes} == {"nodes/delta", "nodes/sotw"}
        assert {n.version for n in before.nodes} == {"blue"}
        assert (before.source.reporting_nodes, before.source.connected_nodes) == (2, 2)

        await plane.held(await plane.split(MODEL, {"green": 10_000}), nodes=2)
        after = await until(fleet, lambda response, versions: versions["green"].nodes == 2 and versions["blue"].nodes == 0)
        versions = {v.version: v for v in after.traffic.versions}
        assert (versions["green"].share, versions["blue"].share) == (10_000, 0)
        assert (versions["blue"].rate.requests_per_second, versions["blue"].rate.in_progress) == (0, 0)
        assert versions["blue"].HasField("last_request_time")
    assert counts["answered"] >= counts["sent"] - 1
    assert 0 < versions["green"].totals.requests + versions["blue"].totals.requests <= counts["sent"]
    # The Envoys also report their static cluster, which belongs to no model.
    assert versions.keys() == {"green", "blue"}


async def test_an_envoy_that_disconnects_is_no_longer_counted(fleet: Fleet, lean: LeanServer) -> None:
    await fleet.control_plane.apply(fleet.manifest(lean.ports))
    await fleet.start()
    async with calls(fleet):
        await until(fleet, lambda response, versions: versions["blue"].nodes == 2)
    await fleet.envoys["sotw"].close()
    after = await until(fleet, lambda response, versions: response.source.reporting_nodes == 1)
    assert {v.version: v for v in after.traffic.versions}["blue"].totals.requests > 0


async def test_copies_beyond_the_limit_are_reported_as_drops(fleet: Fleet, lean: LeanServer) -> None:
    async with listening(never_answers) as silent:
        manifest = fleet.manifest({**lean.ports, "green": silent})
        manifest.models[0].mirror.version, manifest.models[0].mirror.max_requests = "green", 1
        await fleet.control_plane.apply(manifest)
        await fleet.start()
        async with calls(fleet):
            response = await until(
                fleet, lambda response, versions: any(v.totals.drops > 2 for v in response.traffic.versions)
            )
        (copies,) = (v for v in response.traffic.versions if v.copies)
        # Each of the two Envoys has at most one copy in flight.
        assert copies.totals.drops > 2
        assert (copies.totals.tries <= 2, copies.totals.errors) == (True, 0)

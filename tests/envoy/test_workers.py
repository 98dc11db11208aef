"""Real Envoys with several worker processes: each Envoy syncs, and reconnects when its worker is killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from controlplane.demo.envoy import Envoy
from controlplane.workers.worker_handle import WorkerHandle
from tests.envoy.test_matrix import bootstrap
from tests.envoy.test_sync import Plane

pytestmark = pytest.mark.envoy

NODES = ("d", "s")


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    async with Plane(tmp_path, workers=2) as plane:
        yield plane


def worker_of(plane: Plane, node: str) -> WorkerHandle | None:
    """Return the worker that an Envoy is connected to; None while it is not connected."""
    assert plane.app.workers is not None
    return next(iter(plane.app.workers.serving(node)), None)


async def test_envoys_follow_switches_and_reconnect_when_their_worker_is_killed(plane: Plane) -> None:
    await plane.apply()
    async with AsyncExitStack() as stack:
        for node, variant in zip(NODES, ("delta", "sotw"), strict=True):
            await stack.enter_async_context(plane.envoy(node, variant))
        await plane.held(1, 2)
        assert await plane.ask() == "blue"
        await plane.held(await plane.switch("green"), 2)
        assert {await plane.ask() for _ in range(20)} == {"green"}
        killed = {w.pid for node in NODES if (w := worker_of(plane, node)) is not None}
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        # Without their worker, the Envoys go on with the configuration that they have.
        assert {await plane.ask() for _ in range(20)} == {"green"}
        async with asyncio.timeout(30):
            while not all((w := worker_of(plane, n)) is not None and w.pid not in killed for n in NODES):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        progress = await plane.held(await plane.switch("blue"), 2)
        assert (progress.total, progress.refused) == (2, 0)
        assert {await plane.ask() for _ in range(20)} == {"blue"}


async def test_all_streams_of_an_envoy_are_at_one_worker(plane: Plane) -> None:
    """The coordination of a node's streams relies on it: it works within one process."""
    await plane.apply()
    async with Envoy(bootstrap(plane.xds_port, "delta", separate=True)) as envoy:
        async with asyncio.timeout(20):
            while (node := plane.app.fleet.nodes.get(envoy.id)) is None or len(node.streams) != 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await plane.held(await plane.switch("green"))
        assert plane.app.workers is not None
        assert len(plane.app.workers.serving(envoy.id)) == 1
        assert (await envoy.stats("cluster.turnout.upstream_cx_active"))["cluster.turnout.upstream_cx_active"] == 1

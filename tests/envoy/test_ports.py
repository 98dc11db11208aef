"""Ports that change hands in one revision, with callers on them."""

from __future__ import annotations

import asyncio
from collections import Counter

import aiohttp
import pytest

from controlplane.demo.plane import free_port
from controlplane.generated.turnout.v1 import gateway_pb2, model_pb2, revision_service_pb2
from tests.envoy.test_sync import HOST, VARIANTS, Plane, plane

__all__ = ["plane"]

pytestmark = pytest.mark.envoy


async def ask(port: int, model: str) -> int | str:
    """The status of a request over a connection of its own, or what went wrong."""
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
            session.get(f"http://{HOST}:{port}/v2/models/{model}/infer") as answer,
        ):
            return answer.status
    except aiohttp.ClientError as error:
        return repr(error)


class Callers:
    """Ask for `iris` on some ports, one request after another on each, until they are stopped."""

    def __init__(self, *ports: int) -> None:
        self.answers: dict[int, Counter[int | str]] = {port: Counter() for port in ports}
        self._tasks = [asyncio.create_task(self._call(port)) for port in ports for _ in range(2)]
        self._stopped = False

    async def _call(self, port: int) -> None:
        while not self._stopped:
            self.answers[port][await ask(port, "iris")] += 1

    async def more(self, answers: int) -> None:
        """Waits for so many more answers on each port."""
        wanted = {port: counted.total() + answers for port, counted in self.answers.items()}
        async with asyncio.timeout(20):
            while any(self.answers[port].total() < n for port, n in wanted.items()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self._stopped = True
        await asyncio.gather(*self._tasks)


async def given(plane: Plane, gateways: dict[str, int]) -> None:
    """Applies these gateways, each with a model of its own, and `iris` on all; returns when that is held."""
    (port,) = {plane.upstreams["blue"]}
    blue = [model_pb2.Version(name="blue", endpoints=[model_pb2.Endpoint(host="127.0.0.1", port=port)])]
    on = {"iris": sorted(gateways), **{f"on-{name}": [name] for name in gateways}}
    manifest = revision_service_pb2.Manifest(
        gateways=[gateway_pb2.Gateway(name=name, address=HOST, port=port) for name, port in gateways.items()],
        models=[model_pb2.Model(name=m, gateways=names, versions=blue, split={"blue": 10_000}) for m, names in on.items()],
    )
    response = await plane.revisions.Apply(revision_service_pb2.ApplyRequest(manifest=manifest, force=True))
    progress = await plane.held(response.revision.number)
    assert (progress.holding, progress.refused) == (1, 0)


async def belongs(port: int, gateway: str, others: set[str]) -> None:
    """Waits until a port answers for a gateway, and for no other."""
    async with asyncio.timeout(10):
        while await ask(port, f"on-{gateway}") != 200:  # noqa: ASYNC110  nothing but asking tells
            await asyncio.sleep(0.01)
        for other in others - {gateway}:
            while await ask(port, f"on-{other}") != 404:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@VARIANTS
async def test_ports_are_swapped_and_handed_on_in_one_revision(plane: Plane, variant: str) -> None:
    p1, p2, p3 = free_port(), free_port(), free_port()
    async with plane.envoy("edge-1", variant) as envoy:
        await given(plane, {"ga": p1, "gb": p2})
        for port, gateway in ((p1, "ga"), (p2, "gb")):
            await belongs(port, gateway, {"ga", "gb"})
        callers = Callers(p1, p2)
        await callers.more(50)
        # A swap; then ga moves on, and a gateway that is new, and comes before it by name, takes its port.
        for gateways in ({"ga": p2, "gb": p1}, {"ga": p3, "gb": p1, "aa": p2}):
            await given(plane, gateways)
            for gateway, port in gateways.items():
                await belongs(port, gateway, set(gateways))
            await callers.more(50)
        await callers.stop()
        assert all(set(counted) == {200} for counted in callers.answers.values()), callers.answers
        stats = await envoy.stats(r"listener_manager\.(lds\.update_rejected|total_listeners_active|listener_create_failure)$")
        assert stats == {
            "listener_manager.lds.update_rejected": 0,
            "listener_manager.listener_create_failure": 0,
            "listener_manager.total_listeners_active": 3,
        }

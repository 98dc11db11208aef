"""One revision moves ports between gateways, while callers use the ports."""

from __future__ import annotations

import asyncio
from collections import Counter

import aiohttp
import pytest

from controlplane.demo.ports import free_port
from controlplane.generated.turnout.v1 import gateway_pb2, model_pb2, revision_service_pb2
from tests.envoy.test_sync import HOST, VARIANTS, Plane, plane

__all__ = ["plane"]

pytestmark = pytest.mark.envoy


async def ask(port: int, model: str) -> int | str:
    """Send a request over a new connection. Return its status, or the error."""
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
            session.get(f"http://{HOST}:{port}/v2/models/{model}/infer") as response,
        ):
            return response.status
    except aiohttp.ClientError as error:
        return repr(error)


class Callers:
    """Two callers for each port. Each requests `iris` again and again until `stop`."""

    def __init__(self, *ports: int) -> None:
        self.answers: dict[int, Counter[int | str]] = {port: Counter() for port in ports}
        self._tasks = [asyncio.create_task(self._call(port)) for port in ports for _ in range(2)]
        self._stopped = False

    async def _call(self, port: int) -> None:
        while not self._stopped:
            self.answers[port][await ask(port, "iris")] += 1

    async def wait_for_more(self, answers: int) -> None:
        """Wait until each port has given this many more answers."""
        totals = {port: counted.total() + answers for port, counted in self.answers.items()}
        async with asyncio.timeout(20):
            while any(self.answers[port].total() < n for port, n in totals.items()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self._stopped = True
        await asyncio.gather(*self._tasks)


async def apply_gateways(plane: Plane, gateways: dict[str, int]) -> None:
    """Apply these gateways, each with a model of its own, and `iris` on all. Wait until the Envoy holds the revision."""
    port = plane.upstreams["blue"]
    blue = [model_pb2.Version(name="blue", endpoints=[model_pb2.Endpoint(host="127.0.0.1", port=port)])]
    gateways_of = {"iris": sorted(gateways), **{f"on-{name}": [name] for name in gateways}}
    manifest = revision_service_pb2.Manifest(
        gateways=[gateway_pb2.Gateway(name=name, address=HOST, port=port) for name, port in gateways.items()],
        models=[
            model_pb2.Model(name=m, gateways=names, versions=blue, split={"blue": 10_000}) for m, names in gateways_of.items()
        ],
    )
    response = await plane.revisions.Apply(revision_service_pb2.ApplyRequest(manifest=manifest, force=True, allow_cut=True))
    progress = await plane.held(response.revision.number)
    assert (progress.holding, progress.refused) == (1, 0)


async def wait_for_gateway(port: int, gateway: str, all_gateways: set[str]) -> None:
    """Wait until a port serves the model of one gateway, and no other gateway's."""
    async with asyncio.timeout(10):
        while await ask(port, f"on-{gateway}") != 200:  # noqa: ASYNC110  there is no event to wait for
            await asyncio.sleep(0.01)
        for other in all_gateways - {gateway}:
            while await ask(port, f"on-{other}") != 404:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@VARIANTS
async def test_gateways_swap_and_pass_on_ports_in_one_revision(plane: Plane, variant: str) -> None:
    p1, p2, p3 = free_port(), free_port(), free_port()
    async with plane.envoy("edge-1", variant) as envoy:
        await apply_gateways(plane, {"ga": p1, "gb": p2})
        for port, gateway in ((p1, "ga"), (p2, "gb")):
            await wait_for_gateway(port, gateway, {"ga", "gb"})
        callers = Callers(p1, p2)
        await callers.wait_for_more(50)
        # A swap. Then `ga` gets a new port, and a new gateway, which is before it in the order of names, gets its old port.
        for gateways in ({"ga": p2, "gb": p1}, {"ga": p3, "gb": p1, "aa": p2}):
            await apply_gateways(plane, gateways)
            for gateway, port in gateways.items():
                await wait_for_gateway(port, gateway, set(gateways))
            await callers.wait_for_more(50)
        await callers.stop()
        assert all(set(counted) == {200} for counted in callers.answers.values()), callers.answers
        stats = await envoy.stats(r"listener_manager\.(lds\.update_rejected|total_listeners_active|listener_create_failure)$")
        assert stats == {
            "listener_manager.lds.update_rejected": 0,
            "listener_manager.listener_create_failure": 0,
            "listener_manager.total_listeners_active": 3,
        }

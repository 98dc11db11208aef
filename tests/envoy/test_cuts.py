"""Real Envoys under load: a change that cuts traffic is refused and costs no request, also on a store that was lost."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from grpc_status import rpc_status

from controlplane.demo.ports import free_port
from controlplane.generated.turnout.v1 import gateway_pb2, model_pb2
from controlplane.generated.turnout.v1.revision_service_pb2 import ApplyRequest, ApplyResponse, Manifest
from tests.envoy.test_sync import HOST, Plane

pytestmark = pytest.mark.envoy

MODELS = [f"m{i}" for i in range(10)]
VARIANTS = {"edge-1": "delta", "edge-2": "sotw"}


class Fleet:
    """Two Envoys, each with a gateway of its own, and ten models on both."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.ports = {node: free_port() for node in VARIANTS}
        # The answers to requests for each model at each gateway: 200, another status, or the error.
        self.answers: Counter[int | str] = Counter()

    def gateways(self, **changes: Any) -> list[gateway_pb2.Gateway]:
        """Return a gateway for each Envoy; `changes` are fields of that of edge-1."""
        return [
            gateway_pb2.Gateway(
                name=node,
                address=HOST,
                port=port,
                **({"nodes": gateway_pb2.NodeSelector(ids=[node])} | (changes if node == "edge-1" else {})),
            )
            for node, port in self.ports.items()
        ]

    def models(self, names: Sequence[str] = MODELS, gateways: Sequence[str] = tuple(VARIANTS), port: int = 0) -> list[Any]:
        blue = model_pb2.Version(
            name="blue", endpoints=[model_pb2.Endpoint(host="127.0.0.1", port=port or self.plane.upstreams["blue"])]
        )
        return [model_pb2.Model(name=name, gateways=gateways, versions=[blue]) for name in names]

    async def apply(self, gateways: Sequence[Any] = (), models: Sequence[Any] = (), **fields: Any) -> ApplyResponse:
        request = ApplyRequest(manifest=Manifest(gateways=gateways, models=models), force=True, **fields)
        response: ApplyResponse = await self.plane.revisions.Apply(request)
        return response

    async def refused(self, gateways: Sequence[Any] = (), models: Sequence[Any] = ()) -> str:
        """Apply objects, and check that it is refused. Return what would be lost."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.apply(gateways, models)
        message = str(caught.value.details())
        assert "CUTS_TRAFFIC" in str(rpc_status.from_call(caught.value)), message  # type: ignore[arg-type]
        return message.removeprefix("this change cuts traffic, so it needs allow_cut: ")

    @asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """Request every model at every gateway, again and again."""

        async def call(port: int) -> None:
            async with aiohttp.ClientSession() as session:
                while True:
                    for name in MODELS:
                        try:
                            async with session.get(f"http://{HOST}:{port}/v2/models/{name}/infer") as response:
                                self.answers[response.status] += 1
                        except aiohttp.ClientError as error:
                            self.answers[repr(error)] += 1

        tasks = [asyncio.create_task(call(port)) for port in self.ports.values()]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def more(self, count: int = 100) -> None:
        """Wait for more answers."""
        total = self.answers.total() + count
        async with asyncio.timeout(20):
            while self.answers.total() < total:  # noqa: ASYNC110  there is no event to wait for
                await asyncio.sleep(0.02)

    async def connected(self) -> None:
        """Wait until both nodes have said what they hold of every type."""
        changed = self.plane.app.events.changed
        async with asyncio.timeout(30):
            while not all(
                (node := self.plane.app.fleet.nodes.get(name)) is not None
                and (claims := node.claims) is not None
                and claims.listeners != frozenset()
                and claims.routes != frozenset()
                for name in VARIANTS
            ):
                await changed.newer(changed.serial)


async def test_a_change_that_cuts_traffic_is_refused_and_no_request_fails(tmp_path: Path) -> None:
    async with Plane(tmp_path / "data") as plane:
        fleet = Fleet(plane)
        async with plane.envoy("edge-1", VARIANTS["edge-1"]), plane.envoy("edge-2", VARIANTS["edge-2"]):
            first = await fleet.apply(fleet.gateways(), fleet.models())
            await plane.held(first.revision.number, nodes=2)
            for port in fleet.ports.values():
                plane.port = port
                await plane.ask()
            at_1 = f"{HOST}:{fleet.ports['edge-1']}"
            listed = "m0, m1, m2, m3, m4, m5, m6, m7, m8, m9"
            async with fleet.load():
                await fleet.more()
                typo = fleet.gateways(nodes=gateway_pb2.NodeSelector(ids=["egde-1"]))
                assert await fleet.refused(typo) == f"edge-1 loses its only listener {at_1} with models {listed}"
                header = fleet.gateways(header=gateway_pb2.HeaderRouting(name="x-model"))
                assert await fleet.refused(header) == (
                    f"models {listed} can't be reached by path segment 3 at {at_1} any more, only by header x-model, on edge-1"
                )
                other_gateway = fleet.models(["m3"], gateways=["edge-2"])
                assert await fleet.refused(models=other_gateway) == f"model m3 loses its path at {at_1} on edge-1"
                with socket.socket() as closed:
                    closed.bind(("127.0.0.1", 0))
                    port = closed.getsockname()[1]
                    assert await fleet.refused(models=fleet.models(["m4"], port=port)) == (
                        "no endpoint of version blue of model m4 answers (as seen from the control plane: "
                        f"127.0.0.1:{port} connection refused) on edge-1 and edge-2"
                    )
                # The control plane starts again, on an empty store.
                await plane.stop()
                plane.path = tmp_path / "lost"
                await plane.start()
                await fleet.connected()
                assert await fleet.refused(fleet.gateways(), fleet.models(["m7"])) == (
                    "edge-2 may lose everything: Turnout does not know what it holds; "
                    "models m0, m1, m2, m3, m4, m5, m6, m8, m9 can't be reached any more on edge-1"
                )
                await fleet.more()
                dry = await fleet.apply(fleet.gateways(), fleet.models(), validate_only=True)
                assert not dry.impact.losses
                restored = await fleet.apply(fleet.gateways(), fleet.models())
                await plane.held(restored.revision.number, nodes=2)
                await fleet.more()
    assert fleet.answers.keys() == {200}, fleet.answers

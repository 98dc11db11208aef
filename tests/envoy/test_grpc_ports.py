"""One model for the HTTP and the gRPC of its servers, in real Envoys: a switch moves both, and no request fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc
import pytest

from controlplane.compiler.bootstrap import node_bootstrap
from controlplane.demo.envoy import Envoy
from controlplane.demo.plane import ControlPlane
from controlplane.demo.ports import free_port
from controlplane.generated.turnout.v1.gateway_pb2 import BodyRouting, Gateway, HeaderRouting
from controlplane.generated.turnout.v1.model_pb2 import Endpoint, HealthCheck, Model, Version
from controlplane.generated.turnout.v1.model_service_pb2 import ModelUndo, UndoModelsRequest
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest
from tests.envoy.test_body_gateway import binary
from tests.envoy.test_grpc_body import SERVICE, named
from tests.fakes.open_inference_server import open_inference_server

pytestmark = pytest.mark.envoy

Answers = dict[str, Counter[str]]


class Callers:
    """Calls over HTTP, gRPC and gRPC-Web that never pause, and the versions that answered them, by kind."""

    def __init__(self, http: int, grpc_port: int, web: int, session: aiohttp.ClientSession) -> None:
        self.answers: Answers = {kind: Counter() for kind in ("http", "grpc", "grpc-web", "http-preview", "grpc-preview")}
        self.ended = False
        self._session = session
        self._http, self._web = (f"http://127.0.0.1:{port}" for port in (http, web))
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}")

    async def _call(self, kind: str) -> str:
        preview = {"x-model-version": "green"} if kind.endswith("-preview") else {}
        if kind.startswith("http"):
            url = f"{self._http}/v2/models/iris/infer"
            async with self._session.post(url, json={"inputs": []}, headers=preview) as response:
                return str((await response.json())["model_version"]) if response.status == 200 else f"FAILED {response.status}"
        message = named("iris")
        if kind == "grpc-web":
            frame = b"\0" + len(message).to_bytes(4, "big") + message
            headers = {"content-type": "application/grpc-web+proto", "x-model": "iris", "x-grpc-web": "1"}
            url = f"{self._web}{SERVICE}/ModelInfer"
            async with self._session.post(url, data=frame, headers=headers) as response:
                return _version(await response.read())
        metadata = tuple(preview.items())
        return _version(await self._channel.unary_unary(f"{SERVICE}/ModelInfer", bytes, bytes)(message, metadata=metadata))

    async def run(self, kind: str) -> None:
        while not self.ended:
            try:
                async with asyncio.timeout(20):
                    answer = await self._call(kind)
            except (aiohttp.ClientError, grpc.aio.AioRpcError, TimeoutError) as error:
                answer = f"FAILED {error!r}"
            self.answers[kind][answer] += 1
            await asyncio.sleep(0.01)

    async def more(self, version: str = "") -> None:
        """Wait until each kind has five more answers, with the version if it is not a preview."""
        before = {kind: answers.copy() for kind, answers in self.answers.items()}
        async with asyncio.timeout(30):
            for kind, answers in self.answers.items():
                wanted = "green" if kind.endswith("-preview") else version
                while sum(n for v, n in (answers - before[kind]).items() if not wanted or v == wanted) < 5:
                    assert not [a for a in answers if a not in ("blue", "green")], (kind, answers)
                    await asyncio.sleep(0.02)

    async def close(self) -> None:
        await self._channel.close(None)


def _version(answer: bytes) -> str:
    return next((version for version in ("blue", "green") if version.encode() in answer), f"FAILED {answer[:100]!r}")


@contextlib.asynccontextmanager
async def callers(http: int, grpc_port: int, web: int) -> AsyncIterator[Callers]:
    async with aiohttp.ClientSession() as session:
        found = Callers(http, grpc_port, web, session)
        tasks = [asyncio.create_task(found.run(kind)) for kind in found.answers]
        try:
            yield found
        finally:
            found.ended = True
            await asyncio.gather(*tasks)
            await found.close()


def manifest(http: int, grpc_port: int, web: int, ports: dict[str, tuple[int, int]]) -> Manifest:
    model = Model(name="iris", gateways=["http", "grpc", "web"], split={"blue": 10_000}, preview_header="x-model-version")
    for name, (port, grpc_of_version) in ports.items():
        version = Version(name=name, endpoints=[Endpoint(host="127.0.0.1", port=port, grpc_port=grpc_of_version)])
        version.health_check.CopyFrom(HealthCheck(path="/v2/models/iris/ready"))
        model.versions.append(version)
    return Manifest(
        gateways=[
            Gateway(name="http", address="127.0.0.1", port=http),
            Gateway(name="grpc", address="127.0.0.1", port=grpc_port, body=BodyRouting(default_model="iris")),
            # The route is chosen before gRPC-Web becomes gRPC here.
            Gateway(name="web", address="127.0.0.1", port=web, header=HeaderRouting(name="x-model")),
        ],
        models=[model],
    )


@pytest.mark.parametrize("version", ["newest", "oldest"])
@pytest.mark.timeout(120)
async def test_one_switch_moves_http_and_grpc_and_no_request_fails(tmp_path: Path, version: str) -> None:
    http, grpc_port, web = free_port(), free_port(), free_port()
    async with open_inference_server("blue") as blue, open_inference_server("green") as green, ControlPlane() as plane:
        await plane.apply(manifest(http, grpc_port, web, {"blue": blue, "green": green}))
        bootstrap = node_bootstrap("edge", "edge", xds_port=plane.xds_port, admin_port=0)
        async with Envoy(bootstrap, directory=tmp_path, binary=binary(version)) as envoy:
            await envoy.ready()
            await plane.held(1, nodes=1)

            async def split(**shares: int) -> None:
                await plane.held(await plane.split("iris", shares), nodes=1)

            async with callers(http, grpc_port, web) as calls:
                await calls.more("blue")
                await split(green=10_000)
                await calls.more("green")
                await split(blue=5_000, green=5_000)
                await calls.more()
                undo = UndoModelsRequest(undos=[ModelUndo(model="models/iris")], force=True)
                answer = await plane.models.UndoModels(undo, timeout=30)
                await plane.held(answer.revision.number, nodes=1)
                await calls.more("green")
                await split(blue=10_000)
                await calls.more("blue")
            for kind, answers in calls.answers.items():
                assert answers.keys() <= ({"green"} if kind.endswith("-preview") else {"blue", "green"}), kind


@pytest.mark.parametrize("version", ["newest", "oldest"])
async def test_the_mirrored_version_gets_no_copies_of_its_own_grpc_calls(tmp_path: Path, version: str) -> None:
    http, grpc_port, web = free_port(), free_port(), free_port()
    async with open_inference_server("blue") as blue, open_inference_server("green") as green, ControlPlane() as plane:
        state = manifest(http, grpc_port, web, {"blue": blue, "green": green})
        state.models[0].mirror.version = "green"
        await plane.apply(state)
        bootstrap = node_bootstrap("edge", "edge", xds_port=plane.xds_port, admin_port=0)
        async with Envoy(bootstrap, directory=tmp_path, binary=binary(version)) as envoy:
            await envoy.ready()
            await envoy.listens(grpc_port)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
                infer = channel.unary_unary(f"{SERVICE}/ModelInfer", bytes, bytes)
                for metadata in ((("x-model-version", "green"),), (), ()):
                    for _ in range(5):
                        await infer(named("iris"), metadata=metadata, timeout=20)
            copied = "cluster.iris/green/grpc/mirror.upstream_rq_total"
            for _ in range(400):
                counts = await envoy.stats("mirror.upstream_rq_total")
                if counts.get(copied, 0) >= 10:  # those of the previews would have come before
                    break
                await asyncio.sleep(0.05)
            assert (counts[copied], counts["cluster.iris/green/mirror.upstream_rq_total"]) == (10, 0)

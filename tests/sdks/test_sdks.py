"""SDKs and model servers that people use, through real Envoys: moving traffic loses no request and ends no stream."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from controlplane.compiler.bootstrap import node_bootstrap
from controlplane.demo.envoy import Envoy
from controlplane.demo.plane import ControlPlane
from controlplane.demo.ports import free_port
from controlplane.generated.turnout.v1.gateway_pb2 import BodyRouting, Gateway, HeaderRouting, HostRouting
from controlplane.generated.turnout.v1.model_pb2 import Endpoint, Model, Version
from controlplane.generated.turnout.v1.model_service_pb2 import ModelUndo, UndoModelsRequest
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest
from tests.envoy.test_body_gateway import binary
from tests.fakes.open_inference_server import open_inference_server
from tests.sdks.environments import sdk_python
from tests.sdks.servers import kserve_server, mlflow_server, mlserver

pytestmark = pytest.mark.envoy

# The gateway that a kind of call uses.
GATEWAYS = {
    "triton-http": "path",
    "triton-http-json": "path",
    "triton-grpc": "body",
    "triton-stream": "body",
    "mlserver-stream": "body",
    "generate-stream": "path",
    "websocket": "path",
    "kserve-http": "path",
    "kserve-v1": "path",
    "kserve-grpc": "body",
    "mlflow-header": "header",
    "mlflow-host": "host",
}
ENDLESS = ("triton-stream", "mlserver-stream", "generate-stream")  # streams without other calls
STREAMS = (*ENDLESS, "websocket")


class Caller:
    """A process that calls a model with the SDKs of an environment, and the answers so far."""

    def __init__(self, process: asyncio.subprocess.Process, kinds: Sequence[str]) -> None:
        self.process = process
        self.reading = asyncio.create_task(self._read())
        # By kind of call, with `-preview` if it asked for green: how often each version answered.
        self.answers: dict[str, Counter[str]] = {kind: Counter() for kind in kinds if kind not in ENDLESS}
        self.answers |= {f"{kind}-preview": Counter() for kind in self.answers}
        # By kind of stream: the versions that answered on it, once it has ended. None before the first answer.
        self.streams: dict[str, str | None] = dict.fromkeys(kind for kind in kinds if kind in STREAMS)
        self.errors: list[str] = []

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            kind, _, text = line.decode().strip().partition(" ")
            if text.startswith("FAILED"):
                self.errors.append(f"{kind} {text}")
            elif text.startswith("stream"):
                self.streams[kind] = text.removeprefix("stream").strip()
            else:
                self.answers[kind][text] += 1

    async def more(self, count: int, version: str = "") -> None:
        """Wait for more answers of each kind: from green to a preview, and from this version to the others, if given."""
        deadline = time.monotonic() + 60
        before = {kind: answers.copy() for kind, answers in self.answers.items()}

        def missing(kind: str) -> bool:
            wanted = "green" if kind.endswith("-preview") else version
            return sum(n for v, n in (self.answers[kind] - before[kind]).items() if wanted in (v, "")) < count

        while None in self.streams.values() or any(missing(kind) for kind in self.answers):
            assert not self.errors
            assert self.process.returncode is None
            assert time.monotonic() < deadline, f"no more answers: {self.answers}, {self.streams}"
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """End the calls, and check all answers."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), 30)
        except TimeoutError:
            pytest.fail(f"calls did not end: {self.answers}, {self.streams}, {self.errors}")
        await self.reading
        assert not self.errors
        for kind, answers in self.answers.items():
            assert answers.keys() <= ({"green"} if kind.endswith("-preview") else {"blue", "green"}), kind
        # Each stream began on blue, and stayed there.
        assert self.streams == dict.fromkeys(self.streams, "blue")


@asynccontextmanager
async def caller(python: str, kinds: Sequence[str], ports: Mapping[str, int]) -> AsyncIterator[Caller]:
    """Run a caller of these kinds. `ports` are those of the gateways."""
    process = await asyncio.create_subprocess_exec(
        python,
        str(Path(__file__).with_name("caller.py")),
        *(f"{kind}=localhost:{ports[GATEWAYS[kind]]}" for kind in kinds),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    result = Caller(process, kinds)
    try:
        yield result
    finally:
        if process.returncode is None:
            process.kill()
        await result.reading


def endpoint(port: int, grpc_port: int | None = None) -> Endpoint:
    return Endpoint(host="127.0.0.1", port=port, grpc_port=grpc_port)


def manifest(versions: Mapping[str, Endpoint], ports: Mapping[str, int]) -> Manifest:
    """Return one model on a gateway of each kind."""
    routing: dict[str, dict[str, Any]] = {
        "path": {},
        "body": {"body": BodyRouting(default_model="iris")},
        "header": {"header": HeaderRouting(name="x-model")},
        "host": {"host": HostRouting()},
    }
    model = Model(name="iris", keys=["iris", "localhost"], gateways=list(ports), split={"blue": 10_000})
    model.preview_header = "x-model-version"
    model.versions.extend(Version(name=name, endpoints=[endpoint]) for name, endpoint in versions.items())
    gateways = [Gateway(name=name, address="127.0.0.1", port=port, **routing[name]) for name, port in ports.items()]
    return Manifest(gateways=gateways, models=[model])


async def move_traffic(
    directory: Path,
    environments: Mapping[str, Sequence[str]],
    versions: Mapping[str, Endpoint],
    *,
    envoy_version: str = "newest",
    count: int = 10,
) -> None:
    """Call one model while its traffic moves. `environments` have the kinds of calls. `count` is of calls between moves."""
    pythons = {name: sdk_python(name) for name in environments}
    gateways = sorted({GATEWAYS[kind] for kinds in environments.values() for kind in kinds})
    ports = {gateway: free_port() for gateway in gateways}
    async with ControlPlane() as plane, AsyncExitStack() as stack:
        await plane.apply(manifest(versions, ports))
        bootstrap = node_bootstrap("edge", "edge", xds_port=plane.xds_port, admin_port=0)
        envoy = await stack.enter_async_context(Envoy(bootstrap, directory=directory, binary=binary(envoy_version)))
        await envoy.ready()
        await plane.held(1, nodes=1)

        async def split(**shares: int) -> None:
            await plane.held(await plane.split("iris", shares), nodes=1)

        callers = [
            await stack.enter_async_context(caller(pythons[name], kinds, ports)) for name, kinds in environments.items()
        ]

        async def more(version: str = "") -> None:
            await asyncio.gather(*(c.more(count, version) for c in callers))

        await more("blue")
        await split(green=10_000)
        await more("green")
        await split(blue=5_000, green=5_000)
        await more()
        undo = UndoModelsRequest(undos=[ModelUndo(model="models/iris")], force=True)
        answer = await plane.models.UndoModels(undo, timeout=30)
        await plane.held(answer.revision.number, nodes=1)
        await more("green")
        await split(blue=10_000)
        await more("blue")
        await asyncio.gather(*(c.stop() for c in callers))


@pytest.mark.timeout(170)
@pytest.mark.parametrize("version", ["newest", "oldest"])
async def test_tritonclient_and_websockets(tmp_path: Path, version: str) -> None:
    kinds = ("triton-http", "triton-grpc", "triton-stream", "websocket")
    async with open_inference_server("blue") as blue, open_inference_server("green") as green:
        versions = {"blue": endpoint(*blue), "green": endpoint(*green)}
        await move_traffic(tmp_path, {"clients": kinds}, versions, envoy_version=version, count=3)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_mlserver(tmp_path: Path) -> None:
    environments = {
        "clients": ("triton-http-json", "triton-grpc", "mlserver-stream", "generate-stream"),
        "kserve": ("kserve-http", "kserve-grpc"),
    }
    async with mlserver("blue", tmp_path / "blue") as blue, mlserver("green", tmp_path / "green") as green:
        await move_traffic(tmp_path, environments, {"blue": endpoint(*blue), "green": endpoint(*green)})


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_kserves_server(tmp_path: Path) -> None:
    environments = {"clients": ("triton-http", "triton-grpc"), "kserve": ("kserve-http", "kserve-v1", "kserve-grpc")}
    async with kserve_server("blue", tmp_path / "blue") as blue, kserve_server("green", tmp_path / "green") as green:
        await move_traffic(
            tmp_path, environments, {"blue": endpoint(*blue), "green": endpoint(*green)}, envoy_version="oldest"
        )


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_mlflows_scoring_server(tmp_path: Path) -> None:
    async with mlflow_server("blue", tmp_path / "blue") as blue, mlflow_server("green", tmp_path / "green") as green:
        versions = {"blue": endpoint(blue), "green": endpoint(green)}
        await move_traffic(tmp_path, {"mlflow": ("mlflow-header", "mlflow-host")}, versions)

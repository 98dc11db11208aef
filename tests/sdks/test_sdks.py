"""SDKs that people use, through real Envoys: a switch, a split, a preview and an undo lose no request and end no stream."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from controlplane.demo.plane import ControlPlane
from controlplane.demo.ports import free_port
from controlplane.generated.turnout.v1.gateway_pb2 import BodyRouting, Gateway
from controlplane.generated.turnout.v1.model_pb2 import Endpoint, Model, Version
from controlplane.generated.turnout.v1.model_service_pb2 import (
    ModelUndo,
    Split,
    SwitchTrafficRequest,
    TrafficSwitch,
    UndoModelsRequest,
)
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest
from tests.fakes.open_inference_server import open_inference_server
from tests.sdks.environments import sdk_python

pytestmark = pytest.mark.envoy


@dataclass
class Caller:
    """A process that calls a model with an SDK, and the answers so far by version."""

    kind: str
    process: asyncio.subprocess.Process
    answers: Counter[str] = field(default_factory=Counter)
    streams: list[str] = field(default_factory=list)

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            text = line.decode().strip()
            if text.startswith("stream "):
                self.streams.append(text.removeprefix("stream "))
            else:
                self.answers[text] += 1

    async def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        await asyncio.wait_for(self.process.wait(), 30)


@asynccontextmanager
async def caller(kind: str, python: str, port: int) -> AsyncIterator[Caller]:
    process = await asyncio.create_subprocess_exec(
        python,
        str(Path(__file__).with_name("caller.py")),
        kind,
        f"127.0.0.1:{port}",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    result = Caller(kind, process)
    reading = asyncio.create_task(result.read())
    try:
        yield result
    finally:
        if process.returncode is None:
            process.kill()
        await reading


async def change_traffic_under(kinds: Sequence[tuple[str, str]], ports: dict[str, tuple[int, int]]) -> None:
    """Call one model with each kind, in an environment, while its traffic moves. `ports` are (HTTP, gRPC) by version."""
    async with ControlPlane() as plane, plane.envoy("edge") as envoy, AsyncExitStack() as stack:
        http, grpc = free_port(), free_port()
        manifest = Manifest()
        manifest.gateways.append(Gateway(name="http", address="127.0.0.1", port=http))
        body = BodyRouting(default_model="iris")
        manifest.gateways.append(Gateway(name="grpc", address="127.0.0.1", port=grpc, body=body))
        versions = [
            Version(name=name, endpoints=[Endpoint(host="127.0.0.1", port=port, grpc_port=grpc_port)])
            for name, (port, grpc_port) in ports.items()
        ]
        model = Model(name="iris", gateways=["http", "grpc"], versions=versions, split={"blue": 10_000})
        model.preview_header = "x-model-version"
        manifest.models.append(model)
        await plane.apply(manifest)
        await envoy.ready()
        await plane.held(1, nodes=1)

        async def split(**shares: int) -> None:
            """Move the traffic of both protocols."""
            switch = TrafficSwitch(model="models/iris", split=Split(shares=shares))
            answer = await plane.models.SwitchTraffic(SwitchTrafficRequest(switches=[switch], force=True), timeout=30)
            await plane.held(answer.revision.number, nodes=1)

        callers = [
            await stack.enter_async_context(
                caller(k, sdk_python(environment), grpc if "grpc" in k or k == "triton-stream" else http)
            )
            for k, environment in kinds
        ]

        async def more(version: str = "") -> None:
            """Wait until each caller has three more answers, with the version if it is not a preview."""
            counted = [c for c in callers if c.kind != "triton-stream"]
            before = {c.kind: c.answers.copy() for c in counted}
            async with asyncio.timeout(60):
                for c in counted:
                    wanted = "green" if c.kind.endswith("-preview") else version
                    while (c.answers - before[c.kind])[wanted] < 3 if wanted else (c.answers - before[c.kind]).total() < 3:
                        assert not [a for a in c.answers if a.startswith("FAILED")], (c.kind, c.answers)
                        assert c.process.returncode is None, c.kind
                        await asyncio.sleep(0.02)

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
        await asyncio.sleep(0)
        for c in callers:
            allowed = {"green"} if c.kind.endswith("-preview") else {"blue", "green"}
            assert c.answers.keys() <= allowed, c.kind
            if c.kind in ("triton-stream", "websocket"):
                assert c.streams == ["blue"], c.kind  # the stream began on blue, and stayed there


@pytest.mark.timeout(170)
async def test_tritonclient_and_websockets() -> None:
    names = ("triton-http", "triton-grpc", "triton-http-preview", "triton-grpc-preview", "triton-stream", "websocket")
    async with open_inference_server("blue") as blue, open_inference_server("green") as green:
        await change_traffic_under([(k, "clients") for k in names], {"blue": blue, "green": green})

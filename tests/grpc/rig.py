"""A rig with real proxyless gRPC clients (programs in Python and Node), the servers that they call, and the control plane."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from controlplane.compiler.bootstrap import grpc_bootstrap
from controlplane.demo.plane import ControlPlane
from controlplane.domain import Locality
from controlplane.generated.turnout.v1.gateway_pb2 import Gateway, NodeSelector
from controlplane.generated.turnout.v1.model_pb2 import PROTOCOL_GRPC, Endpoint, Model, Version
from controlplane.generated.turnout.v1.node_pb2 import Node
from controlplane.generated.turnout.v1.node_service_pb2 import ListNodesRequest
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest
from tests.tools import npm_modules, program

# With this setting, gRPC's C core fails calls at once when the server reports that a name does not exist (gRFC A88; seen with
# 1.85). Without it, and in Node (1.14), calls fail after 15 s.
DATA_ERRORS = {"GRPC_EXPERIMENTAL_XDS_DATA_ERROR_HANDLING": "true"}

HERE = Path(__file__).parent
NODE = HERE / "node"


def command(kind: str) -> list[str]:
    """Return the command that starts a caller. Skip the test if Node is missing."""
    if kind == "python":
        return [sys.executable, str(HERE / "caller.py")]
    node = program("node", "gRPC's client for Node is not tested")
    npm_modules(NODE)
    return [node, str(NODE / "caller.js")]


@dataclass
class CallResult:
    """The answers to some calls, counted by the server that answered or by error, and the time of all calls."""

    counts: Counter[str]
    seconds: float


@dataclass
class Caller:
    """A program that calls models. `node` is its node id."""

    node: str
    process: asyncio.subprocess.Process

    async def run(self, command: str, **arguments: Any) -> CallResult:
        """Send a command to the program, and return its answer. `caller.py` lists the commands."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"command": command, **arguments}).encode() + b"\n")
        async with asyncio.timeout(60):
            line = await self.process.stdout.readline()
        assert line, "the caller ended"
        answer = json.loads(line)
        return CallResult(Counter(answer["counts"]), answer["seconds"])

    async def call(self, model: str = "iris", times: int = 1, metadata: Mapping[str, str] | None = None) -> CallResult:
        return await self.run("call", target=f"xds:///{model}", times=times, metadata=metadata or {})

    async def until(self, version: str, model: str = "iris", times: int = 1) -> None:
        """Call until this version answers `times` calls in a row. A client uses a response a moment after it has ACKed it."""
        async with asyncio.timeout(15):
            while (await self.call(model, times)).counts.keys() != {version}:
                pass


@dataclass
class Rig:
    """The control plane, and servers that answer with their version's name."""

    plane: ControlPlane
    directory: Path
    stack: AsyncExitStack
    ports: Mapping[str, int] = field(default_factory=dict)

    def manifest(self, *models: Model, gateways: tuple[Gateway, ...] = (Gateway(name="edge", port=10000),)) -> Manifest:
        return Manifest(gateways=gateways, models=models or [self.model()])

    def model(self, name: str = "iris", **more: Any) -> Model:
        """Return a model of two versions, with all traffic on blue. `more` are further fields, or other values of these."""
        versions = [self.version(v) for v in ("blue", "green")]
        return Model(name=name, gateways=["edge"], **{"versions": versions, "split": {"blue": 10_000}, **more})

    def version(self, name: str, host: str = "127.0.0.1") -> Version:
        return Version(name=name, protocol=PROTOCOL_GRPC, endpoints=[Endpoint(host=host, port=self.ports[name])])

    async def caller(self, kind: str, node: str = "app-1", env: Mapping[str, str] = {}, **more: Any) -> Caller:
        """Start a caller. `more` are arguments of its bootstrap."""
        file = self.directory / f"{node}.json"
        file.write_text(json.dumps(grpc_bootstrap(node, xds_port=self.plane.xds_port, **more)))
        environment = {**os.environ, "GRPC_XDS_BOOTSTRAP": str(file), "GRPC_VERBOSITY": "NONE", **env}
        process = await asyncio.create_subprocess_exec(
            *command(kind), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment
        )

        async def end() -> None:
            if process.returncode is None:
                process.kill()
            await process.wait()

        self.stack.push_async_callback(end)
        return Caller(node, process)

    async def nodes(self) -> dict[str, Node]:
        response = await self.plane.nodes.ListNodes(ListNodesRequest())
        return {n.id: n for n in response.nodes}


async def _server(name: str) -> tuple[grpc.aio.Server, int]:
    async def which(_: bytes, context: Any) -> bytes:
        return name.encode()

    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(which)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("turnout.test.Model", {"Which": method})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


@asynccontextmanager
async def serving(directory: Path, options: Sequence[str] = ()) -> AsyncIterator[Rig]:
    """Run a control plane with further `options`, and a server for each version."""
    async with AsyncExitStack() as stack:
        rig = Rig(await stack.enter_async_context(ControlPlane(options=options)), directory, stack)
        ports = {}
        for name in ("blue", "green"):
            server, ports[name] = await _server(name)
            stack.push_async_callback(server.stop, 0)
        rig.ports = ports
        yield rig


__all__ = ["DATA_ERRORS", "CallResult", "Caller", "Gateway", "Locality", "NodeSelector", "Rig", "serving"]

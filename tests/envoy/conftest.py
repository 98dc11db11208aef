"""Fixtures for tests with real Envoys: a `turnout serve` process, an Envoy of each xDS variant, and cheap upstreams."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from controlplane.demo.envoy import Envoy
from controlplane.demo.lean import LeanServer
from controlplane.demo.load import Group, Load
from controlplane.demo.plane import ControlPlane
from controlplane.demo.ports import free_port
from controlplane.generated.turnout.v1.gateway_pb2 import Gateway, NodeSelector
from controlplane.generated.turnout.v1.model_pb2 import Endpoint, Model, Sticky, Version
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest

MODEL = "digits"
PATH = f"/v2/models/{MODEL}/infer"


@dataclass
class Fleet:
    """Envoys of both xDS variants. Each has its own gateway, because they share one machine."""

    control_plane: ControlPlane
    # By node id.
    envoys: Mapping[str, Envoy]
    # The port of each Envoy's gateway, by node id.
    ports: Mapping[str, int]

    def manifest(self, upstreams: Mapping[str, int], sticky: Sticky | None = None) -> Manifest:
        """Return a manifest with every gateway, and one model with all traffic on its first version."""
        manifest = Manifest()
        for node, port in self.ports.items():
            manifest.gateways.append(Gateway(name=node, address="127.0.0.1", port=port, nodes=NodeSelector(ids=[node])))
        versions = [Version(name=v, endpoints=[Endpoint(host="127.0.0.1", port=p)]) for v, p in upstreams.items()]
        first = versions[0].name
        manifest.models.append(
            Model(name=MODEL, gateways=list(self.ports), versions=versions, split={first: 10_000}, sticky=sticky)
        )
        return manifest

    async def start(self) -> None:
        """Start all Envoys, and wait until they are ready and listen."""
        await asyncio.gather(*(e.start() for e in self.envoys.values()))
        await asyncio.gather(*(e.ready() for e in self.envoys.values()))
        await asyncio.gather(*(e.listens(self.ports[node]) for node, e in self.envoys.items()))

    def groups(self, *, path: str = PATH, name: str = "", http2: bool = False, **more: int | float | str) -> list[Group]:
        """Return the same group of callers for each Envoy."""
        return [
            Group("127.0.0.1", port, path, name=f"{name}@{node}", http2=http2, **more)  # type: ignore[arg-type]
            for node, port in self.ports.items()
        ]


@pytest.fixture
async def control_plane() -> AsyncIterator[ControlPlane]:
    async with ControlPlane() as plane:
        yield plane


@pytest.fixture
async def lean() -> AsyncIterator[LeanServer]:
    async with LeanServer() as server:
        yield server


@pytest.fixture
async def fleet(control_plane: ControlPlane) -> AsyncIterator[Fleet]:
    """One Envoy of each xDS variant, not started."""
    async with AsyncExitStack() as stack:
        envoys = {"delta": control_plane.envoy("delta", "delta"), "sotw": control_plane.envoy("sotw", "sotw")}
        for envoy in envoys.values():
            stack.push_async_callback(envoy.close)
        yield Fleet(control_plane, envoys, {node: free_port() for node in envoys})


MakeLoad = Callable[..., Load]


@pytest.fixture
async def make_load() -> AsyncIterator[MakeLoad]:
    """Make loads that are closed after the test."""
    loads: list[Load] = []

    def make(groups: Sequence[Group], *, users: int = 2000, passes: int = 0) -> Load:
        loads.append(Load(groups, users=users, passes=passes))
        return loads[-1]

    yield make
    for load in loads:
        await load.close()


Report = Callable[[str], None]


@pytest.fixture
def report(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Report:
    """Print a measurement, although pytest captures the output. `make soak` records it."""

    def write(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{request.node.name}: {text}\n")

    return write

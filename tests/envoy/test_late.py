"""An Envoy that comes late, restarts, or misses 100 revisions gets only the newest one. Nothing is sent twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane.compiler.bootstrap import node_bootstrap
from controlplane.demo.envoy import Envoy
from controlplane.demo.lean import LeanServer
from controlplane.demo.load import Group
from controlplane.demo.plane import ControlPlane
from controlplane.demo.ports import free_port
from controlplane.generated.turnout.v1.node_service_pb2 import ListNodesRequest
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest
from tests.envoy.conftest import MODEL, PATH, Fleet, MakeLoad

pytestmark = pytest.mark.envoy

ROUTES = f"rds.{MODEL}"


class Relay:
    """A TCP relay to the control plane that can be interrupted: it then drops connections, and closes new ones at once."""

    def __init__(self, port: int) -> None:
        self._target_port = port
        self._interrupted = False
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def interrupt(self) -> None:
        self._interrupted = True
        for writer in self._writers:
            writer.transport.abort()

    def restore(self) -> None:
        self._interrupted = False

    def close(self) -> None:
        self.interrupt()
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._interrupted:
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers |= {writer, far_writer}
        await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer))
        self._writers -= {writer, far_writer}

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.fixture
async def relay(control_plane: ControlPlane) -> AsyncIterator[Relay]:
    relay = Relay(control_plane.xds_port)
    yield relay
    relay.close()


async def updates(envoy: Envoy) -> dict[str, int]:
    """Count the updates that an Envoy accepted, by stat: `cds`, `lds`, `rds.MODEL`, `scoped_rds.GATEWAY`, a cluster."""
    stats = await envoy.stats("update_success$")
    accepted: dict[str, int] = {}
    for name, count in stats.items():
        stat = name.removesuffix(".update_success").split(".", 2 if name.startswith("http.") else 1)[-1]
        if count:
            accepted[stat] = count
    return accepted


async def versions_reached(fleet: Fleet, node: str, make_load: MakeLoad) -> set[str | None]:
    """Return the versions that users reach through an Envoy."""
    load = make_load([Group("127.0.0.1", fleet.ports[node], PATH, connections=1)], users=20, passes=1)
    await load.start()
    return {r.version for r in (await load.finish()).requests}


async def make_revisions(plane: ControlPlane, count: int = 100) -> int:
    """Make `count` revisions that move a little traffic, and in the last one all of it to green. Return its number."""
    for i in range(count - 1):
        await plane.split(MODEL, {"blue": 9_999 - i, "green": i + 1})
    return await plane.split(MODEL, {"green": 10_000})


async def test_a_late_or_restarted_envoy_gets_only_the_newest_revision(
    fleet: Fleet, lean: LeanServer, make_load: MakeLoad
) -> None:
    plane = fleet.control_plane
    await plane.apply(fleet.manifest(lean.ports))
    assert await make_revisions(plane) == 101
    await fleet.start()  # late: after all revisions
    await plane.held(101, nodes=2)
    for node, envoy in fleet.envoys.items():
        assert set((seen := await updates(envoy)).values()) == {1}, seen
        assert seen[ROUTES] == 1
        assert await versions_reached(fleet, node, make_load) == {"green"}

    await asyncio.gather(*(envoy.kill() for envoy in fleet.envoys.values()))
    last = await plane.split(MODEL, {"blue": 10_000})
    await fleet.start()  # restarted
    await plane.held(last, nodes=2)
    for node, envoy in fleet.envoys.items():
        assert set((seen := await updates(envoy)).values()) == {1}, seen
        assert await versions_reached(fleet, node, make_load) == {"blue"}


@pytest.mark.parametrize("variant", ["delta", "sotw"])
async def test_an_envoy_that_misses_100_revisions_gets_only_the_newest_one(
    control_plane: ControlPlane, relay: Relay, lean: LeanServer, make_load: MakeLoad, variant: str
) -> None:
    kind = "delta" if variant == "delta" else "sotw"
    boot = node_bootstrap("away", "test", xds_port=await relay.start(), variant=kind, admin_port=0)  # type: ignore[arg-type]
    envoy = Envoy(boot)
    fleet = Fleet(control_plane, {"away": envoy}, {"away": free_port()})
    try:
        await control_plane.apply(fleet.manifest(lean.ports))
        await fleet.start()
        await control_plane.held(1, nodes=1)
        before = await updates(envoy)
        relay.interrupt()
        last = await make_revisions(control_plane)
        assert await versions_reached(fleet, "away", make_load) == {"blue"}  # the state before the interruption
        relay.restore()
        await control_plane.held(last, nodes=1)
        assert await versions_reached(fleet, "away", make_load) == {"green"}
        after = await updates(envoy)
        assert after[ROUTES] == before[ROUTES] + 1
        if variant == "delta":  # its first request named the versions that it had, so nothing else was sent
            assert after == before | {ROUTES: before[ROUTES] + 1}
    finally:
        await envoy.close()


async def test_an_envoy_that_is_too_slow_for_100_revisions_skips_to_the_newest_one(
    fleet: Fleet, lean: LeanServer, make_load: MakeLoad
) -> None:
    plane = fleet.control_plane
    await plane.apply(fleet.manifest(lean.ports))
    await fleet.start()
    await plane.held(1, nodes=2)
    before = {node: (await updates(envoy))[ROUTES] for node, envoy in fleet.envoys.items()}
    for envoy in fleet.envoys.values():
        os.kill(envoy.process.pid, signal.SIGSTOP)
    try:
        last = await make_revisions(plane)  # writes don't wait for nodes that don't answer
        async with asyncio.timeout(10):
            while True:
                nodes = (await plane.nodes.ListNodes(ListNodesRequest())).nodes
                if [n.target_revision for n in nodes] == [last, last]:
                    break
                await asyncio.sleep(0.02)
    finally:
        for envoy in fleet.envoys.values():
            os.kill(envoy.process.pid, signal.SIGCONT)
    await plane.held(last, nodes=2)
    for node, envoy in fleet.envoys.items():
        # Two updates: the one that was in flight when the Envoy stopped, and the newest.
        assert (await updates(envoy))[ROUTES] == before[node] + 2
        assert await versions_reached(fleet, node, make_load) == {"green"}


async def test_a_restarted_control_plane_sends_nothing_to_an_up_to_date_delta_envoy(fleet: Fleet, lean: LeanServer) -> None:
    plane = fleet.control_plane
    await plane.apply(fleet.manifest(lean.ports))
    await fleet.start()
    last = await plane.split(MODEL, {"green": 10_000})
    await plane.held(last, nodes=2)
    delta = fleet.envoys["delta"]
    before = await delta.stats(r"update_(success|attempt|rejected|failure)$|version$|config_reload$")
    for restart in (plane.kill, plane.stop):
        await restart()
        await plane.start()
        progress = await plane.held(last, nodes=2)  # both have connected again, and hold it
        assert progress.holding == 2
    after = await delta.stats(r"update_(success|attempt|rejected|failure)$|version$|config_reload$")
    accepted = {name: n for name, n in after.items() if name.endswith(("update_success", "update_rejected", "version"))}
    assert accepted == {name: before[name] for name in accepted}
    assert any(n for name, n in accepted.items() if name.endswith(f"{ROUTES}.update_success"))


SLOW = "/slow"


@contextlib.asynccontextmanager
async def slow_health(seconds: float) -> AsyncIterator[int]:
    """Serve the version green on a port. A request for SLOW is answered after this time."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(seconds if head.split(b" ")[1] == SLOW.encode() else 0)
                writer.write(b"HTTP/1.1 200 OK\r\nx-model-version: green\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def apply_while_away(plane: ControlPlane, manifest: Manifest, happens: str) -> int:
    """Apply a manifest while no Envoy is connected, and return the revision. `happens` is what else happens in that time."""
    if happens == "restarts":
        await plane.stop()
        await plane.start()
        revision = await plane.apply(manifest)
        await plane.stop()
        await plane.start()
        return revision
    if happens == "new worker":  # which has never served the Envoy
        for child in children(plane):
            os.kill(child, signal.SIGKILL)
    return await plane.apply(manifest)


def children(plane: ControlPlane) -> list[int]:
    """Return the process ids of the workers of a control plane."""
    pid = plane.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(("seconds", "happens"), [(0, ""), (3, ""), (1, "restarts"), (1, "new worker")])
async def test_an_envoy_that_was_away_while_its_version_was_removed_loses_no_request(
    lean: LeanServer, make_load: MakeLoad, seconds: int, happens: str
) -> None:
    """The health check of the new version takes some seconds. SotW brings no list of what the Envoy holds."""
    async with contextlib.AsyncExitStack() as stack:
        plane = await stack.enter_async_context(ControlPlane(workers=2 if happens == "new worker" else 0))
        relay = Relay(plane.xds_port)
        stack.callback(relay.close)
        envoy = Envoy(node_bootstrap("away", "test", xds_port=await relay.start(), variant="sotw", admin_port=0))
        stack.push_async_callback(envoy.close)
        fleet = Fleet(plane, {"away": envoy}, {"away": free_port()})
        await plane.apply(fleet.manifest({"blue": lean.ports["blue"]}))
        await fleet.start()
        await plane.held(1, nodes=1)
        load = make_load([Group("127.0.0.1", fleet.ports["away"], PATH, connections=4, rate=1000)], users=100)
        await load.start()
        relay.interrupt()
        replaced = fleet.manifest({"green": lean.ports["green"]})
        if seconds:
            green = replaced.models[0].versions[0]
            green.endpoints[0].port = await stack.enter_async_context(slow_health(seconds))
            green.health_check.path = SLOW
            green.health_check.timeout.FromSeconds(2 * seconds)
        last = await apply_while_away(plane, replaced, happens)
        relay.restore()
        await plane.held(last, nodes=1)
        assert await versions_reached(fleet, "away", make_load) == {"green"}
        records = await load.stop()
        assert records.failed == 0, records.failures
        assert "blue" in records.by_version()
        assert not await envoy.stats(f"^cluster.{MODEL}/blue.membership_total")

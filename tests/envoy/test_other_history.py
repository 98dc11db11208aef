"""Real Envoys at a control plane that has another history than theirs: a lost store, and a restored backup."""

from __future__ import annotations

import asyncio
import json
import shutil
from typing import Any

import pytest

from controlplane.demo.lean import LeanServer
from controlplane.demo.plane import ControlPlane
from controlplane.demo.ports import free_port
from controlplane.generated.turnout.v1.node_service_pb2 import AdoptNodesRequest, ListNodesRequest
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest
from controlplane.generated.turnout.v1.status_service_pb2 import GetStatusRequest
from tests.envoy.conftest import MODEL, PATH, Fleet, MakeLoad

pytestmark = pytest.mark.envoy

MODELS = 10


async def problems(plane: ControlPlane) -> dict[str, str]:
    """Return the text of each problem by its reason."""
    status = (await plane.status.GetStatus(GetStatusRequest(), timeout=10)).status
    return {p.reason: p.text for p in status.problems}


def logged(plane: ControlPlane, event: str) -> list[dict[str, Any]]:
    """Return the log lines of an event whose text begins so."""
    lines = [json.loads(line) for line in plane.process.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"].startswith(event)]


async def until_listed(plane: ControlPlane, nodes: int) -> None:
    """Wait until so many nodes are connected."""
    async with asyncio.timeout(30):
        while True:
            summary = (await plane.nodes.ListNodes(ListNodesRequest(), timeout=10)).summary
            if summary.synced + summary.behind + summary.refusing == nodes:
                return
            await asyncio.sleep(0.05)


async def held_names(fleet: Fleet) -> dict[str, tuple[int, ...]]:
    """Return by node the numbers of clusters and listeners that its Envoy has over xDS, and of those that it removed."""
    held = {}
    for node, envoy in fleet.envoys.items():
        stats = await envoy.stats("(cluster|listener)_manager.*(active_clusters|total_listeners_active|removed)$")
        held[node] = tuple(stats[name] for name in sorted(stats))
    return held


def with_models(manifest: Manifest, count: int) -> Manifest:
    """Return a manifest with copies of its model, `count` models together."""
    copied = Manifest()
    copied.CopyFrom(manifest)
    for i in range(1, count):
        more = copied.models.add()
        more.CopyFrom(manifest.models[0])
        more.name = f"{MODEL}-{i}"
    return copied


async def until_held_back(plane: ControlPlane, nodes: int) -> None:
    """Wait until so many nodes are held back."""
    async with asyncio.timeout(30):
        while True:
            status = (await plane.status.GetStatus(GetStatusRequest(), timeout=10)).status
            if sum(p.object_count for p in status.problems if p.reason == "HELD_BACK") == nodes:
                return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("workers", [0, 2])
async def test_a_server_with_an_empty_store_takes_nothing_away(
    fleet: Fleet, lean: LeanServer, make_load: MakeLoad, workers: int
) -> None:
    """Ten models are served. The server comes back on an empty store: all Envoys go on, in both variants."""
    plane = fleet.control_plane
    plane.process.command += ["--workers", str(workers)] if workers else []
    revision = await plane.apply(with_models(fleet.manifest(lean.ports), MODELS))
    await fleet.start()
    await plane.held(revision, nodes=2)
    before = await held_names(fleet)
    load = make_load(fleet.groups(connections=4, rate=100))
    await load.start()
    await plane.stop()
    shutil.rmtree(plane.data)
    await plane.start()
    await until_listed(plane, 2)
    await asyncio.sleep(3)  # longer than a returning client has to say what it holds
    nodes = (await plane.nodes.ListNodes(ListNodesRequest(), timeout=10)).nodes
    found, after = await problems(plane), await held_names(fleet)
    report = await load.stop()
    assert after == before
    assert all(counts[0] > MODELS for counts in after.values())
    assert report.failed == 0
    assert len(report.requests) > 500
    assert found == {"NO_REVISION": "there is no revision yet: 2 nodes hold configuration of another history, and keep it"}
    assert {(n.id, n.held_revision, n.note) for n in nodes} == {
        (node, 0, "there is no revision yet, so the node keeps the configuration that it has") for node in fleet.envoys
    }
    assert {line["node"] for line in logged(plane, "no revision yet")} == set(fleet.envoys)


@pytest.mark.parametrize(("workers", "adopts"), [(0, False), (2, True)])
async def test_an_apply_on_an_empty_store_takes_nothing_from_the_envoys_that_come_back(
    fleet: Fleet, lean: LeanServer, make_load: MakeLoad, workers: int, adopts: bool
) -> None:
    """Ten models are served. The store is lost, and a file with one model is applied before an Envoy is back."""
    plane = fleet.control_plane
    one = fleet.manifest(lean.ports)
    revision = await plane.apply(with_models(one, MODELS))
    await fleet.start()
    await plane.held(revision, nodes=2)
    before = await held_names(fleet)
    load = make_load(fleet.groups(path=PATH.replace(MODEL, f"{MODEL}-9"), connections=4, rate=100))
    await load.start()
    await plane.stop()
    shutil.rmtree(plane.data)
    # The Envoys can't reach the server yet, because it listens elsewhere.
    command = list(plane.process.command)
    plane.process.command = [a.replace(f":{plane.xds_port}", f":{free_port()}") for a in command]
    await plane.start()
    assert await plane.apply(one) == 1
    await plane.stop()
    plane.process.command = [*command, "--workers", str(workers)]
    await plane.start()
    await until_held_back(plane, 2)
    await asyncio.sleep(3)  # longer than a returning client has to say what it holds
    found, after = await problems(plane), await held_names(fleet)
    assert after == before
    assert set(found) == {"HELD_BACK"}
    lost = ", ".join(f"{MODEL}-{i}" for i in range(1, MODELS))
    texts = [p.text for p in (await plane.status.GetStatus(GetStatusRequest(), timeout=10)).status.problems]
    assert [t for t in texts if t.startswith("nodes/delta")] == [
        "nodes/delta holds configuration of another history, and keeps it. It would lose with revision 1: models " + lost
    ]
    assert {line["node"] for line in logged(plane, "node is held back")} == set(fleet.envoys)
    nodes = (await plane.nodes.ListNodes(ListNodesRequest(), timeout=10)).nodes
    assert all(n.note.startswith("held back: ") and n.held_revision == 0 for n in nodes)
    # Other changes go on, without a permission, and the nodes stay held back.
    assert await plane.apply(with_models(one, 2)) == 2
    await until_held_back(plane, 2)
    assert await held_names(fleet) == before
    if adopts:
        report = await load.stop()
        names = [f"nodes/{node}" for node in fleet.envoys]
        assert (await plane.nodes.AdoptNodes(AdoptNodesRequest(names=names), timeout=10)).revision == 2
        await plane.held(2, nodes=2)
        assert await held_names(fleet) != before
    else:
        # What the Envoys hold cuts nothing, although nobody knows the names behind the versions of the SotW Envoy.
        await plane.apply(with_models(one, MODELS))
        await plane.held(3, nodes=2)
        assert await held_names(fleet) == before
        report = await load.stop()
    assert report.failed == 0
    assert len(report.requests) > 500
    assert "HELD_BACK" not in await problems(plane)


async def test_a_restored_backup_is_noticed(fleet: Fleet, lean: LeanServer) -> None:
    """A copy of the data directory is put back after more revisions: the Envoys have versions that it never made."""
    plane, copy = fleet.control_plane, fleet.control_plane.directory / "copy"
    await plane.apply(fleet.manifest(lean.ports))
    await fleet.start()
    await plane.held(1, nodes=2)
    await plane.split(MODEL, {"blue": 5_000, "green": 5_000})
    await plane.held(2, nodes=2)
    await plane.stop()
    shutil.copytree(plane.data, copy)
    # A restart with the same history, whatever is the newest revision, is no reason for a report.
    await plane.start()
    await plane.split(MODEL, {"green": 10_000})
    await plane.held(3, nodes=2)
    await plane.stop()
    await plane.start()
    await plane.held(3, nodes=2)
    assert "FOREIGN_VERSIONS" not in await problems(plane)
    assert logged(plane, "node holds a version") == []
    await plane.stop()
    shutil.rmtree(plane.data)
    shutil.copytree(copy, plane.data)
    await plane.start()
    await plane.held(2, nodes=2)
    text = (await problems(plane))["FOREIGN_VERSIONS"]
    assert text.endswith("came with versions that this history never made, and got revision 2 instead")
    assert {line["node"] for line in logged(plane, "node holds a version")} == set(fleet.envoys)

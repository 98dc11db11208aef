"""An Envoy that is away counts until it is released, also after a restart of the control plane."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
from google.protobuf.duration_pb2 import Duration

from controlplane.demo.plane import ControlPlane
from controlplane.demo.ports import free_port
from controlplane.generated.turnout.v1.gateway_pb2 import Gateway
from controlplane.generated.turnout.v1.model_pb2 import Endpoint, Model, Version
from controlplane.generated.turnout.v1.node_service_pb2 import ForgetNodesRequest
from controlplane.generated.turnout.v1.revision_pb2 import RevisionProgress
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest, WatchRevisionRequest

pytestmark = pytest.mark.envoy


def manifest(absent_after: int) -> Manifest:
    """Return a gateway whose nodes are released after so many seconds, and a model that answers nothing."""
    gateway = Gateway(name="edge", address="127.0.0.1", port=free_port(), absent_after=Duration(seconds=absent_after))
    versions = [Version(name=name, endpoints=[Endpoint(host="127.0.0.1", port=free_port())]) for name in ("blue", "green")]
    return Manifest(gateways=[gateway], models=[Model(name="iris", gateways=["edge"], versions=versions)])


async def newest(plane: ControlPlane, revision: int, *, done: bool) -> RevisionProgress:
    """Return the first progress in which some node holds a revision; with `done`, the last one, when it is done."""
    async for answer in plane.revisions.WatchRevision(WatchRevisionRequest(name=f"revisions/{revision}"), timeout=60):
        if answer.progress.complete if done else answer.progress.holding and not answer.progress.behind:
            return answer.progress
    raise AssertionError("the watch ended first")


async def test_an_envoy_that_was_killed_counts_after_a_restart_until_it_is_forgotten(control_plane: ControlPlane) -> None:
    async with control_plane.envoy("stays"):
        async with control_plane.envoy("dies"):
            await control_plane.held(await control_plane.apply(manifest(3_600)), 2)
        await control_plane.stop()
        await control_plane.start()
        revision = await control_plane.split("iris", {"green": 10_000})
        await control_plane.held(revision, 1)
        progress = await newest(control_plane, revision, done=False)
        assert (progress.total, progress.holding, progress.gone, progress.complete) == (2, 1, 1, False)
        assert progress.nodes[0].node == "nodes/dies"
        await control_plane.nodes.ForgetNodes(ForgetNodesRequest(names=["nodes/dies"]))
        progress = await newest(control_plane, revision, done=True)
        assert (progress.total, progress.holding, progress.gone) == (1, 1, 0)


@pytest.mark.slow
async def test_twenty_envoys_are_replaced_by_twenty_others(control_plane: ControlPlane) -> None:
    async with AsyncExitStack() as old:
        for i in range(20):
            await old.enter_async_context(control_plane.envoy(f"old-{i}"))
        await control_plane.held(await control_plane.apply(manifest(10)), 20, 120)
    async with AsyncExitStack() as new:
        for i in range(20):
            await new.enter_async_context(control_plane.envoy(f"new-{i}"))
        revision = await control_plane.split("iris", {"green": 10_000})
        await control_plane.held(revision, 20, 120)
        progress = await newest(control_plane, revision, done=True)
        assert (progress.total, progress.holding) == (20, 20)

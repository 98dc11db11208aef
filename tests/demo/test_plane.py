"""The control plane as a child process: it keeps ports and store over a restart, and waits for nodes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator

import pytest

from controlplane.demo import scenario
from controlplane.demo.plane import ControlPlane
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1.revision_service_pb2 import ListRevisionsRequest
from tests.fakes.xds_client import client


@pytest.fixture
async def plane() -> AsyncIterator[ControlPlane]:
    async with ControlPlane() as plane:
        yield plane


async def test_desired_state_survives_a_restart(plane: ControlPlane) -> None:
    manifest = scenario.manifest({"edge-1": 20_001}, {"blue": 8001, "green": 8002})
    assert await plane.apply(manifest, reason="first") == 1
    await plane.kill()
    await plane.start()
    assert await plane.split("digits", {"green": 10_000}) == 2
    listed = await plane.revisions.ListRevisions(ListRevisionsRequest())
    assert [revision.author for revision in listed.revisions] == ["demo", "demo"]


async def test_a_revision_is_held_once_enough_nodes_have_acked_it(plane: ControlPlane) -> None:
    revision = await plane.apply(scenario.manifest({"edge-1": 20_001}, {"blue": 8001}))
    with pytest.raises(Error, match=r"0 of 1 nodes hold revision 1 after 0\.5 s") as caught:
        await plane.held(revision, nodes=1, seconds=0.5)
    assert caught.value.code is Code.UNAVAILABLE
    async with client(plane.xds_port, "edge-1", "delta"):
        assert (await plane.held(revision, nodes=1)).holding == 1


async def test_a_control_plane_that_can_not_start_is_an_error_with_its_log(plane: ControlPlane) -> None:
    other = ControlPlane()
    other.process.command = [*other.process.command, "--api", plane.api]
    with pytest.raises(Error, match="is taken"):
        async with other:
            pass
    assert other.directory.name not in os.listdir(tempfile.gettempdir())

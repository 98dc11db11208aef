"""A store is lost and restored from a backup, while real Envoys serve: no request fails, and they get the backup's state."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import grpc
import pytest

from controlplane.demo.lean import LeanServer
from controlplane.demo.plane import ControlPlane
from controlplane.errors import Error
from controlplane.generated.turnout.v1.model_service_pb2 import GetModelRequest, SwitchTrafficRequest, TrafficSwitch
from controlplane.generated.turnout.v1.status_service_pb2 import GetStatusRequest
from tests.api.api import refused
from tests.envoy.conftest import MODEL, Fleet, MakeLoad

pytestmark = pytest.mark.envoy


async def turnout(plane: ControlPlane, *args: str | Path) -> str:
    """Run a command of the command line, and return what it prints."""
    process = await asyncio.create_subprocess_exec(*plane.command, *map(str, args), stdout=asyncio.subprocess.PIPE)
    printed = (await process.communicate())[0].decode()
    assert process.returncode == 0
    return printed


async def test_a_lost_store_is_refused_and_its_backup_is_restored_under_load(
    fleet: Fleet, lean: LeanServer, make_load: MakeLoad
) -> None:
    plane = fleet.control_plane
    backup = plane.directory / "backup.db"
    revision = await plane.apply(fleet.manifest(lean.ports))
    await fleet.start()
    await plane.held(revision, nodes=2)
    load = make_load(fleet.groups(connections=4, rate=100))
    await load.start()
    made = json.loads(await turnout(plane, "backup", backup, "--data", plane.data, "-o", "json"))
    assert made["revision"] == 1
    await plane.held(await plane.split(MODEL, {"green": 10_000}), nodes=2)
    lost_etag = (await plane.models.GetModel(GetModelRequest(name=f"models/{MODEL}"), timeout=10)).model.etag
    await plane.stop()
    (plane.data / "turnout.db").unlink()

    with pytest.raises(Error, match=r"shows signs of earlier use, and there is no store in it: turnout\.db is missing"):
        await plane.start()
    await turnout(plane, "restore", backup, "--data", plane.data)
    await plane.start()
    # The next revision has the number of the lost one.
    await plane.held(1, nodes=2)
    await asyncio.sleep(0.5)  # an Envoy's threads take a route over shortly after its ACK
    report = await load.stop()
    status = (await plane.status.GetStatus(GetStatusRequest(), timeout=10)).status
    assert "FOREIGN_VERSIONS" in {problem.reason for problem in status.problems}
    assert report.failed == 0
    assert len(report.requests) > 500
    answered = [request.version for request in sorted(report.requests, key=lambda request: request.start)]
    assert answered[0] == answered[-1] == "blue"
    assert "green" in answered
    target = TrafficSwitch(model=MODEL, version="green", etag=lost_etag)
    refusal = await refused(plane.models.SwitchTraffic(SwitchTrafficRequest(switches=[target]), timeout=10))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "OTHER_HISTORY")

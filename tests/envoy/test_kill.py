"""kill -9 of the control plane during writes: no acknowledged write is lost, and no request through the Envoys fails."""

from __future__ import annotations

import asyncio
import os
import random
import uuid

import grpc
import pytest

from controlplane.demo.lean import LeanServer
from controlplane.demo.plane import ControlPlane
from controlplane.generated.turnout.v1.model_service_pb2 import Split, SwitchTrafficRequest, TrafficSwitch
from controlplane.generated.turnout.v1.revision_pb2 import Revision
from controlplane.generated.turnout.v1.revision_service_pb2 import GetRevisionRequest, ListRevisionsRequest
from tests.envoy.conftest import MODEL, Fleet, MakeLoad, Report

pytestmark = pytest.mark.envoy

SOAK = int(os.environ.get("TURNOUT_SOAK_KILLS", "300"))
WRITERS = 2


class Writer:
    """Writes without a pause. It repeats each write with the same request id until the write is acknowledged."""

    def __init__(self, plane: ControlPlane, number: int) -> None:
        self.plane = plane
        self.number = number
        self.stop = False
        # By reason: the revision and green's share of each acknowledged write.
        self.acknowledged: dict[str, tuple[int, int]] = {}

    async def run(self) -> None:
        i = 0
        while not self.stop:
            i += 1
            # Never the share of the other writer, so that each write changes something.
            green = 1 + (i * WRITERS + self.number) % 9_998
            reason = f"writer {self.number}, write {i}"
            switch = TrafficSwitch(model=f"models/{MODEL}", split=Split(shares={"blue": 10_000 - green, "green": green}))
            request = SwitchTrafficRequest(switches=[switch], force=True, reason=reason, request_id=str(uuid.uuid4()))
            while True:
                try:
                    response = await self.plane.models.SwitchTraffic(request, timeout=10)
                    break
                except grpc.aio.AioRpcError as error:
                    # The process is gone, or ended during the call. Other errors must not occur.
                    if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                        raise
                    await asyncio.sleep(0.02)
            self.acknowledged[reason] = response.revision.number, green


async def history(plane: ControlPlane) -> list[Revision]:
    """Return all revisions, oldest first."""
    newest_first: list[Revision] = []
    token = ""
    while True:
        page = await plane.revisions.ListRevisions(ListRevisionsRequest(page_size=1000, page_token=token), timeout=30)
        newest_first += page.revisions
        if not (token := page.next_page_token):
            return newest_first[::-1]


@pytest.mark.parametrize(
    "kills",
    [
        4,
        pytest.param(12, marks=pytest.mark.slow),
        pytest.param(SOAK, marks=[pytest.mark.soak, pytest.mark.timeout(7200)], id="soak"),
    ],
)
async def test_no_acknowledged_write_is_lost(
    fleet: Fleet, lean: LeanServer, make_load: MakeLoad, report: Report, kills: int
) -> None:
    plane, rng = fleet.control_plane, random.Random(7)
    await plane.apply(fleet.manifest(lean.ports))
    await fleet.start()
    await plane.held(1, nodes=2)
    load = make_load([*fleet.groups(connections=4, rate=100), *fleet.groups(http2=True, connections=1, slots=4, rate=50)])
    await load.start()

    writers = [Writer(plane, number) for number in range(WRITERS)]
    tasks = [asyncio.create_task(writer.run()) for writer in writers]
    for _ in range(kills):
        await asyncio.sleep(rng.uniform(0, 0.5))
        await plane.kill()
        await plane.start()
    for writer in writers:
        writer.stop = True
    await asyncio.wait_for(asyncio.gather(*tasks), 30)
    last = await plane.split(MODEL, {"green": 10_000})
    progress = await plane.held(last, nodes=2, seconds=60)
    records = await load.stop()

    revisions = await history(plane)
    assert [r.number for r in revisions] == list(range(1, last + 1))  # no gap
    written = {r.reason: r.number for r in revisions if r.reason}
    acknowledged = {reason: number for writer in writers for reason, (number, _) in writer.acknowledged.items()}
    # The history has each write once, with the acknowledged number, and no others.
    assert written == acknowledged
    assert len(written) == last - 2
    for writer in writers:
        for number, green in random.Random(1).sample(list(writer.acknowledged.values()), 20):
            request = GetRevisionRequest(name=f"revisions/{number}", include_manifest=True)
            (model,) = (await plane.revisions.GetRevision(request)).manifest.models
            assert dict(model.split) == {"blue": 10_000 - green, "green": green}

    assert records.failed == 0, records.failures
    settled = records.by_version(since=progress.last_ack_time.ToNanoseconds() / 1e9)
    assert not settled["blue"]
    assert len(records.requests) > 100 * kills
    report(f"{kills} kills, {len(written)} acknowledged writes, {len(records.requests)} requests, 0 failed")

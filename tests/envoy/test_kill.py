"""kill -9 of the control plane in the middle of a stream of writes: nothing acknowledged is lost, and no Envoy notices."""

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
    """Writes without a pause, and says each thing until it is acknowledged, by one request id: it may be made once only."""

    def __init__(self, plane: ControlPlane, number: int) -> None:
        self.plane = plane
        self.number = number
        self.stop = False
        # What was acknowledged: reason -> (revision, share of green).
        self.acknowledged: dict[str, tuple[int, int]] = {}

    async def run(self) -> None:
        i = 0
        while not self.stop:
            i += 1
            # Never what the other writer says: each write changes something.
            green = 1 + (i * WRITERS + self.number) % 9_998
            reason = f"writer {self.number}, write {i}"
            switch = TrafficSwitch(model=f"models/{MODEL}", split=Split(shares={"blue": 10_000 - green, "green": green}))
            request = SwitchTrafficRequest(switches=[switch], force=True, reason=reason, request_id=str(uuid.uuid4()))
            while True:
                try:
                    answer = await self.plane.models.SwitchTraffic(request, timeout=10)
                    break
                except grpc.aio.AioRpcError as error:
                    # The process is gone, or was cut off in the middle of the call. Nothing else may come.
                    if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                        raise
                    await asyncio.sleep(0.02)
            self.acknowledged[reason] = answer.revision.number, green


async def history(plane: ControlPlane) -> list[Revision]:
    """All revisions, oldest first."""
    found: list[Revision] = []
    token = ""
    while True:
        page = await plane.revisions.ListRevisions(ListRevisionsRequest(page_size=1000, page_token=token), timeout=30)
        found += page.revisions
        if not (token := page.next_page_token):
            return found[::-1]


@pytest.mark.parametrize("kills", [8, pytest.param(SOAK, marks=[pytest.mark.soak, pytest.mark.timeout(7200)], id="soak")])
async def test_nothing_acknowledged_is_lost(
    fleet: Fleet, lean: LeanServer, make_load: MakeLoad, report: Report, kills: int
) -> None:
    plane, dice = fleet.control_plane, random.Random(7)
    await plane.apply(fleet.manifest(lean.ports))
    await fleet.start()
    await plane.held(1, nodes=2)
    load = make_load([*fleet.groups(connections=4, rate=100), *fleet.groups(http2=True, connections=1, slots=4, rate=50)])
    await load.start()

    writers = [Writer(plane, number) for number in range(WRITERS)]
    tasks = [asyncio.create_task(writer.run()) for writer in writers]
    for _ in range(kills):
        await asyncio.sleep(dice.uniform(0, 0.5))
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
    made = {r.reason: r.number for r in revisions if r.reason}
    acknowledged = {reason: number for writer in writers for reason, (number, _) in writer.acknowledged.items()}
    # Each write is there, once, with the number that was acknowledged, and nothing else is.
    assert made == acknowledged
    assert len(made) == last - 2
    for writer in writers:
        for number, green in random.Random(1).sample(list(writer.acknowledged.values()), 20):
            request = GetRevisionRequest(name=f"revisions/{number}", include_manifest=True)
            (model,) = (await plane.revisions.GetRevision(request)).manifest.models
            assert dict(model.split) == {"blue": 10_000 - green, "green": green}

    assert records.failed == 0, records.failures
    settled = records.by_version(since=progress.last_ack_time.ToNanoseconds() / 1e9)
    assert not settled["blue"]
    assert len(records.requests) > 100 * kills
    report(f"{kills} kills, {len(made)} acknowledged writes, {len(records.requests)} requests, 0 failed")

"""gRPC's own xDS clients report their load, as Envoys do."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from controlplane.generated.turnout.v1.traffic_service_pb2 import GetTrafficRequest
from tests.grpc.rig import serving


@pytest.mark.parametrize("kind", ["python", "node"])
async def test_a_client_reports_what_it_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("TURNOUT_LOAD_REPORT_INTERVAL", "1")
    async with serving(tmp_path) as rig:
        await rig.plane.apply(rig.manifest())
        app = await rig.caller(kind)
        async with asyncio.timeout(30):
            while True:
                assert (await app.call(times=20)).counts == {"blue": 20}
                seen: Any = await rig.plane.traffic.GetTraffic(GetTrafficRequest(name="models/iris"))
                of = {v.version: v for v in seen.traffic.versions}
                if of["blue"].rate.requests_per_second:
                    break
                await asyncio.sleep(0.1)
        assert (of["blue"].nodes, of["green"].nodes, of["green"].totals.requests) == (1, 0, 0)
        assert of["blue"].totals.successes > 0
        assert of["blue"].totals.errors == 0
        assert [(n.node, n.version) for n in seen.nodes] == [("nodes/app-1", "blue")]

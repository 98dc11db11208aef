"""Load reports of gRPC's own xDS clients."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from controlplane.generated.turnout.v1.traffic_service_pb2 import GetTrafficRequest
from tests.grpc.rig import serving


@pytest.mark.parametrize("kind", ["python", "node"])
async def test_a_client_reports_its_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("TURNOUT_LOAD_REPORT_INTERVAL", "1")
    async with serving(tmp_path) as rig:
        await rig.plane.apply(rig.manifest())
        app = await rig.caller(kind)
        async with asyncio.timeout(30):
            while True:
                assert (await app.call(times=20)).counts == {"blue": 20}
                traffic: Any = await rig.plane.traffic.GetTraffic(GetTrafficRequest(name="models/iris"))
                versions = {v.version: v for v in traffic.traffic.versions}
                if versions["blue"].rate.requests_per_second:
                    break
                await asyncio.sleep(0.1)
        assert (versions["blue"].nodes, versions["green"].nodes, versions["green"].totals.requests) == (1, 0, 0)
        assert versions["blue"].totals.successes > 0
        assert versions["blue"].totals.errors == 0
        assert [(n.node, n.version) for n in traffic.nodes] == [("nodes/app-1", "blue")]

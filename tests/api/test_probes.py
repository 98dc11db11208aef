"""Impacts with the probes of the versions that traffic moves to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.api.probes import probe_to_proto
from controlplane.generated.turnout.v1 import model_pb2, revision_pb2
from controlplane.generated.turnout.v1 import model_service_pb2 as mpb
from controlplane.generated.turnout.v1 import revision_service_pb2 as rpb
from controlplane.probe import Answer, EndpointProbe, Prober, VersionProbe
from tests.api.api import Api, gateway, model, serving, version
from tests.probe.servers import closed_port, server, silent


@pytest.fixture
async def probing(tmp_path: Path) -> AsyncIterator[Api]:
    """A server that probes loopback, with model `iris`, all traffic on blue. Green answers on one of two endpoints."""
    async with server(silent) as port, serving(tmp_path, prober=Prober(local=True)) as api:
        dead = f"127.0.0.1:{closed_port()}"
        versions = [version("blue", dead), version("green", f"127.0.0.1:{port}", dead), version("red", dead)]
        await api.apply(gateway(), model(versions=versions, split={"blue": 10_000}))
        yield api


async def switch(api: Api, to: str, **more: Any) -> revision_pb2.Impact:
    request = mpb.SwitchTrafficRequest(switches=[mpb.TrafficSwitch(model="iris", version=to)], force=True, **more)
    impact: revision_pb2.Impact = (await api.models.SwitchTraffic(request)).impact
    return impact


async def test_a_switch_to_a_version_that_does_not_answer_has_a_warning_before_and_after(probing: Api) -> None:
    for validate_only in (True, False):
        impact = await switch(probing, "red", validate_only=validate_only)
        (probe,) = impact.probes
        assert (probe.model, probe.version, probe.endpoints, probe.probed, probe.answering) == ("models/iris", "red", 1, 1, 0)
        (failure,) = probe.failures
        assert failure.reason == "connection refused"
        assert list(impact.warnings) == [
            f"as seen from the control plane, iris/red: 0 of 1 endpoint answers: {failure.endpoint} connection refused"
        ]
    assert probing.number == 2


async def test_endpoints_that_answer_are_counted(probing: Api) -> None:
    impact = await switch(probing, "green")
    assert [(p.version, p.endpoints, p.answering) for p in impact.probes] == [("green", 2, 1)]
    assert "1 of 2 endpoints answer" in impact.warnings[0]
    # Nothing changes, so nothing is probed.
    assert not (await switch(probing, "green")).probes


async def test_no_probe(probing: Api) -> None:
    impact = await switch(probing, "red", no_probe=True)
    assert not impact.probes
    assert not impact.warnings


async def test_files_and_going_back_probe_too(probing: Api) -> None:
    dead = f"127.0.0.1:{closed_port()}"
    moved = model(versions=[version("blue", dead), version("red", dead)], split={"red": 10_000})
    # The endpoints of a dry run are not in desired state, so they are not probed.
    assert not (await probing.apply(moved, force=True, validate_only=True)).impact.probes
    assert [p.version for p in (await probing.apply(moved, force=True)).impact.probes] == ["red"]
    back = await probing.revisions.RevertTo(rpb.RevertToRequest(name="revisions/1", force=True))
    assert [p.version for p in back.impact.probes] == ["blue"]


async def test_an_update_of_the_split_probes_too(probing: Api) -> None:
    update = mpb.UpdateModelRequest(model=model_pb2.Model(name="iris", split={"red": 10_000}), force=True)
    assert [p.version for p in (await probing.models.UpdateModel(update)).impact.probes] == ["red"]
    update.no_probe = True
    update.model.split.clear()
    update.model.split["green"] = 10_000
    assert not (await probing.models.UpdateModel(update)).impact.probes


async def test_a_probe_delays_only_the_answer_and_by_a_second_at_most(tmp_path: Path) -> None:
    async with server(silent) as port, serving(tmp_path, prober=Prober(local=True)) as api:
        hangs = version("green", f"127.0.0.1:{port}", health_check={"path": "/ready"})
        await api.apply(gateway(), model(versions=[version("blue", "127.0.0.1:1"), hangs], split={"blue": 10_000}))
        start = time.monotonic()
        call = asyncio.create_task(switch(api, "green"))
        async with asyncio.timeout(10):
            while api.number == 1:  # noqa: ASYNC110  there is no event to wait for
                await asyncio.sleep(0.001)
        # Envoys get the revision while the endpoint is still asked.
        assert not call.done()
        impact = await call
        assert 0.9 < time.monotonic() - start < 5
        assert impact.warnings[0].endswith("no answer within 1 s")


def test_message_of_a_probe() -> None:
    probe = VersionProbe("iris", "green", 9, (EndpointProbe("10.0.0.1:80", Answer.NO, "connection refused"),))
    assert probe_to_proto(probe) == revision_pb2.VersionProbe(
        model="models/iris",
        version="green",
        endpoints=9,
        probed=1,
        failures=[revision_pb2.EndpointFailure(endpoint="10.0.0.1:80", reason="connection refused")],
    )

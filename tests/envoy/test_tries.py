"""Tries, errors, gone and in flight, as a real Envoy reports them: answers, retries, refusals, and clients that leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from controlplane.demo.plane import ControlPlane
from controlplane.demo.ports import free_port
from controlplane.generated.turnout.v1.gateway_pb2 import Gateway
from controlplane.generated.turnout.v1.model_pb2 import Endpoint, Model, Retries, Version
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest
from controlplane.generated.turnout.v1.status_service_pb2 import GetStatusRequest
from controlplane.generated.turnout.v1.traffic_service_pb2 import ListTrafficRequest

pytestmark = pytest.mark.envoy

MODELS = ("answers", "fails", "retries", "refuses", "hangs", "streams")


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request as its path says."""
    while head := await reader.readuntil(b"\r\n\r\n"):
        what = head.split()[1].decode().split("/")[3]
        if what == "hangs":
            await asyncio.sleep(30)
        elif what == "streams":
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
            await asyncio.sleep(2.5)
            writer.write(b"0\r\n\r\n")
        else:
            status = b"200 OK" if what == "answers" else b"503 Down"
            writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 2\r\n\r\nhm")


@pytest.fixture
async def upstream() -> AsyncIterator[int]:
    """Return the port of a server that behaves as a request's path says."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(serve(reader, writer))
        tasks.add(task)
        await asyncio.gather(task, return_exceptions=True)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    for task in tasks:
        task.cancel()
    server.close()


def manifest(port: int, upstream: int) -> Manifest:
    """Return one model for each behaviour; two of them retry twice."""
    created = Manifest(gateways=[Gateway(name="edge", address="127.0.0.1", port=port)])
    for name in MODELS:
        version = Version(
            name="v1", endpoints=[Endpoint(host="127.0.0.1", port=free_port() if name == "refuses" else upstream)]
        )
        retries = Retries(attempts=2 if name in ("retries", "refuses") else 0, unsafe=True)
        created.models.append(Model(name=name, gateways=["edge"], versions=[version], split={"v1": 10_000}, retries=retries))
    return created


async def counts(plane: ControlPlane) -> dict[str, Any]:
    """Return the traffic of the only version of each model."""
    answer = await plane.traffic.ListTraffic(ListTrafficRequest())
    return {traffic.model.removeprefix("models/"): traffic.versions[0] for traffic in answer.traffic}


async def until(plane: ControlPlane, condition: Any) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while not condition(by_model := await counts(plane)):  # noqa: ASYNC110  there is no event to wait for
            await asyncio.sleep(0.1)
    return by_model


@pytest.fixture(autouse=True)
def report_every_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the control plane ask for a report each second."""
    monkeypatch.setenv("TURNOUT_LOAD_REPORT_INTERVAL", "1")


async def test_tries_are_what_a_real_envoy_does(control_plane: ControlPlane, upstream: int) -> None:
    plane, port = control_plane, free_port()
    await plane.apply(manifest(port, upstream))
    async with plane.envoy("edge-1") as envoy, aiohttp.ClientSession() as session:
        await envoy.listens(port)

        async def call(model: str, seconds: float = 20.0) -> int:
            """Return the status of an answer; 0 if the client left."""
            url = f"http://127.0.0.1:{port}/v2/models/{model}/infer"
            try:
                async with session.get(url, timeout=aiohttp.ClientTimeout(total=seconds)) as response:
                    await response.read()
                    return response.status
            except TimeoutError:
                return 0

        # Envoy counts a cluster from its second report on.
        while not (await counts(plane))["answers"].totals.tries:
            await call("answers")
            await asyncio.sleep(0.1)
        before = (await counts(plane))["answers"].totals.tries
        calls = [call(model) for model in MODELS if model != "hangs" for _ in range(3)]
        streams = asyncio.gather(*calls, *(call("hangs", 1.5) for _ in range(6)))
        during = await until(plane, lambda c: c["streams"].totals.successes == 3 and c["hangs"].rate.in_progress == 6)
        assert during["streams"].rate.in_progress == 3
        assert during["hangs"].totals.gone == 0
        assert await streams == [200] * 3 + [503] * 9 + [200] * 3 + [0] * 6
        after = await until(plane, lambda c: c["hangs"].totals.gone == 6 and not c["streams"].rate.in_progress)
        status = (await plane.status.GetStatus(GetStatusRequest())).status
    totals = {name: (v.totals.tries, v.totals.successes, v.totals.errors, v.totals.gone) for name, v in after.items()}
    assert totals.pop("answers")[0] >= before + 3
    assert totals == {
        "fails": (3, 0, 3, 0),
        "retries": (9, 0, 9, 0),
        "refuses": (9, 0, 9, 0),
        "hangs": (6, 0, 0, 6),
        "streams": (3, 3, 0, 0),
    }
    assert after["refuses"].HasField("last_request_time")
    problems = [(p.reason, p.objects[0]) for p in status.problems if p.reason != "TRAFFIC_UNKNOWN"]
    assert sorted(problems) == [
        ("CLIENTS_LEAVE", "models/hangs"),
        *(("VERSION_FAILS", f"models/{name}") for name in ("fails", "refuses", "retries")),
    ]

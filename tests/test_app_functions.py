"""The control plane with a plug-in: what it serves when it is started with another one, or with none."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.config.listener.v3 import listener_pb2
from google.protobuf.json_format import ParseDict

from controlplane.app import App
from controlplane.envoy_types import LISTENER
from controlplane.generated.turnout.v1 import (
    revision_service_pb2,
    revision_service_pb2_grpc,
    status_service_pb2,
    status_service_pb2_grpc,
)
from tests.fakes.xds_client import client
from tests.patch_functions.plugins import IMPORTS
from tests.test_app import config

BACKLOG = """

def backlog(listener: Listener, settings: dict) -> Listener:
    listener.tcp_backlog_size = {size}
    return listener


def named(cluster: Cluster, settings: dict) -> Cluster:
    cluster.alt_stat_name = "{size}"
    return cluster
"""
VERSION = {"name": "blue", "patches": [{"name": "a", "function": {"name": "named"}}]}
MODEL = {
    "name": "iris",
    "gateways": ["gateways/edge"],
    "versions": [{**VERSION, "endpoints": [{"host": "127.0.0.1", "port": 9}]}],
}
PATCHED = {"name": "edge", "port": 10000, "patches": [{"name": "a", "function": {"name": "backlog"}}]}
PLAIN = {"name": "edge", "port": 10000}


class Server:
    """A control plane on a folder, which is started and stopped several times."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def start(self, backlog: int | None, **more: Any) -> None:
        plugin = self.path / "team.py"
        if backlog is not None:
            plugin.write_text(IMPORTS + BACKLOG.format(size=backlog))
        self.app = App(config(self.path / "data", patches=str(plugin) if backlog is not None else "", **more))
        await self.app.start()
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.app.api_port}")

    async def stop(self) -> None:
        await self.channel.close(None)
        await self.app.stop()

    async def apply(self, gateway: dict[str, Any], *models: dict[str, Any]) -> int:
        request = revision_service_pb2.ApplyRequest(force=True, no_probe=True)
        ParseDict({"gateways": [gateway], "models": models}, request.manifest)
        stub: Any = revision_service_pb2_grpc.RevisionServiceStub(self.channel)
        return int((await stub.Apply(request)).revision.number)

    async def problems(self) -> list[str]:
        stub: Any = status_service_pb2_grpc.StatusServiceStub(self.channel)
        status = (await stub.GetStatus(status_service_pb2.GetStatusRequest())).status
        return [problem.text for problem in status.problems if problem.reason == "NOT_SERVED"]

    async def backlog(self) -> int:
        """Return the backlog in the listener that a new client gets."""
        while True:  # workers begin to listen a while after the revision
            async with client(self.app.xds_port, "edge-1") as c:
                await c.until(lambda: bool(c.names(LISTENER)) or c.ended is not None)
            if c.names(LISTENER):
                break
            assert self.app.workers is not None
            await asyncio.sleep(0.1)
        return int(listener_pb2.Listener.FromString(c.body(LISTENER, "0.0.0.0:10000")).tcp_backlog_size.value)


async def test_another_plugin_changes_nothing_until_the_objects_are_applied_again(tmp_path: Path) -> None:
    server = Server(tmp_path)
    await server.start(7)
    assert (await server.apply(PATCHED, MODEL), await server.backlog()) == (1, 7)
    await server.stop()
    await server.start(8)
    assert await server.backlog() == 7
    assert (await server.apply(PATCHED, MODEL), await server.backlog()) == (2, 8)
    assert await server.apply(PATCHED, MODEL) == 2
    assert not [task for task in server.app._tasks if task.done()]
    await server.stop()


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_server_without_the_plugin_takes_no_streams_says_why_and_serves_what_repairs_it(
    tmp_path: Path, workers: int
) -> None:
    server = Server(tmp_path)
    await server.start(7)
    await server.apply(PATCHED)
    await server.stop()
    shutil.rmtree(tmp_path / "data" / "patch_functions")
    await server.start(None, workers=workers)
    async with client(server.app.xds_port, "edge-1") as c:
        await c.until(lambda: c.ended is not None)
    assert c.ended is grpc.StatusCode.UNAVAILABLE, c.details
    reason = "gateways/edge.patches[0].function: the function 'backlog' is of the plug-in with the hash "
    if not workers:
        assert f"the control plane can't serve its newest revision: {reason}" in c.details
    (problem,) = await server.problems()
    assert reason in problem
    assert (await server.apply(PLAIN), await server.backlog()) == (2, 0)
    assert await server.problems() == []
    await server.stop()

"""Several processes that serve xDS on one port."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest

from controlplane.app import App
from controlplane.config import Address
from controlplane.errors import Code, Error
from controlplane.operator.v1 import node_service_pb2
from controlplane.server.workers import Worker
from controlplane.snapshot import ROUTES
from tests.fakes.xds_client import XdsClient, client
from tests.feature.test_app import Operator, config


class Several:
    """An app with two workers, and clients of both."""

    def __init__(self, app: App, operator: Operator, stack: AsyncExitStack) -> None:
        self.app, self.operator = app, operator
        self._stack = stack
        self.clients: list[XdsClient] = []

    @property
    def workers(self) -> list[Worker]:
        assert self.app.workers is not None
        return list(self.app.workers.workers.values())

    async def connect(self, variant: str = "delta") -> XdsClient:
        one = await self._stack.enter_async_context(client(self.app.xds_port, f"n{len(self.clients)}", variant))
        self.clients.append(one)
        return one

    async def spread(self) -> None:
        """Connects clients until each worker has some; the kernel decides whose they are."""
        while not all(worker.streams for worker in self.workers):
            await self.connect("sotw" if len(self.clients) % 3 == 2 else "delta")
            await until(lambda: sum(worker.streams for worker in self.workers) == len(self.clients))
        await self.operator.held((await self.operator.list()).summary.revision, len(self.clients))

    def of(self, worker: Worker) -> list[XdsClient]:
        return [c for c in self.clients if worker.serves(c.node)]

    async def switched(self, version: str) -> None:
        """Moves the traffic, and waits until every client that is connected holds that."""
        clients = [c for c in self.clients if c.ended is None]
        await self.operator.held(await self.operator.switch("iris", version), len(clients))
        assert len({c.body(ROUTES, "iris") for c in clients}) == 1
        assert version.encode() in clients[0].body(ROUTES, "iris")


async def until(holds: Callable[[], object], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@asynccontextmanager
async def running(path: Path, workers: int = 2) -> AsyncIterator[Several]:
    app = App(config(path, workers=workers))
    await app.start()
    try:
        async with AsyncExitStack() as stack, grpc.aio.insecure_channel(f"127.0.0.1:{app.api_port}") as channel:
            several = Several(app, Operator(channel), stack)
            await several.operator.apply("iris")
            yield several
    finally:
        await app.stop()


@pytest.fixture
async def several(tmp_path: Path) -> AsyncIterator[Several]:
    async with running(tmp_path) as s:
        yield s


async def test_a_switch_reaches_the_clients_of_every_worker(several: Several) -> None:
    await several.spread()
    before = [len(c.responses) for c in several.clients]
    await several.switched("green")
    assert [c.responses[n:] for c, n in zip(several.clients, before, strict=True)] == [
        [(ROUTES, ["iris"], [])] for _ in several.clients
    ]
    listed = await several.operator.list()
    assert sorted(n.id for n in listed.nodes) == sorted(c.node for c in several.clients)
    assert listed.summary.synced == len(several.clients)
    assert {n.streams for n in listed.nodes} == {1}

"""The supervisor with real worker processes. `tests/feature/test_workers.py` tests it in the whole program."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from controlplane.aio.latest import Latest
from controlplane.demo.ports import free_port
from controlplane.errors import Code, Error
from controlplane.fleet import Fleet
from controlplane.published import CompiledRevision
from controlplane.workers import child_process
from controlplane.workers.messages import Removed
from controlplane.workers.supervisor import Supervisor, WorkerSettings
from controlplane.xds.events import StreamEvent, StreamId
from controlplane.xds_server.limits import StreamLimits
from tests.fakes.xds_client import client
from tests.workers.rig import Desired, model, until

SETTINGS = WorkerSettings(StreamLimits(), "http2", "text", "warning")


class Rig:
    """A supervisor with one worker, and a fleet that records the events of its streams."""

    def __init__(self) -> None:
        self.desired = Desired(model("a"))
        self.published: Latest[CompiledRevision | None] = Latest(self.desired.published)
        self.fleet = Fleet()
        self.fleet.publish(1)
        self.port = free_port()
        self.supervisor = Supervisor(1, self.published, self._report, self.fleet.streams_of, SETTINGS)

    def _report(self, stream: StreamId, event: StreamEvent, when: float) -> None:
        self.fleet.apply(stream, event, when)

    async def start(self) -> None:
        await self.supervisor.start(f"127.0.0.1:{self.port}")

    def publish(self, blue: int) -> int:
        """Publish a revision in which blue has this share."""
        published = self.desired.change(models_a=model("a", blue))
        self.fleet.publish(published.revision)
        self.published.set(published)
        return published.revision


@asynccontextmanager
async def running() -> AsyncIterator[Rig]:
    rig = Rig()
    await rig.start()
    pushing = asyncio.create_task(rig.supervisor.run())
    try:
        yield rig
    finally:
        pushing.cancel()
        await rig.supervisor.stop(1.0)


async def test_the_workers_get_the_changes_of_the_removed_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as rig:
        sent: list[object] = []
        monkeypatch.setattr(rig.supervisor.workers[1].link, "send", sent.append)
        rig.supervisor.send_removed({("a/blue", "1"): None})
        assert sent == [Removed({("a/blue", "1"): None})]
        monkeypatch.undo()


async def test_a_worker_serves_each_new_revision_and_is_asked_about_its_nodes() -> None:
    async with running() as rig, client(rig.port, "edge-1") as c:
        await until(lambda: rig.fleet.holding(1) == 1)
        revision = rig.publish(blue=0)
        await until(lambda: rig.fleet.holding(revision) == 1)
        (worker,) = rig.supervisor.serving("edge-1")
        assert worker.streams == 1
        assert rig.supervisor.serving("edge-2") == []
        assert {r.name for r in await rig.supervisor.describe("edge-1")} >= {"0.0.0.0:10000", "a"}
        assert await rig.supervisor.describe("edge-2") == []
        assert (await rig.supervisor.adopt("edge-1"), await rig.supervisor.adopt("edge-2")) == (1, 0)
        assert await rig.supervisor.reconnect("edge-2") == 0
        assert await rig.supervisor.reconnect("edge-1") == 1
        await c.until(lambda: c.ended is not None)
        await until(lambda: rig.supervisor.serving("edge-1") == [])


async def test_a_worker_that_ends_is_replaced_and_its_streams_count_as_closed() -> None:
    async with running() as rig:
        first = rig.supervisor.workers[1]
        async with client(rig.port, "edge-1"):
            await until(lambda: rig.fleet.holding(1) == 1)
            with capture_logs() as lines:
                os.kill(first.pid, signal.SIGKILL)
                await until(lambda: rig.fleet.streams == 0)
                await until(lambda: rig.supervisor.workers[1] is not first and rig.supervisor.workers[1].listening.is_set())
                await until(lambda: len(lines) == 2)
        ended, started = lines
        assert (ended["event"], ended["code"], ended["streams"]) == ("worker ended; another takes its place", -9, 1)
        assert (started["event"], started["pid"]) == ("worker started", rig.supervisor.workers[1].pid)
        async with client(rig.port, "edge-2"):
            await until(lambda: rig.fleet.holding(1) == 1)


def exit_with_3(fd: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])


def never_listen(fd: int) -> subprocess.Popen[bytes]:
    code = f"import socket, time; s = socket.socket(fileno={fd}); time.sleep(600)"
    return subprocess.Popen([sys.executable, "-c", code], pass_fds=[fd])


def out_of_processes(fd: int) -> subprocess.Popen[bytes]:
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


@pytest.mark.parametrize(
    ("spawn", "message"),
    [
        (exit_with_3, "worker 1 ended with code 3; the log says why"),
        (never_listen, "worker 1 did not listen within 0.2 s; the log says why"),
        (out_of_processes, "worker 1 can't be started: resource temporarily unavailable"),
    ],
)
async def test_a_worker_that_can_not_start_is_an_error(
    monkeypatch: pytest.MonkeyPatch, spawn: Callable[[int], subprocess.Popen[bytes]], message: str
) -> None:
    monkeypatch.setattr(child_process, "spawn", spawn)
    if spawn is never_listen:
        monkeypatch.setattr("controlplane.workers.supervisor._START_TIMEOUT", 0.2)
    rig = Rig()
    with pytest.raises(Error) as caught:
        await rig.start()
    assert (caught.value.code, caught.value.reason, caught.value.message) == (Code.UNAVAILABLE, "WORKER_FAILED", message)
    await rig.supervisor.stop(0)
    assert rig.supervisor.workers == {}

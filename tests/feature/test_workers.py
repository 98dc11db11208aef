"""Several worker processes that serve xDS on one port."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest
from structlog.testing import capture_logs

from controlplane.app import App
from controlplane.config import Address
from controlplane.demo.ports import free_port
from controlplane.envoy_types import ROUTES
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1 import gateway_pb2, node_service_pb2, revision_service_pb2
from controlplane.workers import child_process
from controlplane.workers.supervisor import Supervisor
from controlplane.workers.worker_handle import WorkerHandle
from tests.fakes.xds_client import XdsClient, client
from tests.test_app import Operator, config


class Several:
    """An app with two workers, and clients of both."""

    def __init__(self, app: App, operator: Operator, stack: AsyncExitStack) -> None:
        self.app, self.operator = app, operator
        self._stack = stack
        self.clients: list[XdsClient] = []

    @property
    def _supervisor(self) -> Supervisor:
        assert self.app.workers is not None
        return self.app.workers

    @property
    def workers(self) -> list[WorkerHandle]:
        return list(self._supervisor.workers.values())

    @property
    def open(self) -> list[XdsClient]:
        """Return the clients that are connected."""
        return [c for c in self.clients if c.ended is None]

    async def connect(self, variant: str = "delta") -> XdsClient:
        """Connect one more client. If its worker ends in the meantime, connect another client, as a real one reconnects."""
        while True:
            one = await self._stack.enter_async_context(client(self.app.xds_port, f"n{len(self.clients)}", variant))
            self.clients.append(one)
            await until(functools.partial(self._settled, one))
            if one.ended is None:
                return one

    def _settled(self, one: XdsClient) -> bool:
        return one.ended is not None or bool(self._supervisor.serving(one.node))

    async def spread(self) -> None:
        """Connect clients until each worker has at least one. The kernel chooses the worker of each client."""
        while not all(worker.streams for worker in self.workers):
            await self.connect("sotw" if len(self.clients) % 3 == 2 else "delta")
        await self.operator.held((await self.operator.list()).summary.revision, len(self.open))

    def of(self, worker: WorkerHandle) -> list[XdsClient]:
        return [c for c in self.clients if worker in self._supervisor.serving(c.node)]

    async def switched(self, version: str) -> None:
        """Switch the traffic to a version, and wait until every connected client holds the new revision."""
        await self.operator.held(await self.operator.switch("iris", version), len(self.open))
        assert len({c.body(ROUTES, "iris") for c in self.open}) == 1
        assert version.encode() in self.open[0].body(ROUTES, "iris")


async def until(holds: Callable[[], object], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110  other processes
            await asyncio.sleep(0.01)


async def ended(one: XdsClient) -> grpc.StatusCode:
    await one.until(lambda: one.ended is not None)
    assert one.ended is not None
    return one.ended


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def successor(several: Several, dead: WorkerHandle) -> WorkerHandle:
    """Wait until another worker replaces a dead one, and return it."""
    await until(lambda: several.workers[dead.number - 1] is not dead)
    return several.workers[dead.number - 1]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


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


async def test_a_node_of_any_worker_can_be_described_and_reconnected(several: Several) -> None:
    await several.spread()
    assert several.app.workers is not None
    for worker in several.workers:
        one = several.of(worker)[0]
        held = await several.app.workers.describe(one.node)
        assert {(r.type_url, r.name) for r in held} == {(t, n) for t in one.held for n in one.names(t)}
        response = await several.operator.nodes.ReconnectNode(node_service_pb2.ReconnectNodeRequest(name=f"nodes/{one.node}"))
        assert response.streams == 1
        assert await ended(one) is grpc.StatusCode.OK
    assert await several.app.workers.describe("nobody") == []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await several.operator.nodes.ReconnectNode(node_service_pb2.ReconnectNodeRequest(name="nodes/nobody"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_the_impact_of_another_gateway_counts_the_clients_of_every_worker(several: Several) -> None:
    await several.spread()
    gateways = [gateway_pb2.Gateway(name=name, port=port) for name, port in (("more", 10001), ("most", 10002))]
    for gateway in gateways:
        for validate_only in (True, False):
            response = await several.operator.revisions.Apply(
                revision_service_pb2.ApplyRequest(
                    manifest=revision_service_pb2.Manifest(gateways=[gateway]), force=True, validate_only=validate_only
                )
            )
            assert response.impact.nodes == len(several.clients), (gateway.name, validate_only)


async def test_a_worker_that_dies_is_replaced_and_its_clients_reconnect(several: Several) -> None:
    await several.spread()
    dead, other = several.workers
    disconnected, connected = several.of(dead), several.of(other)
    os.kill(dead.pid, signal.SIGKILL)
    for one in disconnected:
        await ended(one)
    await until(lambda: dead.ended.is_set())
    summary = (await several.operator.list()).summary
    assert (summary.synced, summary.gone) == (len(connected), len(disconnected))
    # New clients connect to the other worker at once, and are served.
    back = [await several.connect("sotw") for _ in disconnected]
    await several.switched("green")
    assert all(one.ended is None for one in (*connected, *back))
    # Another worker replaces the dead one.
    await until((await successor(several, dead)).listening.is_set)
    assert several.workers[0].pid != dead.pid
    assert not alive(dead.pid)
    assert several.workers[1] is other
    await several.spread()
    await several.switched("blue")


async def test_a_stuck_worker_delays_no_other_and_gets_the_newest_revision_later(several: Several) -> None:
    await several.spread()
    stuck, other = several.workers
    os.kill(stuck.pid, signal.SIGSTOP)
    try:
        before = [len(c.responses) for c in several.of(stuck)]
        for n in range(60):
            revision = await several.operator.switch("iris", ("green", "blue")[n % 2])
        progress = await several.operator.until(revision, lambda p: p.holding == len(several.of(other)))
        assert progress.behind == len(several.of(stuck))
    finally:
        os.kill(stuck.pid, signal.SIGCONT)
    await several.switched("green")
    assert all(len(c.responses) - n < 60 for c, n in zip(several.of(stuck), before, strict=True))


async def test_a_worker_that_hangs_is_killed_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Supervisor, "PING_INTERVAL", 0.5)
    async with running(tmp_path) as several:
        await several.spread()
        hung, other = several.workers
        disconnected, connected = several.of(hung), several.of(other)
        with capture_logs() as lines:
            os.kill(hung.pid, signal.SIGSTOP)
            await until(hung.ended.is_set)
            summary = (await several.operator.list()).summary
            assert (summary.synced, summary.gone) == (len(connected), len(disconnected))
            await until((await successor(several, hung)).listening.is_set)
        events = [line["event"] for line in lines if line.get("worker") == hung.number]
        assert events[:2] == ["worker hangs; it is killed", "worker ended; another takes its place"]
        assert not alive(hung.pid)
        assert several.workers[1] is other
        await several.spread()
        await several.switched("green")


async def test_a_stop_ends_streams_gracefully_and_leaves_no_process(tmp_path: Path) -> None:
    async with running(tmp_path) as several:
        await several.spread()
        pids = [worker.pid for worker in several.workers]
        await several.app.stop()
        for one in several.clients:
            assert await ended(one) is grpc.StatusCode.OK
        assert not any(alive(pid) for pid in pids)


async def test_a_taken_port_is_an_error(several: Several, tmp_path: Path) -> None:
    """The port is taken by workers of another control plane, by another program, or for one process by our own workers."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        for port in (several.app.xds_port, other.getsockname()[1]):
            app = App(config(tmp_path / "others" / str(port), workers=2, xds=Address("127.0.0.1", port)))
            with pytest.raises(Error) as caught:
                await app.start()
            assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "PORT_TAKEN")
            assert app.workers is None
    alone = App(config(tmp_path / "others" / "alone", xds=Address("127.0.0.1", several.app.xds_port)))
    with pytest.raises(Error) as caught:
        await alone.start()
    assert caught.value.reason == "PORT_TAKEN"
    await several.connect()
    await several.switched("green")


@pytest.mark.parametrize(
    "stuck",
    [
        False,
        pytest.param(
            True, marks=pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a stopped process to its parent")
        ),
    ],
)
async def test_workers_end_when_the_main_process_is_killed_and_its_port_is_free_for_the_next(
    tmp_path: Path, stuck: bool
) -> None:
    flags = [
        "--workers",
        "2",
        "--data",
        str(tmp_path),
        "--metrics",
        "off",
        "--api",
        "127.0.0.1:0",
        "--xds",
        f"127.0.0.1:{free_port()}",
    ]
    seen: list[int] = []
    for _ in range(2):
        main = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "controlplane.cli.main", "serve", *flags, stderr=asyncio.subprocess.PIPE
        )
        try:
            assert main.stderr is not None
            async with asyncio.timeout(60):
                while b"serving" not in (line := await main.stderr.readline()):
                    assert line, "the control plane ended"
            seen += children(main.pid)
            assert len(children(main.pid)) == 2
            if stuck:
                os.kill(seen[-1], signal.SIGSTOP)
        finally:
            main.kill()
            await main.wait()
    await until(lambda: not any(map(alive, seen)))


def broken(fd: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])


def out_of_processes(fd: int) -> subprocess.Popen[bytes]:
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


@pytest.mark.parametrize(
    ("spawn", "words"),
    [(broken, "ended with code 3"), (out_of_processes, "can't be started: resource temporarily unavailable")],
)
async def test_the_start_fails_if_a_worker_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spawn: Callable[[int], subprocess.Popen[bytes]], words: str
) -> None:
    monkeypatch.setattr(child_process, "spawn", spawn)
    app = App(config(tmp_path, workers=2))
    with pytest.raises(Error) as caught:
        await app.start()
    assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "WORKER_FAILED")
    assert words in caught.value.message


async def test_a_worker_that_fails_repeatedly_is_started_again(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = several.workers[0]
    with monkeypatch.context() as m:
        m.setattr(child_process, "spawn", broken)
        os.kill(dead.pid, signal.SIGKILL)
        for spawn in (out_of_processes, broken):
            dead = await successor(several, dead)
            await until(dead.ended.is_set)
            m.setattr(child_process, "spawn", spawn)
    await several.connect()
    await several.switched("green")
    await until(lambda: several.workers[0].listening.is_set())
    await several.spread()
    await several.switched("blue")

"""The supervisor of the worker processes. Each worker serves xDS on the same port, and gets its snapshots from here.

    main                                       worker 1 … N (`process.py`)
    store, writer, operator API                listens on the xDS port, with SO_REUSEPORT:
    publisher ─ CompiledRevision               the kernel distributes the connections
         │ SnapshotSender, one a worker  ── Update ─▶  SnapshotReceiver ─ ReceivedRevision
         ▼                                                       │
    fleet, traffic, log            ◀─ Events ──            Discovery ┘

A worker may end at any time, because everything that it has can be sent again: its streams count as closed, their clients
connect to the other workers, and a new worker replaces it. A worker that hangs is killed. A worker ends by itself when the
main process is gone. On Linux the kernel ends it, so that a worker that hangs does not keep the port.

The main process reserves the port with a bound socket that does not listen, for the times when no worker listens.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import structlog

from controlplane.aio.latest import Latest
from controlplane.errors import Code, Error
from controlplane.published import CompiledRevision
from controlplane.snapshot import Audience
from controlplane.versions import ClusterChanges, VersionChanges, VersionIndex
from controlplane.workers.messages import BlockedClients, Removed, Start, Stop, Versions
from controlplane.workers.restart_policy import MAX_UNANSWERED_PINGS, HangDetector, RestartPause
from controlplane.workers.snapshot_sender import UpdateEncoder
from controlplane.workers.worker_handle import WorkerHandle
from controlplane.xds.events import StreamEvent, StreamId
from controlplane.xds.status import ResourceStatus, merged
from controlplane.xds_server.limits import StreamLimits
from controlplane.xds_server.tls_files import TlsPaths

log = structlog.get_logger("workers")

# A worker must listen within this time. Seconds.
_START_TIMEOUT = 60.0

# A worker that has not stopped this long after the grace period is killed. Seconds.
_STOP_MARGIN = 2.0

# Streams that one worker process can number.
_STREAMS_PER_WORKER = 2**40


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """The settings that all workers share."""

    limits: StreamLimits
    # `http2` or `grpc`: see `xds_server/transports.py`.
    transport: str
    log_format: str
    log_level: str
    tls: TlsPaths | None = None


class Supervisor:
    """All workers: start them, send them each new revision, replace the ones that end.

    `report` gets the events of their streams. `streams_of` returns the open streams of a node, as the fleet knows them.
    """

    # Workers are pinged this often. Seconds.
    PING_INTERVAL = 5.0

    def __init__(
        self,
        count: int,
        published: Latest[CompiledRevision | None],
        report: Callable[[StreamId, StreamEvent, float], None],
        streams_of: Callable[[str], Collection[StreamId]],
        settings: WorkerSettings,
        versions: VersionIndex | None = None,
    ) -> None:
        """`versions` is the index of published versions, of which each worker gets a copy."""
        self._versions = versions if versions is not None else VersionIndex()
        self._count = count
        self._published = published
        self._report = report
        self._streams_of = streams_of
        self._settings = settings
        self._encoder = UpdateEncoder(_log_compile_error)
        self._address = ""
        self._blocked: frozenset[str] = frozenset()
        # By number, 1 … count.
        self.workers: dict[int, WorkerHandle] = {}
        # A number for each process that was ever started, so that no two processes use the same stream ids.
        self._generations = itertools.count(1)
        self._stopping = False
        self._keep_tasks: list[asyncio.Task[None]] = []

    async def start(self, address: str) -> None:
        """Start the workers, and return when all of them listen on `HOST:PORT`. Errors: UNAVAILABLE when one does not."""
        self._address = address
        workers = await asyncio.gather(*(self._launch(n) for n in range(1, self._count + 1)))
        await asyncio.gather(*(self._wait_until_listening(worker) for worker in workers))
        self._keep_tasks = [asyncio.create_task(self._keep(worker)) for worker in workers]

    async def run(self) -> None:
        """Send each newest revision to every worker, until cancelled."""
        seen = 0
        while True:
            seen = await self._published.newer(seen)
            for worker in self.workers.values():
                worker.send_newest()

    def send_versions(self, changes: VersionChanges) -> None:
        """Send changes of the index of published versions to every worker."""
        for worker in self.workers.values():
            worker.link.send(Versions(changes, self._versions.vouches))

    def block(self, clients: frozenset[str]) -> None:
        """Let every worker refuse clients with these node ids and identities from now on, and end their streams."""
        self._blocked = clients
        for worker in self.workers.values():
            worker.link.send(BlockedClients(clients))

    def send_removed(self, changes: ClusterChanges) -> None:
        """Send changes of the removed clusters to every worker."""
        for worker in self.workers.values():
            worker.link.send(Removed(changes))

    def serving(self, node_id: str) -> list[WorkerHandle]:
        """Return the workers that have streams of a node."""
        streams = self._streams_of(node_id)
        return [worker for worker in self.workers.values() if worker.has_any(streams)]

    async def reconnect(self, node_id: str) -> int:
        """End the streams of a node with OK, so that it connects again. Return how many there were. Errors: UNAVAILABLE."""
        counts = await self._request("reconnect", node_id)
        return sum(n for n in counts if isinstance(n, int))

    async def adopt(self, node_id: str) -> int:
        """Send the newest revision to a node that is held back. Return the number of its streams. Errors: UNAVAILABLE."""
        counts = await self._request("adopt", node_id)
        return sum(n for n in counts if isinstance(n, int))

    async def describe(self, node_id: str) -> list[ResourceStatus]:
        """Return what a node holds of each resource, compared with what it should hold. Errors: UNAVAILABLE."""
        parts = await self._request("describe", node_id)
        return merged([part for part in parts if isinstance(part, list)])

    async def stop(self, grace: float) -> None:
        """Stop the workers. Their streams end with OK within `grace` seconds; a worker that takes longer is killed."""
        self._stopping = True
        for worker in self.workers.values():
            worker.link.send(Stop(grace))
        ends = [asyncio.create_task(worker.ended.wait()) for worker in self.workers.values()]
        if ends:
            await asyncio.wait(ends, timeout=grace + _STOP_MARGIN)
        for task in (*ends, *self._keep_tasks):
            task.cancel()
        await asyncio.gather(*ends, *self._keep_tasks, return_exceptions=True)
        await asyncio.gather(*(worker.reap() for worker in self.workers.values()))
        self.workers, self._keep_tasks = {}, []

    async def _request(self, method: str, node_id: str) -> list[object]:
        return await asyncio.gather(*(worker.request(method, node_id) for worker in self.serving(node_id)))

    async def _launch(self, number: int) -> WorkerHandle:
        """Start a worker. Errors: UNAVAILABLE / WORKER_FAILED."""
        s = self._settings
        first_stream = next(self._generations) * _STREAMS_PER_WORKER
        start = Start(number, self._address, first_stream, s.limits, s.transport, s.log_format, s.log_level, s.tls)
        worker = self.workers[number] = WorkerHandle(number, self._encoder, self._published, self._report, self._versions)
        try:
            await worker.launch(start, self._blocked)
        except OSError as error:
            worker.ended.set()
            message = f"worker {number} can't be started: {(error.strerror or str(error)).lower()}"
            raise Error(Code.UNAVAILABLE, "WORKER_FAILED", message) from None
        return worker

    async def _wait_until_listening(self, worker: WorkerHandle) -> None:
        """Return once a worker listens. Errors: UNAVAILABLE / WORKER_FAILED."""
        waits = [asyncio.create_task(event.wait()) for event in (worker.listening, worker.ended)]
        try:
            await asyncio.wait(waits, timeout=_START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
        if not worker.listening.is_set() or worker.ended.is_set():
            has_ended = worker.ended.is_set()
            code = await worker.reap()
            problem = f"ended with code {code}" if has_ended else f"did not listen within {_START_TIMEOUT:g} s"
            raise Error(Code.UNAVAILABLE, "WORKER_FAILED", f"worker {worker.number} {problem}; the log says why")

    async def _keep(self, worker: WorkerHandle) -> None:
        """Replace a worker each time that it ends, until the supervisor stops."""
        pauses = RestartPause()
        while True:
            # After the worker has ended, one of three things happens: the supervisor stops, a new worker listens, or the new
            # worker fails and is the next one that has ended.
            started = time.monotonic()
            await self._wait_until_ended(worker)
            if self._stopping:
                return
            code, streams = await worker.reap(), worker.streams
            pause = pauses.after(time.monotonic() - started)
            log.warning("worker ended; another takes its place", worker=worker.number, code=code, streams=streams, in_s=pause)
            await asyncio.sleep(pause)
            try:
                worker = await self._launch(worker.number)
                await self._wait_until_listening(worker)
                log.info("worker started", worker=worker.number, pid=worker.pid)
            except Error as error:
                log.error("worker not started", worker=worker.number, error=error.message)

    async def _wait_until_ended(self, worker: WorkerHandle) -> None:
        """Return once a worker has ended. Ping it, and kill it when it hangs."""
        detector = HangDetector()
        while not worker.ended.is_set():
            worker.ping()
            try:
                await asyncio.wait_for(worker.ended.wait(), self.PING_INTERVAL)
            except TimeoutError:
                if detector.is_hung(answered=worker.answered):
                    seconds = MAX_UNANSWERED_PINGS * self.PING_INTERVAL
                    log.error("worker hangs; it is killed", worker=worker.number, pid=worker.pid, s=seconds)
                    worker.process.kill()


def _log_compile_error(audience: Audience, error: Exception) -> None:
    log.error("audience not served: it does not compile", gateways=audience.gateways, exc_info=error)

"""Worker processes: each serves xDS on the same port, and is fed from here.

    main                                    worker 1 … N (`controlplane/workers/process.py`)
    store, writer, operator API             listens on the xDS port, with SO_REUSEPORT:
    publisher ─ World                         the kernel deals out the connections
         │ Feed, one a worker  ── Update ─▶  Fed ─ FedWorld
         ▼                                            │
    observer, fleet           ◀─ Reports ──  Discovery ┘

A worker holds nothing that can't be had anew, so it may die at any time: its streams count as closed, their clients connect to
the others, and another takes its place. One that hangs is killed. It ends by itself when the main process is gone; on Linux
the kernel sees to that, so that one that hangs does not keep the port.

The port is reserved here by a socket that does not listen, so that it is this program's before the first worker listens and
while none does.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection

import structlog

from controlplane.aio.latest import Latest
from controlplane.errors import Code, Error
from controlplane.published import CompiledRevision
from controlplane.snapshot import Audience
from controlplane.workers.die_with_parent import die_with_parent
from controlplane.workers.link import Link, gone
from controlplane.workers.messages import Answer, Ask, Call, Forget, Listening, Reports, Start, Stop
from controlplane.workers.replication import SnapshotSender, UpdateEncoder
from controlplane.xds.events import StreamClosed, StreamEvent, StreamId, StreamOpened
from controlplane.xds.status import ResourceStatus, merged
from controlplane.xds_server.limits import StreamLimits

log = structlog.get_logger("workers")

# How long a worker may take to listen, and to answer a call; seconds.
_STARTING = 60.0
_ANSWERING = 10.0

# A worker that ends is replaced after so long, and twice as long each time, unless it lived for a while. Seconds.
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 10.0
_LIVED = 30.0

# Each is asked so often whether it is there, in seconds; one that has said nothing after so many times is killed. Times are
# counted, so that a pause of the main process is not taken for one of the worker.
_ASKED_EVERY = 5.0
_IN_VAIN = 4

# Streams of one worker process.
_STREAMS = 2**40


class Supervisor:
    """All workers. `report` is told what becomes of their streams, and when."""

    def __init__(
        self,
        count: int,
        worlds: Latest[CompiledRevision | None],
        report: Callable[[StreamId, StreamEvent, float], None],
        streams_of: Callable[[str], Collection[StreamId]],
        limits: StreamLimits,
        transport: str,
        log_form: str,
        log_level: str,
    ) -> None:
        self._count = count
        self._worlds = worlds
        self._report = report
        # Returns the open streams of a node, by its id.
        self._streams_of = streams_of
        self._limits = limits
        self._settings = transport, log_form, log_level
        self._packer = UpdateEncoder(_not_compiled)
        self._address = ""
        # By their numbers.
        self.workers: dict[int, WorkerHandle] = {}
        self._generations = itertools.count(1)
        self._closing = False
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self, address: str) -> None:
        """Starts them, and returns when all of them listen on `HOST:PORT`. Errors: UNAVAILABLE when one does not."""
        self._address = address
        workers = await asyncio.gather(*(self._launch(n) for n in range(1, self._count + 1)))
        await asyncio.gather(*(self._listens(worker) for worker in workers))
        self._keepers = [asyncio.create_task(self._keep(worker)) for worker in workers]

    async def run(self) -> None:
        """Feeds each newest world to every worker, until it is cancelled."""
        seen = 0
        while True:
            seen = await self._worlds.newer(seen)
            for worker in self.workers.values():
                worker.feed(self._worlds.value)

    async def reconnect(self, node_id: str) -> int:
        """Ends the streams of a node well, so that it connects anew. Returns how many. Errors: UNAVAILABLE."""
        answers = await self._call("reconnect", node_id)
        return sum(n for n in answers if isinstance(n, int))

    async def describe(self, node_id: str) -> list[ResourceStatus]:
        """What a node holds of each resource, against what it should. Errors: UNAVAILABLE."""
        answers = await self._call("describe", node_id)
        return merged([part for part in answers if isinstance(part, list)])

    async def _call(self, method: str, node_id: str) -> list[object]:
        streams = self._streams_of(node_id)
        serving = [worker for worker in self.workers.values() if worker.has_any(streams)]
        return await asyncio.gather(*(worker.call(method, node_id) for worker in serving))

    async def stop(self, grace: float) -> None:
        """Ends them: streams end well, within `grace` seconds. Who takes longer is killed."""
        self._closing = True
        for worker in self.workers.values():
            worker.link.send(Stop(grace))
        ends = [asyncio.create_task(worker.ended.wait()) for worker in self.workers.values()]
        if ends:
            await asyncio.wait(ends, timeout=grace + 2.0)
        for task in (*ends, *self._keepers):
            task.cancel()
        await asyncio.gather(*ends, *self._keepers, return_exceptions=True)
        await asyncio.gather(*(worker.reap() for worker in self.workers.values()))
        self.workers, self._keepers = {}, []

    # ---------------------------------------------------------------------------------------------------- one's life

    async def _launch(self, number: int) -> WorkerHandle:
        first = next(self._generations) * _STREAMS
        start = Start(number, self._address, first, self._limits, *self._settings)
        worker = WorkerHandle(number, self._packer, self._worlds, self._report)
        self.workers[number] = worker
        try:
            await worker.launch(start)
        except OSError as error:
            worker.ended.set()
            message = f"worker {number} can't be started: {(error.strerror or str(error)).lower()}"
            raise Error(Code.UNAVAILABLE, "WORKER_FAILED", message) from None
        return worker

    async def _listens(self, worker: WorkerHandle) -> None:
        """Returns once it does. Errors: UNAVAILABLE / WORKER_FAILED."""
        waits = [asyncio.create_task(event.wait()) for event in (worker.listening, worker.ended)]
        try:
            await asyncio.wait(waits, timeout=_STARTING, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
        if not worker.listening.is_set() or worker.ended.is_set():
            code = await worker.reap()
            said = f"ended with code {code}" if worker.ended.is_set() else f"did not listen within {_STARTING:g} s"
            raise Error(Code.UNAVAILABLE, "WORKER_FAILED", f"worker {worker.number} {said}; the log says why")

    async def _keep(self, worker: WorkerHandle) -> None:
        """Puts another in a worker's place whenever it ends."""
        pause = _FIRST_PAUSE
        while True:
            began = time.monotonic()
            await self._ends(worker)
            if self._closing:
                return
            code, streams = await worker.reap(), worker.streams
            if time.monotonic() - began > _LIVED:
                pause = _FIRST_PAUSE
            log.warning("worker ended; another takes its place", worker=worker.number, code=code, streams=streams, in_s=pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            try:
                worker = await self._launch(worker.number)
                await self._listens(worker)
                log.info("worker started", worker=worker.number, pid=worker.pid)
            except Error as error:
                log.error("worker not started", worker=worker.number, error=error.message)

    async def _ends(self, worker: WorkerHandle) -> None:
        """Returns once it has ended, for which it is killed when it hangs."""
        in_vain = 0
        while not worker.ended.is_set():
            worker.ask()
            try:
                await asyncio.wait_for(worker.ended.wait(), _ASKED_EVERY)
            except TimeoutError:
                in_vain = 0 if worker.heard else in_vain + 1
                if in_vain == _IN_VAIN:
                    log.error("worker hangs; it is killed", worker=worker.number, pid=worker.pid, s=_IN_VAIN * _ASKED_EVERY)
                    worker.kill()


class WorkerHandle:
    """One worker, as it is seen from the main process."""

    def __init__(
        self,
        number: int,
        packer: UpdateEncoder,
        worlds: Latest[CompiledRevision | None],
        report: Callable[[StreamId, StreamEvent, float], None],
    ) -> None:
        self.number = number
        self.link = Link(self._received, self._lost, self._feed_newest)
        self.listening, self.ended = asyncio.Event(), asyncio.Event()
        # Whether anything came from it since it was last asked if it is there.
        self.heard = False
        # Its open streams; once it has ended, those that were open then.
        self._streams: set[StreamId] = set()
        self._feed = SnapshotSender(packer)
        self._worlds = worlds
        self._report = report
        self._process: subprocess.Popen[bytes] | None = None
        # By number: what is to be answered.
        self._calls: dict[int, asyncio.Future[object]] = {}
        self._numbers = itertools.count(1)

    @property
    def pid(self) -> int:
        """0 before it was started."""
        return self._process.pid if self._process is not None else 0

    @property
    def streams(self) -> int:
        """How many it has open; had, once it has ended."""
        return len(self._streams)

    def has_any(self, streams: Collection[StreamId]) -> bool:
        """Return True if one of these streams is open in this worker."""
        return not self._streams.isdisjoint(streams)

    async def launch(self, start: Start) -> None:
        """Starts the process, and tells it how to serve. Errors: OSError."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            with theirs:
                self._process = _spawn(theirs.fileno())
        except OSError:
            ours.close()
            raise
        await Link.over(ours, self.link)
        self.link.send(start)
        self._feed_newest()

    def feed(self, world: CompiledRevision | None) -> None:
        """Sends what it lacks of a world: to a slow one nothing, until it can take it; then what it lacks of the newest."""
        if world is None or not self.link.ready:
            return
        update = self._feed.update(world)
        if update is not None:
            self.link.send(update)

    def ask(self) -> None:
        """Asks it whether it is there."""
        self.heard = False
        self.link.send(Call(next(self._numbers)))

    def kill(self) -> None:
        """Ends the process without asking; once it has, `ended` is set."""
        if self._process is not None:
            self._process.kill()

    async def call(self, method: str, node_id: str) -> object:
        """Asks it something; None when it ends meanwhile. Errors: UNAVAILABLE when it does not answer."""
        number = next(self._numbers)
        self._calls[number] = asyncio.get_running_loop().create_future()
        self.link.send(Call(number, method, node_id))
        if self.ended.is_set():
            return None
        try:
            return await asyncio.wait_for(self._calls[number], _ANSWERING)
        except TimeoutError:
            raise gone() from None
        finally:
            del self._calls[number]

    async def reap(self) -> int:
        """Makes sure that the process is gone, and returns its exit code."""
        self.link.close()
        if self._process is None:
            return 0
        if not self.ended.is_set():
            self._process.kill()
        try:
            return await asyncio.to_thread(self._process.wait, 5.0)
        except subprocess.TimeoutExpired:  # it has closed the link, and stays
            self._process.kill()
            return await asyncio.to_thread(self._process.wait)

    def _feed_newest(self) -> None:
        self.feed(self._worlds.value)

    def _received(self, message: object) -> None:
        self.heard = True
        match message:
            case Reports(reports):
                for stream, event, when in reports:
                    self._note(stream, event)
                    self._report(stream, event, when)
            case Ask(audiences):
                for audience in audiences:
                    self._feed.ask(audience)
                self._feed_newest()
            case Forget(audience):
                self._feed.forget(audience)
            case Answer(number, value):
                if (asked := self._calls.get(number)) is not None and not asked.done():
                    asked.set_result(value)
            case Listening():
                self.listening.set()

    def _note(self, stream: StreamId, event: StreamEvent) -> None:
        if isinstance(event, StreamOpened):
            self._streams.add(stream)
        elif isinstance(event, StreamClosed):
            self._streams.discard(stream)

    def _lost(self) -> None:
        """It is gone, and so are its streams."""
        self.ended.set()
        for asked in self._calls.values():
            if not asked.done():
                asked.set_result(None)
        now = time.time()
        for stream in self._streams:
            self._report(stream, StreamClosed(), now)


def _not_compiled(audience: Audience, error: Exception) -> None:
    log.error("an audience is served nothing: it does not compile", gateways=audience.gateways, exc_info=error)


def _spawn(fd: int) -> subprocess.Popen[bytes]:
    # In a session of its own, so that Ctrl-C reaches the main process alone, which then ends the workers.
    command = die_with_parent([sys.executable, "-m", "controlplane.workers.process", str(fd)])
    return subprocess.Popen(command, pass_fds=[fd], stdin=subprocess.DEVNULL, start_new_session=True)

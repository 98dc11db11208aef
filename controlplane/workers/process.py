"""`python -m controlplane.workers.process FD`: one of the processes that serve xDS, started by `supervisor.py`.

It holds no state of its own: what it serves comes over the socket FD, and what becomes of its streams goes back over it. When
that socket closes, it ends.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import time

import structlog

from controlplane import logs
from controlplane.aio import event_loop
from controlplane.aio.latest import Latest
from controlplane.config import Address
from controlplane.snapshot import Audience
from controlplane.workers.link import Link
from controlplane.workers.messages import Answer, Ask, Call, Forget, Listening, Reports, Start, Stop
from controlplane.workers.replication import ReceivedRevision, SnapshotReceiver, Update
from controlplane.xds.events import Held, StreamEvent, StreamId
from controlplane.xds_server.discovery import Discovery
from controlplane.xds_server.transports import serve

log = structlog.get_logger("worker")

# Reports that follow one within this time go to main together. Seconds.
_GATHER = 0.002

# How long streams may take to end when somebody ends the worker alone; seconds.
_GRACE = 1.0


class WorkerProcess:
    """The process: one link, and the streams that came to it."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.link = Link(self._received, self._lost)
        self._worlds: Latest[ReceivedRevision | None] = Latest(None)
        self._fed = SnapshotReceiver(self._ask, self._forget)
        self._asked: list[Audience] = []
        # What became of the streams and was not sent yet, in order. It grows while main is stuck; `Link` cuts that short.
        self._reports: list[tuple[StreamId, StreamEvent, float]] = []
        self._held = Held(0)
        # How it is to serve; and how long the streams may take to end, once they are to.
        self._start: Start | None = None
        self._stop: asyncio.Future[float] = loop.create_future()
        self._discovery: Discovery | None = None
        self._answering: set[asyncio.Task[None]] = set()
        # The link is closed, and main has all that was sent or is gone itself.
        self._gone = asyncio.Event()

    async def run(self, sock: socket.socket) -> None:
        """Serves until it is told to stop, or the main process is gone."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._end, _GRACE)
        await Link.over(sock, self.link)
        await self._world_or_stop()
        if not self._stop.done():
            await self._serve()
        self._flush()
        self.link.close()
        await self._gone.wait()

    async def _world_or_stop(self) -> None:
        world = asyncio.create_task(self._worlds.newer(0))
        self._stop.add_done_callback(lambda _: world.cancel())
        await asyncio.wait([world])

    async def _serve(self) -> None:
        start = self._start
        assert start is not None, "comes before the first world"
        logs.set_up(start.log_form, start.log_level)
        structlog.contextvars.bind_contextvars(worker=start.number)
        self._discovery = discovery = Discovery(self._worlds, self._report, start.limits)
        where = Address.parse(start.address)
        try:
            server = await serve(discovery, where.host, where.port, start.limits, transport=start.transport, share=True)
        except OSError as error:
            log.error("can't listen", address=start.address, error=error.strerror or str(error))
            return
        # What is there from the start stays: the collector need not look at it again and again. As in `app.py`.
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        self.link.send(Listening())
        offering = asyncio.create_task(discovery.run())
        grace = await self._stop
        if self._gone.is_set():
            # Nobody is left to report to, and a main process that comes back wants the port: no time is to be lost.
            os._exit(1)
        discovery.close()
        await server.stop(grace)
        offering.cancel()

    # --------------------------------------------------------------------------------------------------------- to main

    def _report(self, stream: StreamId, event: StreamEvent) -> None:
        assert self._start is not None
        if not self._reports:
            asyncio.get_running_loop().call_later(_GATHER, self._flush)
        # Most of them say the same of one stream after the other: one object is sent once.
        if isinstance(event, Held):
            if event.revision != self._held.revision:
                self._held = event
            event = self._held
        self._reports.append((self._start.first_stream + stream, event, time.time()))

    def _flush(self) -> None:
        if self._reports:
            self.link.send(Reports(self._reports))
            self._reports = []

    def _ask(self, audience: Audience) -> None:
        if not self._asked:
            asyncio.get_running_loop().call_soon(self._send_asked)
        self._asked.append(audience)

    def _send_asked(self) -> None:
        if self._asked:
            self.link.send(Ask(tuple(self._asked)))
            self._asked.clear()

    def _forget(self, audience: Audience) -> None:
        self._send_asked()
        self.link.send(Forget(audience))

    # ------------------------------------------------------------------------------------------------------- from main

    def _received(self, message: object) -> None:
        match message:
            case Update():
                # The same world again, where it has more in it now: streams that wait for that look at it again.
                self._worlds.set(self._fed.take(message))
            case Start():
                self._start = message
            case Call():
                task = asyncio.create_task(self._answer(message))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)
            case Stop(grace):
                self._end(grace)

    async def _answer(self, call: Call) -> None:
        value: object = None
        if self._discovery is not None:
            match call.method:
                case "reconnect":
                    value = self._discovery.reconnect(call.node_id)
                case "describe":
                    value = await self._discovery.describe(call.node_id)
        self.link.send(Answer(call.number, value))

    def _lost(self) -> None:
        self._gone.set()
        self._end(0)

    def _end(self, grace: float) -> None:
        if not self._stop.done():
            self._stop.set_result(grace)


def main() -> None:
    """Runs a worker on the socket that the first argument names."""
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        sock.setblocking(False)
        event_loop.run(_run(sock))


async def _run(sock: socket.socket) -> None:
    await WorkerProcess().run(sock)


if __name__ == "__main__":
    main()

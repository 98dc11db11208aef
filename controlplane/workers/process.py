"""`python -m controlplane.workers.process FD`: one of the processes that serve xDS, started by `supervisor.py`.

The process has no state of its own. It receives snapshots over the socket FD, and sends the events of its streams over it. It
ends when the socket closes.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys

import structlog

from controlplane import logs
from controlplane.aio import event_loop
from controlplane.aio.latest import Latest
from controlplane.config import Address
from controlplane.errors import Error
from controlplane.snapshot import Audience
from controlplane.versions import VersionIndex
from controlplane.workers.batching import EventBatcher, SubscriptionBatcher
from controlplane.workers.link import Link
from controlplane.workers.messages import (
    BlockedClients,
    Listening,
    Ping,
    Pong,
    Removed,
    Request,
    Response,
    Start,
    Stop,
    UnsubscribeAudience,
    Versions,
)
from controlplane.workers.replication import Update
from controlplane.workers.snapshot_receiver import ReceivedRevision, SnapshotReceiver
from controlplane.xds.context import Context
from controlplane.xds_server.access import Access
from controlplane.xds_server.discovery import Discovery
from controlplane.xds_server.tls_files import TlsFiles
from controlplane.xds_server.transports import serve

log = structlog.get_logger("worker")

# If somebody sends SIGTERM to the worker itself, its streams may take this long to end. Seconds.
_SIGTERM_GRACE = 1.0

# Seconds between two looks for versions that streams mixed.
_VERSIONS_INTERVAL = 0.3


class WorkerProcess:
    """A worker: one link to the main process, and the streams of the clients that connected to it."""

    def __init__(self) -> None:
        self.link = Link(self._receive, self._on_lost)
        # None until the first update. The same revision is set again when more of its snapshots have arrived, so that streams
        # that wait for them try again.
        self._published: Latest[ReceivedRevision | None] = Latest(None)
        # A copy of the main process' index.
        self._versions = VersionIndex()
        self._subscriptions = SubscriptionBatcher(self.link.send)
        self._receiver = SnapshotReceiver(self._subscriptions.add, self._unsubscribe)
        # None until the first message, `Start`.
        self._start: Start | None = None
        self._events: EventBatcher | None = None
        # Set when the process is to end, with the seconds that its streams may take.
        self._stop: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._blocked: frozenset[str] = frozenset()
        # None until the worker serves.
        self._discovery: Discovery | None = None
        self._responding: set[asyncio.Task[None]] = set()
        # Set when the link is closed: the main process has received everything, or is gone.
        self._lost = asyncio.Event()

    async def run(self, sock: socket.socket) -> None:
        """Serve until the main process sends `Stop`, or is gone."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._end, _SIGTERM_GRACE)
        await self.link.connect(sock)
        await self._first_update_or_stop()
        if not self._stop.done():
            await self._serve()
        if self._events is not None:
            self._events.flush()
        self.link.close()
        await self._lost.wait()

    async def _first_update_or_stop(self) -> None:
        first_update = asyncio.create_task(self._published.newer(0))
        self._stop.add_done_callback(lambda _: first_update.cancel())
        await asyncio.wait([first_update])

    async def _serve(self) -> None:
        start, events = self._start, self._events
        assert start is not None, "`Start` comes before the first update"
        assert events is not None
        logs.set_up(start.log_format, start.log_level)
        structlog.contextvars.bind_contextvars(worker=start.number)
        context = Context(versions=self._versions)
        where, tls = Address.parse(start.address), None
        try:
            tls = TlsFiles(start.tls) if start.tls is not None else None
            self._discovery = discovery = Discovery(
                self._published, events.add, start.limits, context, access=Access(tls, self._blocked)
            )
            server = await serve(
                discovery, where.host, where.port, start.limits, transport=start.transport, share=True, tls=tls
            )
        except Error as error:
            log.error("can't serve with TLS", error=error.message)
            return
        except OSError as error:
            log.error("can't listen", address=start.address, error=error.strerror or str(error))
            return
        # Objects that exist now are never freed: keep them out of garbage collection, as `app.py` does.
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        self.link.send(Listening())
        tasks = [asyncio.create_task(discovery.run()), asyncio.create_task(self._send_versions())]
        if tls is not None:
            tasks.append(asyncio.create_task(tls.watch(discovery.access_changed)))
        grace = await self._stop
        if self._lost.is_set():
            # The main process is gone, so there is nobody to report to. A new one needs the port: exit at once.
            os._exit(1)
        discovery.close()
        await server.stop(grace)
        for task in tasks:
            task.cancel()

    # --------------------------------------------------------------------------------------------------------- to main

    async def _send_versions(self) -> None:
        """Send the versions that streams of this worker mixed, until cancelled."""
        while True:
            await asyncio.sleep(_VERSIONS_INTERVAL)
            if changes := self._versions.take_changes():
                self.link.send(Versions(changes))

    def _unsubscribe(self, audience: Audience) -> None:
        self._subscriptions.flush()
        self.link.send(UnsubscribeAudience(audience))

    # ------------------------------------------------------------------------------------------------------- from main

    def _receive(self, message: object) -> None:
        match message:
            case Update():
                self._published.set(self._receiver.apply(message))
            case Start():
                self._start = message
                self._events = EventBatcher(self.link.send, message.first_stream)
            case Versions(changes, vouches):
                self._versions.follow(changes)
                self._versions.vouches = vouches
            case BlockedClients(clients):
                self._blocked = clients
                if self._discovery is not None:
                    self._discovery.block(clients)
            case Removed(changes):
                self._versions.removed_clusters.follow(changes)
            case Ping():
                self.link.send(Pong())
            case Request():
                task = asyncio.create_task(self._respond(message))
                self._responding.add(task)
                task.add_done_callback(self._responding.discard)
            case Stop(grace):
                self._end(grace)

    async def _respond(self, request: Request) -> None:
        value: object = None
        if self._discovery is not None:
            match request.method:
                case "reconnect":
                    value = self._discovery.reconnect(request.node_id)
                case "adopt":
                    value = self._discovery.adopt(request.node_id)
                case "describe":
                    value = await self._discovery.describe(request.node_id)
        self.link.send(Response(request.number, value))

    def _on_lost(self) -> None:
        self._lost.set()
        self._end(0)

    def _end(self, grace: float) -> None:
        if not self._stop.done():
            self._stop.set_result(grace)


def main() -> None:
    """Run a worker on the socket whose file descriptor is the first argument."""
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        sock.setblocking(False)
        event_loop.run(_run(sock))


async def _run(sock: socket.socket) -> None:
    await WorkerProcess().run(sock)


if __name__ == "__main__":
    main()

"""One worker, as the main process sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection

from controlplane.aio.latest import Latest
from controlplane.published import CompiledRevision
from controlplane.versions import VersionIndex
from controlplane.workers.child_process import ChildProcess
from controlplane.workers.link import Link
from controlplane.workers.messages import (
    BlockedClients,
    Events,
    Listening,
    Ping,
    Removed,
    Response,
    Start,
    SubscribeAudiences,
    UnsubscribeAudience,
    Versions,
)
from controlplane.workers.requests import PendingRequests
from controlplane.workers.snapshot_sender import SnapshotSender, UpdateEncoder
from controlplane.xds.events import StreamClosed, StreamEvent, StreamId, StreamOpened


class WorkerHandle:
    """A worker's process, its link, its streams, and the snapshots that it was sent.

    `report` gets the events of its streams. When the worker ends, they are reported as closed.
    """

    def __init__(
        self,
        number: int,
        encoder: UpdateEncoder,
        published: Latest[CompiledRevision | None],
        report: Callable[[StreamId, StreamEvent, float], None],
        versions: VersionIndex,
    ) -> None:
        self.number = number
        self.link = Link(self._receive, self._on_lost, self.send_newest)
        self.process = ChildProcess()
        self.listening, self.ended = asyncio.Event(), asyncio.Event()
        # True if the worker has sent something since the newest `ping`.
        self.answered = False
        self._open_streams: set[StreamId] = set()
        self._sender = SnapshotSender(encoder)
        self._published = published
        self._report = report
        self._versions = versions
        self._requests = PendingRequests(self.link)

    @property
    def pid(self) -> int:
        """Return the process id; 0 before `launch`."""
        return self.process.pid

    @property
    def streams(self) -> int:
        """Return how many streams are open; once the worker has ended, how many were."""
        return len(self._open_streams)

    def has_any(self, streams: Collection[StreamId]) -> bool:
        """Return True if one of these streams is open at this worker."""
        return not self._open_streams.isdisjoint(streams)

    async def launch(self, start: Start, blocked: frozenset[str] = frozenset()) -> None:
        """Start the process, and send it settings, blocks, the index of versions and the newest revision. Errors: OSError."""
        await self.link.connect(self.process.start())
        self.link.send(start)
        if blocked:
            self.link.send(BlockedClients(blocked))
        self.link.send(Versions(self._versions.entries(), self._versions.vouches))
        self.link.send(Removed(self._versions.removed_clusters.all()))
        self.send_newest()

    def send_newest(self) -> None:
        """Send an update to the newest revision, if one is needed. A slow worker gets it once its link is writable again."""
        published = self._published.value
        if published is None or not self.link.writable:
            return
        update = self._sender.update(published)
        if update is not None:
            self.link.send(update)

    def ping(self) -> None:
        """Ask the worker to answer. `answered` becomes True when it does."""
        self.answered = False
        self.link.send(Ping())

    async def request(self, method: str, node_id: str) -> object:
        """Call a method of the worker's `Discovery`, and return its value; None when the worker ends first.

        Errors: UNAVAILABLE / WORKER_GONE when it does not answer.
        """
        return await self._requests.send(method, node_id)

    async def reap(self) -> int:
        """End the process if it still runs, and return its exit code."""
        self.link.close()
        if not self.ended.is_set():
            self.process.kill()
        return await self.process.wait()

    def _receive(self, message: object) -> None:
        self.answered = True
        match message:
            case Events(events):
                for stream, event, when in events:
                    if isinstance(event, StreamOpened):
                        self._open_streams.add(stream)
                    elif isinstance(event, StreamClosed):
                        self._open_streams.discard(stream)
                    self._report(stream, event, when)
            case SubscribeAudiences(audiences):
                for audience in audiences:
                    self._sender.subscribe(audience)
                self.send_newest()
            case UnsubscribeAudience(audience):
                self._sender.unsubscribe(audience)
            case Versions(changes):
                self._versions.apply(changes)
            case Response():
                self._requests.resolve(message)
            case Listening():
                self.listening.set()

    def _on_lost(self) -> None:
        """Report the streams of the worker as closed, because it is gone."""
        self.ended.set()
        self._requests.close()
        now = time.time()
        for stream in self._open_streams:
            self._report(stream, StreamClosed(), now)

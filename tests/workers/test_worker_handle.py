"""A worker as the main process sees it. The test plays the worker at the other end of the socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from controlplane.aio.latest import Latest
from controlplane.envoy_types import CLUSTER
from controlplane.published import CompiledRevision
from controlplane.versions import IndexedVersion, VersionIndex
from controlplane.versions.entry import encode, run
from controlplane.workers.link import Link
from controlplane.workers.messages import (
    Events,
    Listening,
    Ping,
    Pong,
    Removed,
    Request,
    Response,
    Start,
    SubscribeAudiences,
    UnsubscribeAudience,
    Versions,
)
from controlplane.workers.replication import Update
from controlplane.workers.snapshot_sender import UpdateEncoder
from controlplane.workers.worker_handle import WorkerHandle
from controlplane.xds.events import Held, StreamClosed, StreamEvent, StreamId, StreamOpened
from controlplane.xds_server.limits import StreamLimits
from tests.workers.rig import EDGE, Desired, fail, model, until

START = Start(1, "127.0.0.1:1", 100, StreamLimits(), "http2", "text", "info")
# A version that a stream of a worker mixed.
MIXED = IndexedVersion(CLUSTER, "v", "", 1.0, run(encode(())))
OPENED = StreamOpened("127.0.0.1:2", "delta")


class Rig:
    """A handle without a process, and the other end of its link."""

    def __init__(self) -> None:
        self.desired = Desired(model("a"))
        self.published: Latest[CompiledRevision | None] = Latest(self.desired.published)
        self.reported: list[tuple[StreamId, StreamEvent, float]] = []
        self.versions = VersionIndex()
        self.versions.add(self.desired.published.snapshot(EDGE), 1.0)
        self.handle = WorkerHandle(1, UpdateEncoder(fail), self.published, self._report, self.versions)
        self.received: list[object] = []
        self.worker = Link(self.received.append, lambda: None)

    def _report(self, stream: StreamId, event: StreamEvent, when: float) -> None:
        self.reported.append((stream, event, when))

    async def launch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        monkeypatch.setattr(self.handle.process, "start", lambda: ours)
        await self.worker.connect(theirs)
        await self.handle.launch(START)

    async def next(self, kind: type) -> object:
        """Return the next message of a kind, and drop those before it."""
        await until(lambda: any(isinstance(m, kind) for m in self.received))
        while not isinstance(message := self.received.pop(0), kind):
            pass
        return message


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    rig = Rig()
    await rig.launch(monkeypatch)
    yield rig
    rig.worker.close()
    await asyncio.wait_for(rig.handle.ended.wait(), 10)


async def test_a_worker_gets_its_settings_first_and_then_the_newest_revision(rig: Rig) -> None:
    await until(lambda: len(rig.received) == 4)
    assert rig.received[:3] == [START, Versions(rig.versions.entries()), Removed({})]
    assert isinstance(rig.received[3], Update)
    assert rig.received[3].audience_updates == ()
    rig.worker.send(Listening())
    await asyncio.wait_for(rig.handle.listening.wait(), 10)


async def test_a_worker_gets_the_snapshots_that_it_subscribes_to(rig: Rig) -> None:
    await rig.next(Update)
    rig.worker.send(SubscribeAudiences((EDGE,)))
    update = await rig.next(Update)
    assert isinstance(update, Update)
    assert len(update.audience_updates) == 1
    rig.worker.send(UnsubscribeAudience(EDGE))
    rig.worker.send(Pong())
    rig.handle.answered = False
    await until(lambda: rig.handle.answered)
    rig.published.set(rig.desired.change(models_a=model("a", 0)))
    rig.handle.send_newest()
    update = await rig.next(Update)
    assert isinstance(update, Update)
    assert (update.revision, update.audience_updates) == (2, ())


async def test_a_slow_worker_gets_nothing_until_its_link_is_writable_and_then_the_newest(rig: Rig) -> None:
    await rig.next(Update)
    rig.handle.link.pause_writing()
    for blue in (0, 1, 2):
        rig.published.set(rig.desired.change(models_a=model("a", blue)))
        rig.handle.send_newest()
    rig.handle.link.resume_writing()
    update = await rig.next(Update)
    assert isinstance(update, Update)
    assert update.revision == 4


async def test_nothing_is_sent_before_a_revision_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    rig.published.value = None
    await rig.launch(monkeypatch)
    rig.handle.ping()
    await rig.next(Ping)
    assert not any(isinstance(m, Update) for m in rig.received)
    rig.worker.close()
    await asyncio.wait_for(rig.handle.ended.wait(), 10)


async def test_events_are_reported_and_open_streams_are_known(rig: Rig) -> None:
    events: list[tuple[StreamId, StreamEvent, float]] = [(101, OPENED, 1.0), (102, OPENED, 1.5), (101, Held(1), 2.0)]
    rig.worker.send(Events(events))
    await until(lambda: len(rig.reported) == 3)
    assert rig.reported == events
    assert rig.handle.streams == 2
    assert rig.handle.has_any([7, 102])
    assert not rig.handle.has_any([7, 8])
    rig.worker.send(Events([(102, StreamClosed(), 3.0)]))
    await until(lambda: len(rig.reported) == 4)
    assert rig.handle.streams == 1
    assert not rig.handle.has_any([102])


async def test_the_open_streams_of_a_worker_that_ends_are_reported_as_closed(rig: Rig) -> None:
    rig.worker.send(Events([(n, OPENED, 1.0) for n in (101, 102, 103)]))
    rig.worker.send(Events([(102, StreamClosed(), 2.0)]))
    request = asyncio.create_task(rig.handle.request("describe", "edge-1"))
    await until(lambda: len(rig.reported) == 4)
    rig.worker.close()
    await asyncio.wait_for(rig.handle.ended.wait(), 10)
    assert sorted((stream, event) for stream, event, _ in rig.reported[4:]) == [(101, StreamClosed()), (103, StreamClosed())]
    assert rig.handle.streams == 2  # as many as there were
    assert await request is None


async def test_a_request_is_answered_by_the_worker(rig: Rig) -> None:
    request = asyncio.create_task(rig.handle.request("reconnect", "edge-1"))
    message = await rig.next(Request)
    assert message == Request(1, "reconnect", "edge-1")
    rig.worker.send(Response(1, 3))
    assert await request == 3


async def test_any_message_answers_a_ping(rig: Rig) -> None:
    rig.handle.ping()
    assert not rig.handle.answered
    await rig.next(Ping)
    rig.worker.send(Pong())
    await until(lambda: rig.handle.answered)


async def test_reap_closes_the_link(rig: Rig) -> None:
    assert await rig.handle.reap() == 0
    await asyncio.wait_for(rig.handle.ended.wait(), 10)


async def test_a_worker_gets_the_index_of_versions_and_sends_what_it_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    await rig.launch(monkeypatch)
    assert await rig.next(Versions) == Versions(rig.versions.entries())
    rig.worker.send(Versions({MIXED.key: MIXED}))
    await until(lambda: rig.versions.find(CLUSTER, "v") is not None)
    assert MIXED.key in rig.versions.take_changes()


async def test_a_worker_gets_the_removed_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    (cluster, *_) = rig.desired.published.snapshot(EDGE).resources[CLUSTER].values()
    rig.versions.removed_clusters.add([cluster])
    await rig.launch(monkeypatch)
    assert await rig.next(Removed) == Removed({(cluster.name, cluster.version): cluster})

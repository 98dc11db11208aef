"""The keeper of the members: records in batches, a restart that remembers, and releases in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from controlplane.domain import Gateway, Locality
from controlplane.errors import Code, Error
from controlplane.fleet import Fleet, Node, NodeState, RememberedNode
from controlplane.reconciler import members
from controlplane.reconciler.members import NODES, MemberKeeper, decode, encode
from controlplane.snapshot import Audience, Client
from controlplane.store import Fence, Kind, Record, RecordWrite, Store
from controlplane.xds.events import AudienceAssigned, Held, StreamClosed
from tests.fleet.clients import connect
from tests.store.opening import open_store


class Clock:
    """A clock that a test sets. Seconds since the epoch."""

    def __init__(self, now: float = 36_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Keeping:
    """A fleet, and the keeper of its members. It counts the batches that are written."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.fleet = Fleet()
        self.fleet.members.set_gateways({"edge": Gateway("edge", 80, absent_after=100.0)})
        self.store = store
        self.clock = clock
        self.batches: list[list[str]] = []
        self.released: list[str] = []
        self.changes = 0
        self.error: Error | None = None
        self._write = store.records.write
        store.records.write = self._count  # type: ignore[method-assign]
        self.keeper = MemberKeeper(self.fleet, store.records, self._on_change, clock)

    async def _count(
        self, kind: Kind, writes: Sequence[RecordWrite], *, fence: Fence | None = None
    ) -> list[Record | Error | None]:
        if self.error is not None:
            raise self.error
        self.batches.append([w.name for w in writes])
        return await self._write(kind, writes, fence=fence)

    def _on_change(self, released: Sequence[Node], now: float) -> None:
        self.released += [n.id for n in released]
        self.changes += 1

    def ack(self, stream: int, node: str, revision: int = 1) -> None:
        """Connect a node with a stream of its own, and hold a revision."""
        connect(self.fleet, stream, node, self.clock.now)
        self.fleet.apply(stream, AudienceAssigned(Audience(("edge",))), self.clock.now)
        self.fleet.apply(stream, Held(revision), self.clock.now)

    async def stored(self) -> dict[str, RememberedNode]:
        return {r.name: decode(r) for r in await self.store.records.list(NODES)}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await open_store(tmp_path)
    yield store
    await store.close()


@pytest.fixture
def keeping(store: Store) -> Keeping:
    return Keeping(store, Clock())


def test_a_record_is_json_and_ignores_fields_of_a_newer_version() -> None:
    node = RememberedNode("edge-1", "ü", Locality("eu", "", "a"), Client.GRPC, 100, 9)
    value = encode(node)
    assert value.decode() == (
        '{"cluster": "ü", "region": "eu", "sub_zone": "a", "client": "grpc", "first_seen": 100, "last_seen_hour": 9}'
    )
    assert decode(Record("edge-1", 1, value)) == node
    assert decode(Record("edge-1", 1, value[:-1] + b', "new": 1}')) == node


async def test_known_nodes_are_written_in_one_batch_and_an_ack_writes_nothing(keeping: Keeping) -> None:
    for stream, node in enumerate("abc"):
        keeping.ack(stream, node)
    connect(keeping.fleet, 9, "never-acked")
    await keeping.keeper.save()
    assert keeping.batches == [["a", "b", "c"]]
    assert (await keeping.stored())["a"] == RememberedNode("a", "edge", Locality(), Client.ENVOY, 36_000, 10)
    keeping.fleet.publish(2)
    for stream in range(3):
        keeping.fleet.apply(stream, Held(2), keeping.clock.now)
    # A node that comes back within the hour is described as before.
    keeping.fleet.apply(0, StreamClosed(), keeping.clock.now)
    connect(keeping.fleet, 10, "a", keeping.clock.now)
    await keeping.keeper.save()
    assert len(keeping.batches) == 1


async def test_a_batch_is_bounded(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "BATCH", 2)
    for stream, node in enumerate("abc"):
        keeping.ack(stream, node)
    await keeping.keeper.save()
    await keeping.keeper.save()
    await keeping.keeper.save()
    assert keeping.batches == [["a", "b"], ["c"]]


async def test_a_restart_remembers_the_nodes(keeping: Keeping) -> None:
    keeping.ack(1, "a")
    keeping.ack(2, "b")
    await keeping.keeper.close()
    again = Keeping(keeping.store, Clock(50_000.0))
    await again.keeper.load()
    again.fleet.publish(1)
    assert {n.id: again.fleet.state_of(n) for n in again.fleet.nodes.values()} == dict.fromkeys("ab", NodeState.GONE)
    again.ack(1, "a")
    assert not again.fleet.is_done(1)
    again.ack(2, "b")
    assert again.fleet.is_done(1)
    # The records have the new hour, and no more.
    await again.keeper.save()
    assert {n.last_seen_hour for n in (await again.stored()).values()} == {13}
    assert {n.first_seen for n in (await again.stored()).values()} == {36_000}


async def test_a_record_that_is_not_valid_is_ignored_and_named(keeping: Keeping) -> None:
    for name, value in (("a", b"no json"), ("b", b"{}"), ("c", b"[]"), ("d", b'{"client": "x"}')):
        await keeping.store.records.put(NODES, name, value, 0)
    with capture_logs() as lines:
        await keeping.keeper.load()
    assert [line["node"] for line in lines] == ["a", "b", "c", "d"]
    assert not keeping.fleet.nodes
    # It is replaced when the node connects.
    keeping.ack(1, "a")
    await keeping.keeper.save()
    assert decode(next(r for r in await keeping.store.records.list(NODES) if r.name == "a")).first_seen == 36_000


async def test_a_node_that_stays_away_is_released_and_its_record_deleted(keeping: Keeping) -> None:
    keeping.ack(1, "a")
    keeping.ack(2, "b")
    await keeping.keeper.save()
    keeping.fleet.apply(1, StreamClosed(), keeping.clock.now)
    keeping.clock.now += 99
    keeping.keeper.release()
    assert keeping.released == []
    keeping.clock.now += 1
    keeping.keeper.release()
    assert (keeping.released, keeping.changes) == (["a"], 1)
    await keeping.keeper.save()
    assert set(await keeping.stored()) == {"b"}


async def test_the_stop_of_the_control_plane_releases_nobody(keeping: Keeping) -> None:
    keeping.ack(1, "a")
    await keeping.keeper.close()
    keeping.fleet.apply(1, StreamClosed(), keeping.clock.now)
    keeping.clock.now += 1_000
    keeping.keeper.release()
    assert keeping.released == []
    assert set(await keeping.stored()) == {"a"}


async def test_connected_nodes_are_noted_as_seen_once_an_hour(keeping: Keeping) -> None:
    await keeping.keeper.load()
    keeping.ack(1, "a")
    keeping.ack(2, "b")
    await keeping.keeper.save()
    keeping.fleet.apply(2, StreamClosed(), keeping.clock.now)
    for _ in range(3):
        keeping.clock.now += 1_300
        keeping.keeper.release()
        await keeping.keeper.save()
    assert keeping.batches == [["a", "b"], ["b"], ["a"]]
    assert {i: n.last_seen_hour for i, n in (await keeping.stored()).items()} == {"a": 11}


async def test_forgotten_nodes_are_deleted_at_once(keeping: Keeping) -> None:
    keeping.ack(1, "a")
    keeping.ack(2, "b")
    keeping.fleet.apply(1, StreamClosed(), keeping.clock.now)
    await keeping.keeper.save()
    await keeping.keeper.forget(["a"])
    assert set(await keeping.stored()) == set(keeping.fleet.nodes) == {"b"}
    assert keeping.changes == 1


async def test_a_record_that_somebody_else_changed_is_written_again(keeping: Keeping) -> None:
    keeping.ack(1, "a")
    await keeping.store.records.put(NODES, "a", b"{}", 0)
    await keeping.keeper.save()
    await keeping.keeper.save()
    assert keeping.batches == [["a"], ["a"]]
    assert (await keeping.stored())["a"].first_seen == 36_000


async def test_changes_wait_while_the_store_cannot_write(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "INTERVAL", 0.01)
    monkeypatch.setattr(members, "RETRY_INTERVAL", 0.02)
    keeping.error = Error(Code.UNAVAILABLE, "STORE_FULL", "the disk is full")
    keeping.ack(1, "a")
    with capture_logs() as lines:
        task = asyncio.create_task(keeping.keeper.run())
        async with asyncio.timeout(10):
            while len(lines) < 2:  # noqa: ASYNC110  a log line wakes nobody
                await asyncio.sleep(0.005)
            keeping.error = None
            while not await keeping.stored():  # noqa: ASYNC110  the store wakes nobody
                await asyncio.sleep(0.005)
    task.cancel()
    assert {(line["event"], line["nodes"], line["error"]) for line in lines} == {
        ("nodes not remembered yet", 1, "the disk is full")
    }


async def test_nodes_of_a_write_that_is_cancelled_are_written_at_the_stop(keeping: Keeping) -> None:
    started = asyncio.Event()

    async def hang(*_: object, **__: object) -> list[Record | Error | None]:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    keeping.ack(1, "a")
    write, keeping.store.records.write = keeping.store.records.write, hang  # type: ignore[method-assign]
    task = asyncio.create_task(keeping.keeper.save())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    keeping.store.records.write = write  # type: ignore[method-assign]
    await keeping.keeper.close()
    assert set(await keeping.stored()) == {"a"}


async def test_a_node_beyond_the_bound_of_the_store_is_named(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "NODES", Kind("nodes", 1, 8_192))
    keeping.ack(1, "a")
    keeping.ack(2, "b")
    with capture_logs() as lines:
        await keeping.keeper.save()
    assert [(line["event"], line["node"]) for line in lines] == [("node not remembered", "b")]
    assert set(await keeping.stored()) == {"a"}

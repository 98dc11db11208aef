"""The recorder of published versions."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from controlplane.compiler.clusters import compile_cluster
from controlplane.domain import Protocol
from controlplane.domain.revision import Head
from controlplane.domain.state import State
from controlplane.envoy_types import CLUSTER, ROUTES
from controlplane.errors import Code, Error
from controlplane.reconciler import record_versions as module
from controlplane.reconciler.record_versions import VersionRecorder
from controlplane.store import Record, RecordWrite
from controlplane.versions import TRUSTED_AFTER, ClusterChanges, RemovedClusters, VersionChanges, VersionIndex
from tests.store.opening import open_store
from tests.versions.test_index import knows, snapshot
from tests.workers.rig import Desired, model


class FakeRecords:
    """Records in memory, and the batches that were written. `error` is raised by the next write."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.batches: list[Sequence[RecordWrite]] = []
        self.error: Error | None = None
        self._version = 0

    async def list(self, kind: object) -> list[Record]:
        return sorted(self.records.values(), key=lambda r: r.name)

    async def write(self, kind: object, writes: Sequence[RecordWrite]) -> builtins.list[Record | Error | None]:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.batches.append(writes)
        return [self._write(write) for write in writes]

    def _write(self, write: RecordWrite) -> Record | Error | None:
        live = self.records[write.name].version if write.name in self.records else 0
        if live != write.expected:
            return Error(Code.ABORTED, "RECORD_CHANGED", "changed", metadata={"live": str(live)})
        if write.value is None:
            del self.records[write.name]
            return None
        self._version += 1
        record = self.records[write.name] = Record(write.name, self._version, write.value)
        return record


async def recorder(records: object, newest: int, now: float = 1_000.0) -> tuple[VersionRecorder, VersionIndex]:
    index = VersionIndex()
    made = VersionRecorder(index, records, lambda: now)  # type: ignore[arg-type]
    await made.load(newest)
    return made, index


def serve(recorder: VersionRecorder, revision: int, count: int = 0) -> None:
    """Publish a revision, and serve it to one audience."""
    recorder.published(Head(revision))
    recorder.served(snapshot(revision, 20, {f"m{i}": "green" for i in range(count)}))


async def test_what_is_served_survives_a_restart(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    first, _ = await recorder(store.records, 0)
    for n in range(5):
        serve(first, n + 1, n)
        await first.save()
    await first.close()
    _, index = await recorder(store.records, 5)
    assert index.known_since == 0.0
    assert all(knows(index, snapshot(1, 20, {f"m{i}": "green" for i in range(n)})) for n in range(5))
    await store.close()


async def test_revisions_that_follow_each_other_are_saved_in_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELAY", 0.05)
    records = FakeRecords()
    saved, index = await recorder(records, 0)
    changes: list[VersionChanges] = []
    saved.on_changes = changes.append
    run = asyncio.create_task(saved.run())
    await asyncio.sleep(0.01)
    for n in range(3):
        serve(saved, n + 1, n)
    async with asyncio.timeout(5):
        while not records.batches:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert [sorted(w.name.partition("/")[0] for w in batch) for batch in records.batches] == [
        ["cds", "index", "lds", "rds", "rds", "rds"]
    ]
    assert [list(c.values()) for c in changes] == [list(index.entries().values())]
    run.cancel()
    await saved.close()


async def test_an_index_that_is_younger_than_its_history_is_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    records = FakeRecords()
    with capture_logs() as lines:
        saved, index = await recorder(records, 26)
    assert (index.known_since, index.vouches) == (1_000.0, False)
    assert [(line["revision"], line["h"]) for line in lines] == [(26, 24)]
    serve(saved, 27)
    await saved.save()
    _, index = await recorder(records, 27, now=2_000.0)
    assert index.known_since == 1_000.0
    # The server was killed after two more revisions, before it saved them. One would be served again as it was.
    _, index = await recorder(records, 28, now=2_000.0)
    assert index.known_since == 1_000.0
    saved, index = await recorder(records, 29, now=2_000.0)
    assert (index.known_since, index.vouches) == (2_000.0, False)
    await saved.save()
    _, index = await recorder(records, 29, now=2_000.0 + TRUSTED_AFTER)
    assert index.vouches


async def test_revisions_that_nobody_was_served_leave_no_gap() -> None:
    records = FakeRecords()
    saved, _ = await recorder(records, 0)
    saved.published(Head(5))
    await saved.save()
    _, index = await recorder(records, 5)
    assert (index.known_since, index.vouches) == (0.0, True)


async def test_a_snapshot_without_a_revision_is_not_saved() -> None:
    records = FakeRecords()
    saved, index = await recorder(records, 0)
    saved.served(snapshot(0))
    await saved.save()
    assert len(index.entries()) == 0


async def test_dropped_versions_are_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VersionIndex, "MAX_VERSIONS", 20)
    records = FakeRecords()
    saved, index = await recorder(records, 0)
    for n in range(60):
        serve(saved, n + 1, n % 20)
        saved.served(snapshot(n + 1, 20, {"m0": f"v{n}"}))
        if n % 7 == 0:
            await saved.save()
    await saved.save()
    assert len(index.entries()) <= 20
    assert len(records.records) == len(index.entries()) + 1
    _, again = await recorder(records, 60)
    assert again.entries().keys() == index.entries().keys()
    assert again.known_since == index.known_since > 0


async def test_a_full_disk_delays_the_index_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    records = FakeRecords()
    saved, _ = await recorder(records, 0)
    serve(saved, 1)
    records.error = Error(Code.RESOURCE_EXHAUSTED, "STORE_FULL", "no space left")
    with capture_logs() as lines:
        assert not await saved.save()
    assert [(line["event"], line["error"]) for line in lines] == [
        ("index of versions not saved; the write is repeated", "no space left")
    ]
    serve(saved, 2, 1)
    assert await saved.save()
    _, index = await recorder(records, 2)
    assert index.find(ROUTES, snapshot(1, 20).versions[ROUTES]) is not None
    assert index.find(CLUSTER, snapshot(1, 20).versions[CLUSTER]) is not None


async def test_a_record_that_another_process_wrote_is_replaced() -> None:
    records = FakeRecords()
    saved, _ = await recorder(records, 0)
    other, _ = await recorder(records, 0)
    serve(other, 1)
    await other.save()
    serve(saved, 1)
    with capture_logs():
        assert not await saved.save()
        assert await saved.save()
    _, index = await recorder(records, 1)
    assert knows(index, snapshot(1, 20))


def models(count: int, protocol: Protocol = Protocol.HTTP1) -> Head:
    """Return a head with this many models, each with the versions blue (with this protocol) and green."""
    made = [model(f"m{i}") for i in range(count)]
    return Desired(*(replace(m, versions=(replace(m.versions[0], protocol=protocol), m.versions[1])) for m in made)).head


def without_models(number: int) -> Head:
    return Head(number, State())


def blues(head: Head) -> list[str]:
    """Return the version of the cluster of each blue version."""
    return [compile_cluster(name, m.version("blue"))[0].version for name, m in head.state.models.items()]


async def test_removed_clusters_are_kept_before_the_revision_is_served_and_after_a_restart(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    first, index = await recorder(store.records, 0)
    sent: list[ClusterChanges] = []
    first.on_removed = sent.append
    before = models(2)
    first.published(before)
    assert not index.removed_clusters.all()
    first.published(without_models(2))
    assert sent == [index.removed_clusters.all()]
    assert sorted(name for name, _ in sent[0]) == ["m0/blue", "m0/green", "m1/blue", "m1/green"]
    await first.close()
    assert len(sent) == 1
    _, again = await recorder(store.records, 2)
    assert list(again.removed_clusters.all().items()) == list(sent[0].items())
    (version,) = {v for (name, v) in sent[0] if name == "m1/blue"}
    assert version == blues(before)[1]
    found = again.removed_clusters.find("m1/blue", version)
    assert found == compile_cluster("m1", before.state.models["m1"].version("blue"))[0]
    assert again.removed_clusters.take_changes() == {}
    await store.close()


async def test_a_revision_that_changes_many_models_is_not_delayed_by_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 3)
    saved, index = await recorder(FakeRecords(), 0)
    saved.published(models(5))
    saved.published(without_models(2))
    assert len(index.removed_clusters.all()) == 6
    await saved.save()
    assert len(index.removed_clusters.all()) == 10


async def test_dropped_clusters_are_deleted_and_changed_ones_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RemovedClusters, "MAX_CLUSTERS", 3)
    records = FakeRecords()
    saved, index = await recorder(records, 0)
    heads = [models(2), models(2, Protocol.HTTP2)]
    for head in (*heads, heads[0]):
        saved.published(head)
        await saved.save()
    # The first of the four was dropped.
    assert [v for _, v in index.removed_clusters.all()] == [*blues(heads[0]), *blues(heads[1])][1:]
    assert sum(name.startswith("removed/") for name in records.records) == 3
    _, again = await recorder(records, 1)
    assert again.removed_clusters.all() == index.removed_clusters.all()

"""The tests of records that every store must pass. `contract.py` describes how a technology inherits them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest

from controlplane.errors import Code, Error
from controlplane.store import Kind, Record, Records, RecordWrite
from controlplane.store.records import MAX_NAME
from tests.store.places import Open

NODES = Kind("nodes", max_records=5, max_bytes=100)
ROLLOUTS = Kind("rollouts", max_records=3, max_bytes=1_000)

Batches = AsyncIterator[Mapping[str, Record | None]]


async def refused(call: object) -> tuple[Code, str]:
    """Return the code and the reason of the error that a call raises."""
    with pytest.raises(Error) as caught:
        await call  # type: ignore[misc]
    return caught.value.code, caught.value.reason


async def next_batch(batches: Batches) -> Mapping[str, Record | None]:
    """Return the next batch of a watch; it must come within 5 s."""
    return await asyncio.wait_for(anext(batches), 5)


async def watch_until(batches: Batches, view: dict[str, Record], done: asyncio.Event, records: Records) -> None:
    """Apply the batches of a watch to `view`. Return once `done` is set and `view` is equal to the records of the store."""
    async for batch in batches:
        for name, record in batch.items():
            if record is None:
                view.pop(name, None)
            else:
                assert name not in view or view[name].version < record.version
                view[name] = record
        if done.is_set() and list(view.values()) and {r.name: r for r in await records.list(NODES)} == view:
            return


class RecordsContract:
    """The tests of records."""

    async def test_a_new_store_has_no_records(self, place: Open) -> None:
        store = await place()
        assert await store.records.list(NODES) == []
        assert await store.records.get(NODES, "a") is None
        await store.close()

    async def test_a_record_is_stored_durably(self, place: Open) -> None:
        store = await place()
        record = await store.records.put(NODES, "a", b"\0one", 0)
        assert record == Record("a", record.version, b"\0one")
        assert record.version > 0
        assert await store.records.get(NODES, "a") == record
        await store.close()
        store = await place()
        assert await store.records.get(NODES, "a") == record
        await store.close()

    async def test_records_are_listed_by_name(self, place: Open) -> None:
        store = await place()
        records = [await store.records.put(NODES, name, b"x", 0) for name in ("b", "a", "ü/c")]
        assert await store.records.list(NODES) == sorted(records, key=lambda r: r.name)
        await store.close()

    async def test_kinds_are_separate(self, place: Open) -> None:
        store = await place()
        node = await store.records.put(NODES, "a", b"node", 0)
        rollout = await store.records.put(ROLLOUTS, "a", b"rollout", 0)
        assert await store.records.list(NODES) == [node]
        assert await store.records.list(ROLLOUTS) == [rollout]
        await store.close()

    async def test_a_write_that_names_another_version_is_refused(self, place: Open) -> None:
        store = await place()
        first = await store.records.put(NODES, "a", b"1", 0)
        second = await store.records.put(NODES, "a", b"2", first.version)
        assert second.version > first.version
        for expected in (0, first.version, second.version + 1):
            assert await refused(store.records.put(NODES, "a", b"3", expected)) == (Code.ABORTED, "RECORD_CHANGED")
            assert await refused(store.records.delete(NODES, "a", expected)) == (Code.ABORTED, "RECORD_CHANGED")
        assert await refused(store.records.put(NODES, "b", b"3", first.version)) == (Code.ABORTED, "RECORD_CHANGED")
        assert await store.records.list(NODES) == [second]
        await store.close()

    async def test_a_version_is_never_used_again(self, place: Open) -> None:
        store = await place()
        first = await store.records.put(NODES, "a", b"1", 0)
        await store.records.delete(NODES, "a", first.version)
        assert await store.records.get(NODES, "a") is None
        assert await refused(store.records.delete(NODES, "a", 0)) == (Code.ABORTED, "RECORD_CHANGED")
        await store.close()
        store = await place()
        again = await store.records.put(NODES, "a", b"1", 0)
        assert again.version > first.version
        assert await refused(store.records.put(NODES, "a", b"2", first.version)) == (Code.ABORTED, "RECORD_CHANGED")
        await store.close()

    async def test_one_of_several_racing_writes_wins(self, place: Open) -> None:
        store = await place()
        first = await store.records.put(NODES, "a", b"", 0)
        results = await asyncio.gather(
            *(store.records.put(NODES, "a", str(i).encode(), first.version) for i in range(20)), return_exceptions=True
        )
        winners = [r for r in results if isinstance(r, Record)]
        assert len(winners) == 1
        assert all(isinstance(r, Error) and r.reason == "RECORD_CHANGED" for r in results if r is not winners[0])
        assert await store.records.get(NODES, "a") == winners[0]
        await store.close()

    async def test_all_writers_of_a_record_succeed_when_they_retry(self, place: Open) -> None:
        store = await place()

        async def add_one() -> None:
            while True:
                record = await store.records.get(NODES, "sum")
                try:
                    total = int(record.value) if record else 0
                    await store.records.put(NODES, "sum", str(total + 1).encode(), record.version if record else 0)
                except Error as error:
                    if error.reason != "RECORD_CHANGED":
                        raise
                else:
                    return

        await asyncio.gather(*(add_one() for _ in range(12)))
        record = await store.records.get(NODES, "sum")
        assert record is not None
        assert record.value == b"12"
        await store.close()

    async def test_the_number_of_records_of_a_kind_is_bounded(self, place: Open) -> None:
        store = await place()
        records = [await store.records.put(NODES, f"n{i}", b"x", 0) for i in range(NODES.max_records)]
        too_many = (Code.RESOURCE_EXHAUSTED, "TOO_MANY_RECORDS")
        assert await refused(store.records.put(NODES, "more", b"x", 0)) == too_many
        assert await store.records.put(ROLLOUTS, "more", b"x", 0), "each kind has its own bound"
        assert await store.records.put(NODES, "n0", b"y", records[0].version), "a record that exists may still change"
        await store.records.delete(NODES, "n1", records[1].version)
        assert await store.records.put(NODES, "more", b"x", 0)
        assert await refused(store.records.put(NODES, "n1", b"x", 0)) == too_many
        await store.close()

    async def test_racing_writes_do_not_exceed_the_bound(self, place: Open) -> None:
        store = await place()
        results = await asyncio.gather(
            *(store.records.put(NODES, f"n{i}", b"x", 0) for i in range(20)), return_exceptions=True
        )
        assert sum(isinstance(r, Record) for r in results) == NODES.max_records
        assert len(await store.records.list(NODES)) == NODES.max_records
        await store.close()

    async def test_the_sizes_of_name_and_value_are_bounded(self, place: Open) -> None:
        store = await place()
        too_large = (Code.RESOURCE_EXHAUSTED, "RECORD_TOO_LARGE")
        assert await store.records.put(NODES, "a" * MAX_NAME, b"x" * NODES.max_bytes, 0)
        assert await refused(store.records.put(NODES, "b", b"x" * (NODES.max_bytes + 1), 0)) == too_large
        assert await refused(store.records.put(NODES, "b" * (MAX_NAME + 1), b"", 0)) == too_large
        assert await refused(store.records.put(NODES, "ü" * MAX_NAME, b"", 0)) == too_large
        assert await refused(store.records.put(NODES, "", b"", 0)) == too_large
        assert len(await store.records.list(NODES)) == 1
        await store.close()

    async def test_each_write_of_a_batch_succeeds_or_fails_by_itself(self, place: Open) -> None:
        store = await place()
        a, b, c = [await store.records.put(NODES, name, b"1", 0) for name in "abc"]
        outcomes = await store.records.write(
            NODES,
            [
                RecordWrite("a", b"2", a.version),
                RecordWrite("b", None, b.version),
                RecordWrite("c", b"2", a.version),
                RecordWrite("new", b"1", 0),
                RecordWrite("none", None, 0),
                RecordWrite("large", b"x" * (NODES.max_bytes + 1), 0),
            ],
        )
        assert isinstance(outcomes[0], Record)
        assert outcomes[0].version > c.version
        assert outcomes[1] is None
        assert isinstance(outcomes[3], Record)
        errors = [o.reason for o in outcomes if isinstance(o, Error)]
        assert errors == ["RECORD_CHANGED", "RECORD_CHANGED", "RECORD_TOO_LARGE"]
        await store.close()
        store = await place()
        assert await store.records.list(NODES) == [outcomes[0], c, outcomes[3]]
        assert await store.records.write(NODES, []) == []
        await store.close()

    async def test_the_writes_of_a_batch_are_made_in_order_and_within_the_bound(self, place: Open) -> None:
        store = await place()
        outcomes = await store.records.write(NODES, [RecordWrite(f"n{i}", b"x", 0) for i in range(NODES.max_records + 2)])
        assert [o.reason for o in outcomes if isinstance(o, Error)] == ["TOO_MANY_RECORDS"] * 2
        first = outcomes[0]
        assert isinstance(first, Record)
        deleted, created = await store.records.write(
            NODES, [RecordWrite("n0", None, first.version), RecordWrite("new", b"", 0)]
        )
        assert deleted is None
        assert isinstance(created, Record)
        await store.close()

    async def test_a_watcher_sees_a_batch(self, place: Open) -> None:
        store = await place()
        batches = store.records.watch(NODES)
        assert await next_batch(batches) == {}
        outcomes = await store.records.write(NODES, [RecordWrite("a", b"1", 0), RecordWrite("b", b"1", 0)])
        assert await next_batch(batches) == dict(zip("ab", outcomes, strict=True))
        await store.close()

    async def test_a_watch_begins_with_all_records(self, place: Open) -> None:
        store = await place()
        assert await next_batch(store.records.watch(NODES)) == {}
        a, b = [await store.records.put(NODES, name, b"x", 0) for name in "ab"]
        await store.records.put(ROLLOUTS, "c", b"x", 0)
        assert await next_batch(store.records.watch(NODES)) == {"a": a, "b": b}
        await store.close()

    async def test_a_watch_yields_the_newest_of_each_record(self, place: Open) -> None:
        store = await place()
        a = await store.records.put(NODES, "a", b"1", 0)
        batches = store.records.watch(NODES)
        assert await next_batch(batches) == {"a": a}
        for i in range(10):  # while the watcher waits for no batch
            a = await store.records.put(NODES, "a", str(i).encode(), a.version)
        b = await store.records.put(NODES, "b", b"", 0)
        assert await next_batch(batches) == {"a": a, "b": b}
        await store.records.delete(NODES, "b", b.version)
        assert await next_batch(batches) == {"b": None}
        b = await store.records.put(NODES, "b", b"again", 0)
        assert await next_batch(batches) == {"b": b}
        await store.records.delete(NODES, "a", a.version)
        c = await store.records.put(NODES, "c", b"", 0)
        assert await next_batch(batches) == {"a": None, "c": c}
        await store.close()

    async def test_a_watch_skips_a_record_that_was_created_and_deleted_in_between(self, place: Open) -> None:
        store = await place()
        batches = store.records.watch(NODES)
        assert await next_batch(batches) == {}
        gone = await store.records.put(NODES, "gone", b"", 0)
        await store.records.delete(NODES, "gone", gone.version)
        a = await store.records.put(NODES, "a", b"", 0)
        assert await next_batch(batches) == {"a": a}
        await store.close()

    async def test_watchers_see_every_record_while_writers_write(self, place: Open) -> None:
        store = await place()
        done = asyncio.Event()
        views: list[dict[str, Record]] = [{}, {}]
        watchers = [asyncio.create_task(watch_until(store.records.watch(NODES), view, done, store.records)) for view in views]

        async def write(name: str) -> None:
            for i in range(15):
                record = await store.records.get(NODES, name)
                if record is not None and i % 4 == 3:
                    await store.records.delete(NODES, name, record.version)
                else:
                    await store.records.put(NODES, name, str(i).encode(), record.version if record else 0)
                await asyncio.sleep(0)

        await asyncio.gather(*(write(f"n{i}") for i in range(4)))
        done.set()
        await store.records.put(NODES, "last", b"", 0)
        await asyncio.wait_for(asyncio.gather(*watchers), 10)
        assert views[0] == views[1] == {r.name: r for r in await store.records.list(NODES)}
        await store.close()

    async def test_a_write_whose_caller_is_cancelled_is_completed_or_not_begun(self, place: Open) -> None:
        store = await place()
        for i in range(5):
            task = asyncio.create_task(store.records.put(NODES, f"n{i}", b"x", 0))
            for _ in range(i):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        last = await store.records.put(ROLLOUTS, "last", b"", 0)
        written = await store.records.list(NODES)
        await store.close()
        store = await place()
        assert await store.records.list(NODES) == written
        assert await store.records.list(ROLLOUTS) == [last]
        await store.close()

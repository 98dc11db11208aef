"""The tests that every store must pass. A technology's test module inherits `Contract` and defines the fixture `place`.

`place` is a function that opens a store, and opens the same store again after it was closed. Each part of the contract has its
own file: this one tests the history, the others test records and leases.
"""

from __future__ import annotations

import asyncio
import re

import pytest

from controlplane.domain import Gateway
from controlplane.domain.revision import Action, Draft, Head, ObjectMeta, Revision
from controlplane.domain.state import Changes, State
from controlplane.errors import Code, Error
from controlplane.store import Store
from tests.store.contract_leases import LeasesContract
from tests.store.contract_records import RecordsContract
from tests.store.places import EDGE, GREEN, IRIS, Open, changes, commit, draft, filled


class Contract(RecordsContract, LeasesContract):
    """All tests of the contract. The tests of the history are here, the others are inherited."""

    async def test_the_random_id_of_a_history_never_changes(self, place: Open) -> None:
        store = await place()
        history_id = store.history_id
        assert re.fullmatch(r"[0-9a-f]{8}", history_id)
        await filled(store)
        await store.close()
        store = await place()
        assert store.history_id == history_id
        await store.close()

    async def test_a_commit_returns_the_proposed_head_itself(self, place: Open) -> None:
        store = await place()
        change = changes(EDGE, IRIS)
        proposed = store.head.value.after(change, draft())
        assert await store.commit(proposed, change, draft()) is proposed
        assert store.head.value is proposed
        await commit(store, 1, changes(GREEN), draft())
        assert store.head.value.state.gateways is proposed.state.gateways, "an unchanged collection is the same object"
        await store.close()

    async def test_a_new_store_is_empty(self, place: Open) -> None:
        store = await place()
        assert store.head.value == Head(history=store.history_id)
        assert await store.at(0) == Head(history=store.history_id)
        assert await store.revisions(10, 10) == []
        assert await store.recall("x") is None
        await store.close()

    async def test_numbers_have_no_gap_and_the_head_is_the_newest(self, place: Open) -> None:
        store = await place()
        heads = await filled(store)
        assert [h.number for h in heads] == [0, 1, 2, 3, 4, 5]
        assert store.head.value == heads[-1]
        assert [r.number for r in await store.revisions(100, 100)] == [5, 4, 3, 2, 1]
        await store.close()

    async def test_the_head_has_metadata_of_each_object(self, place: Open) -> None:
        store = await place()
        heads = await filled(store)
        history = store.history_id
        edge, iris = ObjectMeta(1, 101.0, 101.0, history), ObjectMeta(3, 101.0, 103.0, history)
        assert heads[3].meta == {"gateways/edge": edge, "models/iris": iris}
        assert heads[3].time == 103.0
        assert "models/iris" not in heads[4].meta
        assert heads[5].meta["models/iris"] == ObjectMeta(5, 105.0, 105.0, history), "created again, it gets a new create time"
        await store.close()

    async def test_earlier_heads_are_read_as_they_were(self, place: Open) -> None:
        store = await place()
        heads = await filled(store)
        for head in heads:
            assert await store.at(head.number) == head
        await store.close()
        store = await place()
        assert store.head.value == heads[-1]
        for head in heads:
            assert await store.at(head.number) == head
        await store.close()

    @pytest.mark.parametrize("number", [-1, 6, 10**15])
    async def test_a_revision_that_does_not_exist_is_not_found(self, place: Open, number: int) -> None:
        store = await place()
        await filled(store)
        for read in (store.at, store.revision):
            with pytest.raises(Error) as caught:
                await read(number)
            assert caught.value.code is Code.NOT_FOUND
            assert "revisions/5" in caught.value.message
        await store.close()

    async def test_a_revision_has_the_objects_before_and_after(self, place: Open) -> None:
        store = await place()
        await filled(store)
        assert await store.revision(1) == Revision(
            1, draft(101.0), {"gateways/edge": (None, EDGE), "models/iris": (None, IRIS)}, store.history_id
        )
        assert (await store.revision(2)).changes == {"models/iris": (IRIS, GREEN)}
        assert (await store.revision(4)).changes == {"models/iris": (IRIS, None)}
        assert (await store.revision(5)).changes == {"models/iris": (None, GREEN)}
        assert list((await store.revision(1)).changes) == ["gateways/edge", "models/iris"]
        await store.close()

    async def test_every_field_of_a_draft_is_stored(self, place: Open) -> None:
        store = await place()
        full = Draft("Ann é", "why\nnot", Action.REVERT, 12.25, 7, "id-1", "digest")
        await commit(store, 0, changes(EDGE), full)
        await store.close()
        store = await place()
        assert (await store.revision(1)).draft == full
        await store.close()

    async def test_the_history_is_read_in_pages(self, place: Open) -> None:
        store = await place()
        await filled(store)
        assert [r.number for r in await store.revisions(6, 2)] == [5, 4]
        assert [r.number for r in await store.revisions(4, 2)] == [3, 2]
        assert [r.number for r in await store.revisions(2, 2)] == [1]
        assert await store.revisions(1, 2) == []
        assert [r.number for r in await store.revisions(100, 10, "gateways/edge")] == [1]
        assert [r.number for r in await store.revisions(5, 2, "models/iris")] == [4, 3]
        assert await store.revisions(100, 10, "models/other") == []
        await store.close()

    @pytest.mark.parametrize("base", [-1, 0, 4, 6])
    async def test_a_commit_with_a_stale_base_is_refused_and_changes_nothing(self, place: Open, base: int) -> None:
        store = await place()
        head = (await filled(store))[-1]
        serial = store.head.serial
        with pytest.raises(Error) as caught:
            await commit(store, base, changes(IRIS), draft(request_id="r", digest="d"))
        assert (caught.value.code, caught.value.reason) == (Code.ABORTED, "CONFLICT")
        assert store.head.value == head
        assert store.head.serial == serial
        assert await store.recall("r") is None
        await store.close()

    async def test_one_of_several_racing_commits_wins(self, place: Open) -> None:
        store = await place()
        results = await asyncio.gather(
            *(commit(store, 0, changes(Gateway("edge", 1000 + i)), draft(i)) for i in range(20)), return_exceptions=True
        )
        winners = [r for r in results if isinstance(r, Head)]
        assert [h.number for h in winners] == [1]
        assert all(isinstance(r, Error) and r.reason == "CONFLICT" for r in results if r is not winners[0])
        assert store.head.value == winners[0]
        assert len(await store.revisions(100, 100)) == 1
        await store.close()

    async def test_all_writers_succeed_when_they_retry(self, place: Open) -> None:
        store = await place()

        async def retry(i: int) -> int:
            while True:
                try:
                    return (await commit(store, store.head.value.number, changes(Gateway(f"g{i}", 1000 + i)), draft(i))).number
                except Error as error:
                    if error.reason != "CONFLICT":
                        raise

        numbers = await asyncio.gather(*(retry(i) for i in range(15)))
        assert sorted(numbers) == list(range(1, 16))
        assert len(store.head.value.state.gateways) == 15
        await store.close()

    async def test_request_ids_are_remembered(self, place: Open) -> None:
        store = await place()
        await commit(store, 0, changes(EDGE), draft(request_id="one", digest="d1"))
        await store.remember("two", "d2", 1)
        await store.close()
        store = await place()
        one, two = await store.recall("one"), await store.recall("two")
        assert one is not None
        assert two is not None
        assert (one.digest, one.revision, two.digest, two.revision) == ("d1", 1, "d2", 1)
        await store.close()

    @pytest.mark.parametrize("used", ["one", "two"])
    async def test_a_request_id_cannot_be_used_twice(self, place: Open, used: str) -> None:
        store = await place()
        head = await commit(store, 0, changes(EDGE), draft(request_id="one", digest="d1"))
        await store.remember("two", "d2", 1)
        for again in (commit(store, 1, changes(IRIS), draft(request_id=used, digest="d3")), store.remember(used, "d3", 1)):
            with pytest.raises(Error) as caught:
                await again
            assert (caught.value.code, caught.value.reason) == (Code.ALREADY_EXISTS, "REQUEST_ID_USED")
        assert store.head.value == head
        assert await store.revisions(100, 100) == [await store.revision(1)]
        assert (await commit(store, 1, changes(IRIS), draft())).number == 2
        await store.close()

    async def test_watchers_are_woken_and_see_the_newest_head(self, place: Open) -> None:
        store = await place()
        seen: list[int] = []

        async def watch() -> None:
            async for head in store.head.watch():
                seen.append(head.number)
                if head.number == 5:
                    return

        watcher = asyncio.create_task(watch())
        await asyncio.sleep(0)
        await filled(store)
        await asyncio.wait_for(watcher, 5)
        assert seen[0] == 0
        assert seen[-1] == 5
        assert seen == sorted(set(seen))
        await store.close()

    async def test_a_commit_whose_caller_is_cancelled_is_completed_or_not_begun(self, place: Open) -> None:
        store = await place()
        for i in range(10):
            number = store.head.value.number
            task = asyncio.create_task(commit(store, number, changes(Gateway("edge", 1000 + i)), draft(i)))
            for _ in range(i):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        head = await commit(store, await _settled_number(store), changes(IRIS), draft())
        await store.close()
        store = await place()
        assert store.head.value == head
        assert len(await store.revisions(100, 100)) == head.number
        await store.close()

    async def test_replaying_the_changes_gives_the_state(self, place: Open) -> None:
        store = await place()
        await filled(store)
        state = State()
        for revision in reversed(await store.revisions(100, 100)):
            assert all(state.get(n) == old for n, (old, _) in revision.changes.items())
            state = state.replayed(Changes({n: new for n, (_, new) in revision.changes.items()}))
            assert state == (await store.at(revision.number)).state
        await store.close()


async def _settled_number(store: Store) -> int:
    """Return the newest number, after the write in progress whose caller was cancelled, if there is one."""
    with pytest.raises(Error):
        await commit(store, -1, changes(EDGE), draft())
    return store.head.value.number

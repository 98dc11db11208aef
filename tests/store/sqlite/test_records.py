"""Records in the SQLite file when a COMMIT fails. `tests/store/contract_records.py` covers the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.errors import Code, Error
from tests.store.contract_records import NODES, next_batch
from tests.store.places import IRIS, changes, commit, draft
from tests.store.sqlite.common import Flaky, open_flaky


async def test_a_write_that_failed_before_its_commit_changes_nothing(tmp_path: Path, flaky: type[Flaky]) -> None:
    store = await open_flaky(tmp_path)
    flaky.mode = "before"
    with pytest.raises(Error) as caught:
        await store.records.put(NODES, "a", b"1", 0)
    assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "STORE_IO")
    flaky.mode = ""
    assert await store.records.get(NODES, "a") is None
    assert await store.records.put(NODES, "a", b"1", 0)
    await store.close()


async def test_a_watcher_sees_a_write_that_failed_after_its_commit(tmp_path: Path, flaky: type[Flaky]) -> None:
    store = await open_flaky(tmp_path)
    batches = store.records.watch(NODES)
    assert await next_batch(batches) == {}
    flaky.mode = "after"
    with pytest.raises(Error):
        await store.records.put(NODES, "a", b"1", 0)
    flaky.mode = ""
    await commit(store, 0, changes(IRIS), draft())  # the next write of any part finds out the outcome
    batch = await next_batch(batches)
    assert batch == {"a": await store.records.get(NODES, "a")}
    assert batch["a"] is not None
    await store.close()


async def test_calls_are_unavailable_while_the_disk_does_not_answer(tmp_path: Path, flaky: type[Flaky]) -> None:
    store = await open_flaky(tmp_path)
    flaky.mode = "away"
    for call in (store.records.list(NODES), store.records.put(NODES, "a", b"", 0), store.leases.current("leader", 0.0)):
        with pytest.raises(Error) as caught:
            await call
        assert caught.value.code is Code.UNAVAILABLE
    flaky.mode = ""
    await store.close()

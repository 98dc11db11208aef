"""The SQLite store passes the contract, and settles commits whose outcome is in doubt."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.domain import Gateway, Object
from controlplane.domain.state import Changes
from controlplane.errors import Code, Error
from tests.nouns import gateways, models
from tests.store.contract import Contract
from tests.store.opening import open_store
from tests.store.places import EDGE, IRIS, Open, changes, commit, draft, filled
from tests.store.sqlite.common import Flaky, open_flaky


class TestSqlite(Contract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Open:
        return lambda: open_store(tmp_path / "data")


names = st.sampled_from(["a", "b", "c"])
objects = st.one_of(gateways.flatmap(lambda g: names.map(lambda n: _renamed(g, n))), models(name=names))
steps = st.lists(st.dictionaries(names, objects | st.none(), min_size=1, max_size=3), max_size=6)


def _renamed(gateway: Gateway, name: str) -> Gateway:
    return Gateway(name, gateway.port, gateway.address, gateway.routing, gateway.nodes)


def reads_the_same_after_reopening(history: list[dict[str, Object | None]]) -> None:
    async def run(directory: Path) -> None:
        store = await open_store(directory)
        heads = [store.head.value]
        for step in history:
            wanted: dict[str, Object | None] = {}
            for name, obj in step.items():
                wanted[obj.resource_name if obj else f"models/{name}"] = obj
            real = {n: o for n, o in wanted.items() if o is not None or heads[-1].state.get(n) is not None}
            if real:
                heads.append(await commit(store, heads[-1].number, Changes(real), draft(float(len(heads)))))
        revisions = await store.revisions(10**9, 100)
        await store.close()
        store = await open_store(directory)
        assert store.head.value == heads[-1]
        assert await store.revisions(10**9, 100) == revisions
        for head in heads:
            assert await store.at(head.number) == head
        await store.close()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(Path(directory)))


@given(steps)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_history_reads_the_same_after_reopening(history: list[dict[str, Object | None]]) -> None:
    reads_the_same_after_reopening(history)


@pytest.mark.slow
@given(steps)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_history_reads_the_same_after_reopening_long(history: list[dict[str, Object | None]]) -> None:
    reads_the_same_after_reopening(history)


async def test_a_commit_that_failed_after_it_happened_succeeds(tmp_path: Path, flaky: type[Flaky]) -> None:
    store = await open_flaky(tmp_path)
    flaky.mode = "after"
    head = await commit(store, 0, changes(EDGE), draft(request_id="r", digest="d"))
    assert (head.number, store.head.value) == (1, head)
    flaky.mode = ""
    assert (await commit(store, 1, changes(IRIS), draft())).number == 2
    await store.close()


async def test_a_commit_that_failed_before_it_happened_changes_nothing(tmp_path: Path, flaky: type[Flaky]) -> None:
    store = await open_flaky(tmp_path)
    flaky.mode = "before"
    with pytest.raises(Error) as caught:
        await commit(store, 0, changes(EDGE), draft(request_id="r", digest="d"))
    assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "STORE_IO")
    assert store.head.value.number == 0
    flaky.mode = ""
    assert await store.recall("r") is None
    assert (await commit(store, 0, changes(EDGE), draft(request_id="r", digest="d"))).number == 1
    await store.close()


async def test_a_commit_whose_outcome_is_unknown_is_settled_by_the_next_write(tmp_path: Path, flaky: type[Flaky]) -> None:
    """The commit happened, and the disk failed before the store could read the outcome."""
    store = await open_flaky(tmp_path)
    flaky.mode = "after, then away"
    with pytest.raises(Error) as caught:
        await commit(store, 0, changes(EDGE), draft(request_id="r", digest="d"))
    assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "STORE_UNKNOWN_OUTCOME")
    assert store.head.value.number == 0
    with pytest.raises(Error) as caught:
        await commit(store, 0, changes(IRIS), draft())
    assert caught.value.reason == "STORE_IO"
    flaky.mode = ""
    with pytest.raises(Error) as caught:
        await commit(store, 0, changes(IRIS), draft())
    assert caught.value.reason == "CONFLICT"
    assert store.head.value.state.gateways == {"edge": EDGE}
    assert (await commit(store, 1, changes(IRIS), draft())).number == 2
    await store.close()


async def test_the_head_can_be_read_while_the_disk_does_not_answer(tmp_path: Path, flaky: type[Flaky]) -> None:
    store = await open_flaky(tmp_path)
    await filled(store)
    head = store.head.value
    flaky.mode = "away"
    for call in (commit(store, 5, changes(IRIS), draft()), store.remember("x", "d", 5), store.recall("x"), store.at(3)):
        with pytest.raises(Error) as caught:
            await call
        assert caught.value.code is Code.UNAVAILABLE
    assert store.head.value == head, "the head in memory is still served"
    flaky.mode = ""
    assert (await commit(store, 5, changes(IRIS), draft())).number == 6
    await store.close()

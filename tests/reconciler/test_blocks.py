"""The keeper of the blocks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane.errors import Code, Error
from controlplane.reconciler.blocks import BLOCKS, MAX_REASON, Block, BlockKeeper, decode
from controlplane.store import Record, Store
from tests.store.opening import open_store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await open_store(tmp_path)
    yield store
    await store.close()


async def test_blocks_are_remembered_and_reported(store: Store) -> None:
    changes: list[frozenset[str]] = []
    keeper = BlockKeeper(store.records, changes.append, lambda: 7.0)
    assert await keeper.block("spiffe://td/web", "stolen", "ada") == Block("spiffe://td/web", "stolen", "ada", 7.0)
    await keeper.block("edge-1", "", "ada")
    await keeper.block("edge-1", "again", "bob")
    assert changes[-1] == {"spiffe://td/web", "edge-1"}
    again = BlockKeeper(store.records, changes.append)
    await again.load()
    assert again.all() == [Block("edge-1", "again", "bob", 7.0), Block("spiffe://td/web", "stolen", "ada", 7.0)]
    await again.unblock("edge-1")
    assert changes[-1] == again.clients == {"spiffe://td/web"}


async def test_wrong_calls_are_refused(store: Store) -> None:
    keeper = BlockKeeper(store.records, lambda clients: None)
    for client, reason in (("", ""), ("x" * 513, ""), ("edge-1", "x" * (MAX_REASON + 1))):
        with pytest.raises(Error) as caught:
            await keeper.block(client, reason, "ada")
        assert caught.value.code is Code.INVALID_ARGUMENT
    with pytest.raises(Error) as caught:
        await keeper.unblock("edge-1")
    assert caught.value.code is Code.NOT_FOUND


@pytest.mark.parametrize("value", [b"", b"[]", b'{"time": "x"}'])
async def test_a_record_that_is_not_valid_still_blocks(store: Store, value: bytes) -> None:
    assert decode(Record("edge-1", 1, value)).client == "edge-1"
    await store.records.put(BLOCKS, "edge-1", value, 0)
    keeper = BlockKeeper(store.records, lambda clients: None)
    await keeper.load()
    assert keeper.clients == {"edge-1"}

"""The contract of withdrawn keys, with the SQLite store."""

from __future__ import annotations

from pathlib import Path

from controlplane.domain import OpaqueValue, Secret
from controlplane.domain.state import Changes
from controlplane.store import Store, WithdrawnKey
from tests.store import places
from tests.store.opening import open_store


async def commit(store: Store, value: str | None, name: str = "openai") -> None:
    """Commit a value, or delete the secret. The time of the revision is 100 seconds for each revision."""
    number = store.head.value.number
    secret = Secret(name, OpaqueValue(value)) if value is not None else None
    await places.commit(store, number, Changes({f"secrets/{name}": secret}), places.draft(100.0 * (number + 1)))


async def test_a_key_is_withdrawn_from_the_revision_on_that_does_not_use_it(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await commit(store, "sk-one")
    assert await store.withdrawn_keys.list() == []
    await commit(store, "sk-two")
    await commit(store, "sk-other", "other")
    await commit(store, None)
    withdrawn = await store.withdrawn_keys.list()
    assert [(key.secret, key.time) for key in withdrawn] == [("openai", 200.0), ("openai", 400.0)]
    await commit(store, "sk-one")  # the first key is in use again
    assert await store.withdrawn_keys.list() == withdrawn[1:]
    await commit(store, "sk-two")
    assert [(key.id, key.time) for key in await store.withdrawn_keys.list()] == [(withdrawn[0].id, 600.0)]
    await store.close()


async def test_only_withdrawn_keys_are_purged_and_old_revisions_stay_readable(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await commit(store, "sk-one")
    live = (await store.withdrawn_keys.list(), store.head.value)
    await commit(store, "sk-two")
    (key,) = await store.withdrawn_keys.list()
    assert await store.withdrawn_keys.purge([key, WithdrawnKey("openai", "0" * 32, 1.0)]) == [key]
    assert await store.withdrawn_keys.purge([key]) == []
    await store.close()
    store = await open_store(tmp_path)
    old = (await store.at(1)).state.secrets["openai"]
    assert (old.purged, old.content) == (True, OpaqueValue("", key.id))
    assert old != live[1].state.secrets["openai"]
    assert store.head.value.state.secrets["openai"] == Secret("openai", OpaqueValue("sk-two"))
    assert (await store.revision(2)).changes["secrets/openai"][0] == old
    await store.close()


async def test_no_file_of_the_store_has_a_purged_key(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await commit(store, "sk-one")
    wal = (tmp_path / "turnout.db-wal").read_bytes()
    await commit(store, "sk-two")
    (key,) = await store.withdrawn_keys.list()
    sealed = wal[wal.index(key.id.encode()) :]
    start = sealed.index(b":") - 16
    sealed = sealed[start : start + 60]  # the id of the sealing key, and most of the sealed text

    def files_with_it() -> list[str]:
        return [path.name for path in tmp_path.iterdir() if sealed in path.read_bytes()]

    assert files_with_it() == ["turnout.db-wal"]
    await store.withdrawn_keys.purge([key])
    assert files_with_it() == []
    await store.close()

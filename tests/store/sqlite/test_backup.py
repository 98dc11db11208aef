"""Backups: consistent, private, complete and checked; restored, they are a new history."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.domain.revision import Revision
from controlplane.errors import Code, Error
from controlplane.store import Kind
from controlplane.store.sqlite import DATABASE, backup
from controlplane.store.sqlite.backup import back_up, inspect, restore
from tests.store.opening import open_store
from tests.store.places import GREEN, IRIS, changes, commit, draft, filled
from tests.store.sqlite.common import change, create, store_error
from tests.tools import missing

STORED = Path(__file__).parents[1] / "testdata" / "bddd395"
KIND = Kind("nodes", max_records=10, max_bytes=100)


def names(directory: Path) -> list[str]:
    """Return the sorted names in a directory."""
    return sorted(path.name for path in directory.iterdir())


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def test_a_backup_of_an_open_store_is_the_store_at_one_moment(tmp_path: Path) -> None:
    data, file = tmp_path / "data", tmp_path / "backup.db"
    store = await open_store(data)
    heads = await filled(store)
    await store.remember("id", "digest", 5)
    record = await store.records.put(KIND, "edge-1", b"value", 0)
    summary = await asyncio.to_thread(back_up, data, file)
    await commit(store, 5, changes(IRIS), draft())  # after the backup, and the store can still be written to
    assert (summary.history, summary.revision, summary.time) == (store.history_id, 5, 105.0)
    assert summary.bytes == file.stat().st_size
    assert inspect(file) == summary
    assert (mode(file), names(tmp_path)) == (0o600, ["backup.db", "data"])
    await store.close()

    restored, aside = restore(file, tmp_path / "restored")
    assert aside is None
    again = await open_store(tmp_path / "restored")
    assert again.history_id == restored.history != store.history_id
    assert not again.created
    assert again.head.value.state == heads[5].state
    assert [r.changes for r in await again.revisions(9, 9)] == [r.changes for r in await store_revisions(data)]
    assert await again.recall("id") is not None
    assert await again.records.get(KIND, "edge-1") == record
    await again.close()


async def store_revisions(directory: Path) -> list[Revision]:
    """Return revisions 5 to 1 of a store."""
    store = await open_store(directory)
    try:
        return await store.revisions(6, 9)
    finally:
        await store.close()


async def test_backups_while_the_store_is_written_to_are_consistent(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "data")
    await filled(store)

    async def write() -> None:
        for number in range(5, 45):
            await commit(store, number, changes((IRIS, GREEN)[number % 2]), draft(float(number)))

    writing = asyncio.create_task(write())
    revisions = []
    for i in range(5):
        revisions.append((await asyncio.to_thread(back_up, tmp_path / "data", tmp_path / f"{i}.db")).revision)
    await writing
    await store.close()
    assert revisions == sorted(revisions)


async def test_a_restored_store_uses_no_number_again(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "data")
    await filled(store)
    await asyncio.to_thread(back_up, tmp_path / "data", tmp_path / "backup.db")
    lost = await store.records.put(KIND, "edge-1", b"value", 0)
    lost_head = await commit(store, 5, changes(IRIS), draft())
    await store.close()
    restore(tmp_path / "backup.db", tmp_path / "restored")
    again = await open_store(tmp_path / "restored")
    assert (await again.records.put(KIND, "edge-1", b"value", 0)).version > lost.version + 1_000_000
    head = await commit(again, 5, changes(IRIS), draft())
    assert (head.number, head.etag != lost_head.etag) == (6, True)
    with pytest.raises(sqlite3.IntegrityError):
        await asyncio.to_thread(_update_identity, tmp_path / "restored")
    await again.close()


def _update_identity(directory: Path) -> None:
    db = sqlite3.connect(directory / DATABASE)
    try:
        db.execute("UPDATE identity SET history_id = 'other'")
    finally:
        db.close()


def test_a_store_of_the_first_schema_can_be_backed_up_and_restored(tmp_path: Path) -> None:
    shutil.copytree(STORED, tmp_path / "data")
    summary = back_up(tmp_path / "data", tmp_path / "backup.db")
    assert (summary.history, summary.revision, len(summary.sealing_key_ids)) == ("", 14, 1)
    restored, _ = restore(tmp_path / "backup.db", tmp_path / "restored")
    assert re.fullmatch("[0-9a-f]{8}", restored.history)
    assert store_error(tmp_path / "restored").reason == "SECRET_KEY_MISSING"
    shutil.copy(STORED / "secret.key", tmp_path / "restored")
    (tmp_path / "restored" / "secret.key").chmod(0o600)
    asyncio.run(_open_and_close(tmp_path / "restored"))


async def _open_and_close(directory: Path) -> None:
    await (await open_store(directory)).close()


def test_a_store_is_replaced_only_on_demand_and_kept_aside(tmp_path: Path) -> None:
    create(tmp_path / "data")
    back_up(tmp_path / "data", tmp_path / "backup.db")
    before = (tmp_path / "data" / DATABASE).read_bytes()
    with pytest.raises(Error, match="holds a store: name a new directory, or repeat with --replace") as caught:
        restore(tmp_path / "backup.db", tmp_path / "data")
    assert caught.value.reason == "STORE_EXISTS"
    assert (tmp_path / "data" / DATABASE).read_bytes() == before
    _, aside = restore(tmp_path / "backup.db", tmp_path / "data", replace=True)
    assert aside is not None
    assert (aside / DATABASE).read_bytes() == before
    assert mode(aside) == 0o700
    assert mode(tmp_path / "data" / DATABASE) == 0o600
    asyncio.run(_open_and_close(tmp_path / "data"))


def test_a_database_can_be_restored_onto_itself(tmp_path: Path) -> None:
    """This is the advice of STORE_REPLACED."""
    create(tmp_path)
    old = inspect(tmp_path / DATABASE)
    (tmp_path / "turnout.history").write_text(f"{old.history} {9:>18}\n")
    assert store_error(tmp_path).reason == "STORE_REPLACED"
    restored, _ = restore(tmp_path / DATABASE, tmp_path, replace=True)
    assert (restored.revision, restored.history != old.history) == (5, True)
    asyncio.run(_open_and_close(tmp_path))


def test_a_lost_store_can_be_restored_where_it_was(tmp_path: Path) -> None:
    create(tmp_path / "data")
    back_up(tmp_path / "data", tmp_path / "backup.db")
    (tmp_path / "data" / DATABASE).unlink()
    assert store_error(tmp_path / "data").reason == "STORE_LOST"
    restore(tmp_path / "backup.db", tmp_path / "data")
    asyncio.run(_open_and_close(tmp_path / "data"))


def test_files_that_root_restores_belong_to_the_owner_of_the_directory(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing("only root can give a directory to another user")
    create(tmp_path / "data")
    back_up(tmp_path / "data", tmp_path / "backup.db")
    service = tmp_path / "service"
    service.mkdir(mode=0o700)
    os.chown(service, 12_345, 12_346)
    restore(tmp_path / "backup.db", service)
    owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in service.iterdir()}
    assert owners == dict.fromkeys((DATABASE, "turnout.lock", "turnout.history"), (12_345, 12_346))


async def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "data")
    await filled(store)
    await asyncio.to_thread(back_up, tmp_path / "data", tmp_path / "backup.db")
    with pytest.raises(Error, match="is held by process") as caught:
        restore(tmp_path / "backup.db", tmp_path / "data", replace=True)
    assert caught.value.reason == "STORE_HELD"
    await store.close()


def test_a_backup_needs_a_store_and_a_new_file(tmp_path: Path) -> None:
    with pytest.raises(Error, match="holds no store: name the directory of the server with --data") as caught:
        back_up(tmp_path / "nowhere", tmp_path / "backup.db")
    assert (caught.value.code, caught.value.reason) == (Code.FAILED_PRECONDITION, "STORE_MISSING")
    create(tmp_path / "data")
    (tmp_path / "backup.db").write_text("mine")
    with pytest.raises(Error, match="exists already: name a new file"):
        back_up(tmp_path / "data", tmp_path / "backup.db")
    assert (tmp_path / "backup.db").read_text() == "mine"
    with pytest.raises(Error, match="can't be opened"):
        back_up(tmp_path / "data", tmp_path / "nowhere" / "backup.db")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.db", "data"]


def test_a_damaged_store_makes_no_backup(tmp_path: Path) -> None:
    create(tmp_path / "data")
    change(tmp_path / "data", "UPDATE objects SET content = '{}' WHERE revision = 3", digests=False)
    with pytest.raises(Error, match="table objects, revision 3, models/iris") as caught:
        back_up(tmp_path / "data", tmp_path / "backup.db")
    assert caught.value.reason == "STORE_CORRUPT"
    assert str(tmp_path / "data" / DATABASE) in caught.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("damage", ["flipped", "truncated", "text", "empty", "other"])
def test_a_damaged_backup_is_refused_and_changes_nothing(tmp_path: Path, damage: str) -> None:
    create(tmp_path / "data")
    file, target = tmp_path / "backup.db", tmp_path / "data"
    back_up(target, file)
    data = bytearray(file.read_bytes())
    if damage == "flipped":
        data[data.index(b'{"name":"edge"') + 10] ^= 1
    other = {"truncated": bytes(data[: len(data) // 2]), "text": b"name: edge\n" * 99, "empty": b""}
    file.write_bytes(other.get(damage, bytes(data)))
    if damage == "other":
        file.unlink()
        with sqlite3.connect(file) as db:
            db.execute("CREATE TABLE bookmarks (url TEXT)")
        db.close()
    before = (target / DATABASE).read_bytes()
    attempts: list[Callable[[], object]] = [
        lambda: inspect(file),
        lambda: restore(file, target, replace=True),
        lambda: restore(file, tmp_path / "new"),
    ]
    for attempt in attempts:
        with pytest.raises(Error, match=re.escape(str(file))) as caught:
            attempt()
        assert caught.value.reason == ("STORE_FOREIGN" if damage == "other" else "BACKUP_CORRUPT"), caught.value.message
    assert (target / DATABASE).read_bytes() == before
    assert not (tmp_path / "new" / DATABASE).exists()
    with pytest.raises(Error, match="is not a file"):
        inspect(tmp_path / "missing.db")


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create(tmp_path / "data")

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup, "_sync", full)
    with pytest.raises(Error, match="no space left") as caught:
        back_up(tmp_path / "data", tmp_path / "backup.db")
    assert caught.value.reason == "STORE_FULL"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]

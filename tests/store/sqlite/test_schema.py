"""The schema: newer files, files of other programs, and files of earlier versions."""

from __future__ import annotations

import sqlite3
from importlib import resources
from pathlib import Path

import pytest

from controlplane.errors import Code, Error
from controlplane.store import Kind, Record
from controlplane.store.sqlite import DATABASE
from tests.store.opening import open_store
from tests.store.sqlite.common import change, create, store_error


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    create(tmp_path)
    db = sqlite3.connect(tmp_path / DATABASE)
    db.execute("PRAGMA user_version = 99")
    db.execute("UPDATE layout SET version = 99")
    db.commit()
    db.close()
    error = store_error(tmp_path)
    assert (error.code, error.reason) == (Code.FAILED_PRECONDITION, "STORE_NEWER")
    assert "schema 99" in error.message
    # The file is unchanged, and the failed attempt does not hold the lock.
    assert store_error(tmp_path).reason == "STORE_NEWER"


@pytest.mark.parametrize("pragma", ["user_version = 99", "user_version = 1", "user_version = 0", "application_id = 0"])
def test_a_damaged_header_is_not_called_a_newer_version_or_another_program(tmp_path: Path, pragma: str) -> None:
    create(tmp_path)
    db = sqlite3.connect(tmp_path / DATABASE)
    db.execute(f"PRAGMA {pragma}")
    db.close()
    error = store_error(tmp_path)
    assert error.reason == "STORE_CORRUPT"
    assert "its header says application" in error.message


@pytest.mark.parametrize(
    "statement",
    ["DROP TRIGGER objects_stay", "DROP INDEX objects_by_revision", "CREATE TABLE more (x)", "DROP TABLE layout"],
)
def test_a_changed_schema_is_damage(tmp_path: Path, statement: str) -> None:
    create(tmp_path)
    db = sqlite3.connect(tmp_path / DATABASE)
    db.execute(statement)
    db.close()
    assert store_error(tmp_path).reason == "STORE_CORRUPT"


def test_a_file_of_the_first_schema_without_its_number_is_damage(tmp_path: Path) -> None:
    stored = Path(__file__).parents[1] / "testdata" / "bddd395"
    (tmp_path / DATABASE).write_bytes((stored / DATABASE).read_bytes())
    db = sqlite3.connect(tmp_path / DATABASE)
    db.execute("PRAGMA user_version = 0")
    db.close()
    assert store_error(tmp_path).reason == "STORE_CORRUPT"


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / DATABASE)
    db.execute("CREATE TABLE bookmarks (url TEXT)")
    db.close()
    assert store_error(tmp_path).reason == "STORE_FOREIGN"


def schema(directory: Path) -> int:
    """Return the version of a file's schema."""
    with sqlite3.connect(directory / DATABASE) as db:
        version: int = db.execute("PRAGMA user_version").fetchone()[0]
    db.close()
    return version


async def history_id(directory: Path) -> str:
    """Open a store, and return the id of its history."""
    store = await open_store(directory)
    await store.close()
    return store.history_id


async def test_each_history_has_an_id_of_its_own(tmp_path: Path) -> None:
    ids = [await history_id(tmp_path / str(i)) for i in range(5)]
    assert len(set(ids)) == 5
    assert await history_id(tmp_path / "0") == ids[0]


async def test_a_file_of_an_earlier_schema_gets_a_history_id_once(tmp_path: Path) -> None:
    stored = Path(__file__).parents[1] / "testdata" / "bddd395"
    for name in ("turnout.db", "secret.key"):
        (tmp_path / name).write_bytes((stored / name).read_bytes())
        (tmp_path / name).chmod(0o600)
    assert schema(tmp_path) == 1
    first = await history_id(tmp_path)
    assert schema(tmp_path) == 4
    assert await history_id(tmp_path) == first


async def test_rows_of_an_earlier_schema_get_digests(tmp_path: Path) -> None:
    """A store of the second schema, as an earlier version made it: with a record and a lease."""
    db = sqlite3.connect(tmp_path / DATABASE)
    migrations = resources.files("controlplane.store.sqlite.migrations")
    for step in ("0001.sql", "0002.sql"):
        db.executescript(migrations.joinpath(step).read_text())
    db.execute("INSERT INTO records VALUES ('nodes', 'edge-1', 7, x'0102')")
    db.execute("INSERT INTO leases VALUES ('writer', 'me', 8, 100)")
    db.execute("UPDATE sequence SET number = 8")
    db.execute(f"PRAGMA application_id = {0x7475726E}")
    db.execute("PRAGMA user_version = 2")
    db.commit()
    db.close()
    store = await open_store(tmp_path)
    assert await store.records.list(Kind("nodes", 10, 10)) == [Record("edge-1", 7, b"\1\2")]
    await store.close()
    assert schema(tmp_path) == 4
    change(tmp_path, "UPDATE records SET value = x'0103'", digests=False)
    assert "table records, nodes/edge-1: the row differs from its digest" in (await refusal(tmp_path)).message


async def refusal(directory: Path) -> Error:
    """Return the error of opening a store."""
    with pytest.raises(Error) as caught:
        await open_store(directory)
    return caught.value


@pytest.mark.parametrize("table", ["revisions", "objects", "requests"])
async def test_the_tables_of_the_first_schema_never_change(tmp_path: Path, table: str) -> None:
    def columns(path: Path) -> list[tuple[object, ...]]:
        with sqlite3.connect(path) as db:
            rows = db.execute("SELECT name, sql FROM sqlite_schema WHERE tbl_name = ? ORDER BY name", (table,)).fetchall()
        db.close()
        return rows

    stored = tmp_path / "stored.db"
    stored.write_bytes((Path(__file__).parents[1] / "testdata" / "bddd395" / "turnout.db").read_bytes())
    await history_id(tmp_path / "new")
    assert columns(tmp_path / "new" / DATABASE) == columns(stored)


@pytest.mark.parametrize("statement", ["UPDATE identity SET history_id = 'other'", "DELETE FROM identity"])
async def test_a_history_id_cannot_be_changed_or_deleted(tmp_path: Path, statement: str) -> None:
    await history_id(tmp_path)
    db = sqlite3.connect(tmp_path / DATABASE)
    with pytest.raises(sqlite3.IntegrityError):
        db.execute(statement)
    db.close()

"""Digests: each change of a value, a missing row and a row too many is found, with its place."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from controlplane.store import Kind
from controlplane.store.sqlite import DATABASE
from controlplane.store.sqlite.digests import damaged_row, object_is_damaged, row_digest
from tests.store.opening import open_store
from tests.store.places import filled
from tests.store.sqlite.common import change, store_error

KIND = Kind("nodes", max_records=10, max_bytes=100)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a store with revisions, a request, records and a lease."""
    directory = tmp_path_factory.mktemp("template")

    async def fill() -> None:
        store = await open_store(directory)
        await filled(store)
        await store.remember("id", "digest", 5)
        first = await store.records.put(KIND, "edge-1", b"one", 0)
        await store.records.put(KIND, "edge-1", b"two", first.version)
        gone = await store.records.put(KIND, "edge-2", b"gone", 0)
        await store.records.delete(KIND, "edge-2", gone.version)
        lease = await store.leases.acquire("writer", "me", 10.0, 100)
        await store.leases.renew(lease, 20, 101)
        await store.leases.release(await store.leases.acquire("other", "me", 10, 100))
        await store.close()

    asyncio.run(fill())
    return (directory / DATABASE).read_bytes()


@pytest.fixture
def directory(tmp_path: Path, template: bytes) -> Path:
    (tmp_path / DATABASE).write_bytes(template)
    return tmp_path


@pytest.mark.parametrize(
    ("statement", "place"),
    [
        ("UPDATE objects SET content = replace(content, '8080', '8081')", "objects, revision 1, gateways/edge"),
        ("UPDATE objects SET content = NULL WHERE revision = 5", "objects, revision 5, models/iris"),
        ("UPDATE objects SET create_time = 1 WHERE revision = 3", "objects, revision 3, models/iris"),
        ("DELETE FROM objects WHERE revision = 2", "objects, revision 2, models/iris: the row is missing"),
        ("UPDATE revisions SET author = 'eve' WHERE number = 4", "revisions, revision 4"),
        ("INSERT INTO revisions VALUES (6, 0, '', '', 'apply', 0, '', '')", "revisions, revision 6"),
        ("UPDATE requests SET revision = 1", "requests, id"),
        ("UPDATE records SET value = x'00'", "records, nodes/edge-1"),
        ("DELETE FROM records", "records, nodes/edge-1: the row is missing"),
        ("UPDATE leases SET expires = expires + 1", "leases, writer"),
        ("UPDATE sequence SET number = number - 1", "sequence"),
        ("UPDATE identity SET history_id = '00000000'", "identity"),
        ("UPDATE digests SET table_name = 'other' WHERE row_key = 'id'", "requests, id"),
        ("INSERT INTO digests VALUES ('other', '', x'00', NULL)", "digests: a row of an unknown table"),
    ],
)
def test_a_change_is_found_with_its_place(directory: Path, statement: str, place: str) -> None:
    change(directory, statement, digests=False)
    error = store_error(directory)
    assert error.reason == "STORE_CORRUPT"
    assert f"{directory / DATABASE} is damaged, or not a store: table {place}" in error.message
    assert f"turnout restore FILE --data {directory} --replace" in error.message


def test_an_undamaged_store_has_no_damaged_row(directory: Path) -> None:
    db = sqlite3.connect(directory / DATABASE)
    assert damaged_row(db) == ""
    assert not object_is_damaged(db, 1, "gateways/edge")
    assert object_is_damaged(db, 9, "gateways/edge")
    assert db.text_factory is str
    db.close()


def test_a_text_has_the_digest_of_its_bytes_and_a_number_that_of_the_float() -> None:
    assert row_digest(["é"]) == row_digest(["é".encode()])
    assert row_digest([1]) == row_digest([1.0])
    assert row_digest([-0.0]) == row_digest([0])
    rows: tuple[list[str | int | None], ...]
    rows = (
        ["a", "b"],
        ["ab"],
        ["ab", ""],
        ["", "ab"],
        ["ab", None],
        ["ab", 0],
        ["1"],
        [1],
    )
    assert len({row_digest(row) for row in rows}) == len(rows)

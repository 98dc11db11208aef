"""Damage is found when the store is opened: whatever bits are flipped, it is refused, or it reads exactly as before."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from controlplane.errors import Error
from controlplane.store import Kind, Store
from controlplane.store.sqlite import DATABASE
from controlplane.store.sqlite.integrity import check_rows, check_structure, explain_damage
from tests.store.opening import open_store
from tests.store.places import EDGE, IRIS, changes, commit, draft, filled
from tests.store.sqlite.common import change, create, store_error

KIND = Kind("nodes", max_records=1_000, max_bytes=1_000)


async def content(store: Store) -> list[Any]:
    """Return everything that can be read from a store."""
    newest = store.head.value.number
    return [
        store.history_id,
        [await store.at(number) for number in range(newest + 1)],
        await store.revisions(newest + 1, newest + 1),
        await store.revisions(newest + 1, newest + 1, "models/iris"),
        [await store.recall(f"id-{number}") for number in range(newest + 2)],
        await store.records.list(KIND),
        await store.leases.current("writer", 1.0),
    ]


async def filled_store(directory: Path) -> list[Any]:
    """Fill a store, close it, and return its content."""
    store = await open_store(directory)
    for number in range(1, 31):
        await commit(store, number - 1, changes(EDGE, IRIS), draft(float(number), f"id-{number}", "digest"))
    for number in range(100):
        await store.records.put(KIND, f"edge-{number}", b"value" * number, 0)
    await store.leases.acquire("writer", "me", 10.0, 1.0)
    before = await content(store)
    await store.close()
    return before


async def outcome(directory: Path, before: list[Any]) -> str:
    """Return the reason why a store is refused, or "same" or "different" when it is compared with its earlier content."""
    try:
        store = await open_store(directory)
    except Error as error:
        return error.reason
    try:
        return "same" if await content(store) == before else "different"
    finally:
        await store.close()


async def test_flipped_bits_are_found_at_the_start(tmp_path: Path) -> None:
    before = await filled_store(tmp_path)
    database = tmp_path / DATABASE
    original = database.read_bytes()
    key = (tmp_path / "secret.key").read_bytes()
    outcomes: dict[str, int] = {}
    for seed in range(150):
        flips = random.Random(seed)
        damaged = bytearray(original)
        for _ in range(3):
            damaged[flips.randrange(len(damaged))] ^= 1 << flips.randrange(8)
        directory = tmp_path / str(seed)
        directory.mkdir()
        (directory / DATABASE).write_bytes(damaged)
        (directory / "secret.key").write_bytes(key)
        (directory / "secret.key").chmod(0o600)
        result = await outcome(directory, before)
        assert result in ("same", "STORE_CORRUPT"), f"seed {seed}: {result}"
        outcomes[result] = outcomes.get(result, 0) + 1
    # Bits in unused parts of pages change nothing.
    assert outcomes["STORE_CORRUPT"] > 75


@pytest.mark.parametrize("offset", [*range(16, 32), 44, 47, 56, 59, 60, 63, 68, 71])
def test_a_flipped_bit_in_the_header_is_never_called_a_newer_version(tmp_path: Path, offset: int) -> None:
    create(tmp_path)
    before = asyncio.run(_read(tmp_path))
    data = bytearray((tmp_path / DATABASE).read_bytes())
    data[offset] ^= 4
    (tmp_path / DATABASE).write_bytes(data)
    assert asyncio.run(outcome(tmp_path, before)) in ("same", "STORE_CORRUPT")


async def _read(directory: Path) -> list[Any]:
    store = await open_store(directory)
    try:
        return await content(store)
    finally:
        await store.close()


@pytest.mark.parametrize("kept", [1, 100, 4_096, 8_192, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: float) -> None:
    create(tmp_path)
    data = (tmp_path / DATABASE).read_bytes()
    (tmp_path / DATABASE).write_bytes(data[: int(kept if kept >= 1 else kept * len(data))])
    assert store_error(tmp_path).reason == ("STORE_CORRUPT" if kept != 1 and kept != 100 else "STORE_LOST")


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("DELETE FROM revisions WHERE number = 1", "it holds 4 revisions, and the newest is 5"),
        ("UPDATE revisions SET number = -1 WHERE number = 1", "it holds 5 revisions, and the newest is 5"),
        ("UPDATE objects SET revision = 9 WHERE revision = 5", "table objects: it refers to revision 9"),
        ("INSERT INTO requests VALUES ('x', 'd', 9)", "table requests: it refers to revision 9"),
        ("DELETE FROM identity", "table identity: it must have one row"),
        ("INSERT INTO objects VALUES (1, 'models/iris', '{}', 0)", "revision 1 of models/iris is after revision 5"),
    ],
)
def test_rows_that_do_not_fit_together_are_damage_even_if_their_digests_fit(
    tmp_path: Path, statement: str, problem: str
) -> None:
    create(tmp_path)
    if "INSERT INTO objects" in statement:
        change(tmp_path, "DELETE FROM objects WHERE revision = 1 AND name = 'models/iris'")
    change(tmp_path, statement)
    error = store_error(tmp_path)
    assert (error.reason, problem in error.message) == ("STORE_CORRUPT", True), error.message


def test_every_old_revision_is_decoded_by_a_version_with_another_form(tmp_path: Path) -> None:
    """The head is fine. Revision 1 has a field that this version does not know."""
    create(tmp_path)
    change(tmp_path, 'UPDATE objects SET content = replace(content, \'"keys":\', \'"colour":1,"keys":\') WHERE revision = 1')
    error = store_error(tmp_path)
    assert error.reason == "STORE_NEWER"
    assert "table objects, revision 1: models/iris" in error.message


async def test_a_store_that_is_damaged_while_it_is_open_says_so(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await filled(store)
    change(tmp_path, "UPDATE objects SET content = '{}' WHERE revision = 2", digests=False)
    with pytest.raises(Error, match="table objects, revision 2, models/iris") as caught:
        await store.revision(2)
    assert caught.value.reason == "STORE_CORRUPT"
    await store.close()


def test_errors_of_sqlite_during_the_check_are_damage(tmp_path: Path) -> None:
    db = sqlite3.connect(":memory:")
    check_structure(db, tmp_path)
    with pytest.raises(sqlite3.OperationalError) as caught:
        check_rows(db, tmp_path)
    assert explain_damage(caught.value, tmp_path).reason == "STORE_CORRUPT"
    busy = sqlite3.OperationalError("locked")
    busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
    assert explain_damage(busy, tmp_path).reason == "STORE_BUSY"
    db.close()

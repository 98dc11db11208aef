"""Helpers for the tests of the SQLite store."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from controlplane.domain import Gateway
from controlplane.errors import Error
from controlplane.store import Store
from controlplane.store.sqlite import DATABASE
from controlplane.store.sqlite.digests import put_all_digests
from tests.store.opening import open_store
from tests.store.places import changes, commit, draft, filled


def store_error(directory: Path) -> Error:
    """Return the error that opening the store raises."""

    async def attempt() -> None:
        store = await open_store(directory)
        await store.close()

    with pytest.raises(Error) as caught:
        asyncio.run(attempt())
    return caught.value


def create(directory: Path) -> None:
    """Create a store with five revisions."""

    async def fill() -> None:
        store = await open_store(directory)
        await filled(store)
        await store.close()

    asyncio.run(fill())


def rewrite(directory: Path, old: str, new: str) -> None:
    """Replace a text in the content of all objects."""
    change(directory, "UPDATE objects SET content = replace(content, ?, ?)", old, new)


def change(directory: Path, statement: str, *values: object, digests: bool = True) -> None:
    """Change a store in spite of its triggers. With `digests`, as another version would do it: the digests fit."""
    db = sqlite3.connect(directory / DATABASE)
    triggers = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        db.execute(f"DROP TRIGGER {name}")
    db.execute(statement, values)
    for _, sql in triggers:
        db.execute(sql)
    if digests:
        db.execute("DELETE FROM digests")
        put_all_digests(db)
        db.execute("UPDATE layout SET codec_digest = x'', mac_key = ''")
    db.commit()
    db.close()


def without_privileges(directory: Path) -> str:
    """Return the error that opening the store raises without privileges.

    Permissions don't bind root, so the process drops its capabilities first.
    """
    code = f"""
import asyncio, ctypes, pathlib
from controlplane.errors import Error
from tests.store.opening import open_store
header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert ctypes.CDLL(None).capset(header, nothing) == 0
try:
    asyncio.run(open_store(pathlib.Path({str(directory)!r})))
    print("opened")
except Error as error:
    print(error.reason, error.message)
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


async def commit_until_refused(store: Store, limit: int = 2_000) -> Error:
    """Commit until a commit is refused, and return its error."""
    for _ in range(limit):
        head = store.head.value
        try:
            await commit(
                store, head.number, changes(Gateway("edge", 1 + head.number % 60_000)), draft(request_id=str(head.number))
            )
        except Error as error:
            assert store.head.value == head
            return error
    raise AssertionError("no commit was refused")


class Flaky(sqlite3.Connection):
    """A connection that fails, depending on `mode`.

    "before" and "after": a COMMIT fails before or after it happened. "away": every call fails. "after, then away": a COMMIT
    fails after it happened, and every new connection fails.
    """

    mode = ""

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if Flaky.mode == "away" or (Flaky.mode == "after, then away" and sql.startswith("PRAGMA journal_mode")):
            raise _broken()
        if sql == "COMMIT" and Flaky.mode == "before":
            raise _broken()
        if sql == "COMMIT" and Flaky.mode.startswith("after"):
            super().execute(sql)
            raise _broken()
        return super().execute(sql, *args)


def _broken() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    return error


def open_flaky(directory: Path) -> Awaitable[Store]:
    return open_store(directory, lambda *a, **k: sqlite3.connect(*a, factory=Flaky, **k))

"""Records in the SQLite file: `SqliteRecords` for the event loop, and blocking functions with the SQL."""

from __future__ import annotations

import builtins
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from functools import partial

from controlplane.aio.latest import Latest
from controlplane.errors import Error
from controlplane.store.lease import Fence
from controlplane.store.records import Kind, Record, RecordWrite, check_size, record_changed, too_many_records
from controlplane.store.sqlite.digests import delete_digest, put_digests
from controlplane.store.sqlite.file import SqliteFile
from controlplane.store.sqlite.leases import check_fence, next_number, put_sequence_digest
from controlplane.store.sqlite.runner import FileRunner


class SqliteRecords:
    """The `Records` of a SQLite store."""

    def __init__(self, runner: FileRunner) -> None:
        self._runner = runner
        # By the name of a kind that was watched: set after each write of the kind, to wake its watchers.
        self._changed: dict[str, Latest[None]] = {}
        # After a write in doubt, watchers must read again. A known flaw: they wait until the next write has found out the
        # outcome.
        runner.on_settled.append(self._wake_all)

    async def get(self, kind: Kind, name: str) -> Record | None:
        return await self._runner.read(lambda file: _get(file, kind, name))

    async def list(self, kind: Kind) -> builtins.list[Record]:
        return await self._runner.read(lambda file: _list(file, kind))

    async def put(self, kind: Kind, name: str, value: bytes, expected: int, *, fence: Fence | None = None) -> Record:
        check_size(kind, name, value)
        record = await self._runner.write(lambda file: _put(file, kind, name, value, expected, fence))
        self._wake(kind)
        return record

    async def delete(self, kind: Kind, name: str, expected: int, *, fence: Fence | None = None) -> None:
        await self._runner.write(lambda file: _delete(file, kind, name, expected, fence))
        self._wake(kind)

    async def write(
        self, kind: Kind, writes: Sequence[RecordWrite], *, fence: Fence | None = None
    ) -> builtins.list[Record | Error | None]:
        outcomes = await self._runner.write(lambda file: _write(file, kind, writes, fence))
        self._wake(kind)
        return outcomes

    async def watch(self, kind: Kind) -> AsyncIterator[Mapping[str, Record | None]]:
        changed = self._changed.setdefault(kind.name, Latest(None))
        names: set[str] = set()
        newest = 0
        serial = changed.serial
        first = True
        while True:
            changes = await self._runner.read(partial(_changes, kind=kind, names=names, newest=newest))
            if changes or first:
                first = False
                names = (names | changes.keys()) - {name for name, record in changes.items() if record is None}
                newest = max((record.version for record in changes.values() if record is not None), default=newest)
                yield changes
            serial = await changed.newer(serial)

    def _wake(self, kind: Kind) -> None:
        changed = self._changed.get(kind.name)
        if changed is not None:
            changed.set(None)

    async def _wake_all(self) -> None:
        for changed in self._changed.values():
            changed.set(None)


def _get(file: SqliteFile, kind: Kind, name: str) -> Record | None:
    with file.read() as db:
        row = db.execute("SELECT name, version, value FROM records WHERE kind = ? AND name = ?", (kind.name, name)).fetchone()
    return Record(*row) if row else None


def _list(file: SqliteFile, kind: Kind) -> list[Record]:
    with file.read() as db:
        rows = db.execute("SELECT name, version, value FROM records WHERE kind = ? ORDER BY name", (kind.name,)).fetchall()
    return [Record(*row) for row in rows]


def _put(file: SqliteFile, kind: Kind, name: str, value: bytes, expected: int, fence: Fence | None) -> Record:
    with file.transaction() as db:
        check_fence(db, fence)
        record = put_in(db, kind, name, value, expected, 0 if expected else count_of(db, kind))
        put_sequence_digest(db)
        return record


def _delete(file: SqliteFile, kind: Kind, name: str, expected: int, fence: Fence | None) -> None:
    with file.transaction() as db:
        check_fence(db, fence)
        delete_in(db, kind, name, expected)


def _write(file: SqliteFile, kind: Kind, writes: Sequence[RecordWrite], fence: Fence | None) -> list[Record | Error | None]:
    with file.transaction() as db:
        check_fence(db, fence)
        outcomes: list[Record | Error | None] = []
        count = count_of(db, kind)  # once, because it reads every row of the kind
        for write in writes:
            outcome = _outcome(db, kind, write, count)
            if isinstance(outcome, Record) and not write.expected:
                count += 1
            elif outcome is None:
                count -= 1
            outcomes.append(outcome)
        put_sequence_digest(db)
        return outcomes


def _outcome(db: sqlite3.Connection, kind: Kind, write: RecordWrite, count: int) -> Record | Error | None:
    """Make one write of a batch. All checks come before the first change, so a write that fails changes nothing."""
    try:
        if write.value is None:
            delete_in(db, kind, write.name, write.expected)
            return None
        check_size(kind, write.name, write.value)
        return put_in(db, kind, write.name, write.value, write.expected, count)
    except Error as error:
        return error


def put_in(db: sqlite3.Connection, kind: Kind, name: str, value: bytes, expected: int, count: int) -> Record:
    """Write a record in a transaction. `count` is the number of records of the kind. Errors: RECORD_CHANGED, TOO_MANY_RECORDS.

    Call `put_sequence_digest` at the end of the transaction.
    """
    live = _check_version(db, kind, name, expected)
    if not live and count >= kind.max_records:
        raise too_many_records(kind)
    version = next_number(db)
    row = (kind.name, name, version, value)
    db.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)", row)
    put_digests(db, "records", [row])
    return Record(name, version, value)


def delete_in(db: sqlite3.Connection, kind: Kind, name: str, expected: int) -> None:
    """Delete a record in a transaction. Errors: RECORD_CHANGED."""
    if not _check_version(db, kind, name, expected):
        raise record_changed(kind, name, expected, 0)
    db.execute("DELETE FROM records WHERE kind = ? AND name = ?", (kind.name, name))
    delete_digest(db, "records", kind.name, name)


def count_of(db: sqlite3.Connection, kind: Kind) -> int:
    """Return the number of records of a kind."""
    count: int = db.execute("SELECT count(*) FROM records WHERE kind = ?", (kind.name,)).fetchone()[0]
    return count


def _check_version(db: sqlite3.Connection, kind: Kind, name: str, expected: int) -> int:
    """Return the version of a record, 0 when there is none. Errors: RECORD_CHANGED when it is not `expected`."""
    row = db.execute("SELECT version FROM records WHERE kind = ? AND name = ?", (kind.name, name)).fetchone()
    live: int = row[0] if row else 0
    if live != expected:
        raise record_changed(kind, name, expected, live)
    return live


def _changes(file: SqliteFile, kind: Kind, names: Set[str], newest: int) -> dict[str, Record | None]:
    """Return the records that are newer than version `newest`, and None for those of `names` that were deleted."""
    with file.read() as db:
        rows = db.execute(
            "SELECT name, version, value FROM records WHERE kind = ? AND version > ? ORDER BY version", (kind.name, newest)
        ).fetchall()
        changes: dict[str, Record | None] = {row[0]: Record(*row) for row in rows}
        if count_of(db, kind) != len(names | changes.keys()):
            live = {name for (name,) in db.execute("SELECT name FROM records WHERE kind = ?", (kind.name,))}
            changes |= dict.fromkeys(names - live)
    return changes

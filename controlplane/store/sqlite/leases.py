"""Leases in the SQLite file: `SqliteLeases` for the event loop, and blocking functions with the SQL."""

from __future__ import annotations

import sqlite3

from controlplane.store.lease import Fence, Lease, lease_held, lease_lost
from controlplane.store.sqlite.digests import delete_digest, put_digests
from controlplane.store.sqlite.file import SqliteFile
from controlplane.store.sqlite.runner import FileRunner


def check_fence(db: sqlite3.Connection, fence: Fence | None) -> None:
    """Check in a write's transaction that the fence of the write holds. Errors: LEASE_LOST."""
    if fence is not None:
        row = db.execute("SELECT token FROM leases WHERE name = ?", (fence.lease,)).fetchone()
        if row is None or row[0] != fence.token:
            raise lease_lost(fence)


def next_number(db: sqlite3.Connection) -> int:
    """Return a record's version or a lease's token that was never used before. Call it in a write's transaction.

    Call `put_sequence_digest` at the end of the transaction.
    """
    db.execute("UPDATE sequence SET number = number + 1")
    number: int = db.execute("SELECT number FROM sequence").fetchone()[0]
    return number


def put_sequence_digest(db: sqlite3.Connection) -> None:
    """Write the digest of the sequence. Once at the end of a transaction is enough."""
    put_digests(db, "sequence", db.execute("SELECT number FROM sequence").fetchall())


class SqliteLeases:
    """The `Leases` of a SQLite store. They use the caller's time."""

    def __init__(self, runner: FileRunner) -> None:
        self._runner = runner

    async def acquire(self, name: str, holder: str, seconds: float, now: float) -> Lease:
        return await self._runner.write(lambda file: _acquire(file, name, holder, seconds, now))

    async def renew(self, lease: Lease, seconds: float, now: float) -> Lease:
        return await self._runner.write(lambda file: _renew(file, lease, seconds, now))

    async def release(self, lease: Lease) -> None:
        await self._runner.write(lambda file: _release(file, lease))

    async def current(self, name: str, now: float) -> Lease | None:
        return await self._runner.read(lambda file: _current(file, name, now))


def _acquire(file: SqliteFile, name: str, holder: str, seconds: float, now: float) -> Lease:
    with file.transaction() as db:
        lease = _find(db, name)
        if lease is not None and lease.expires > now:
            raise lease_held(lease, now)
        lease = Lease(name, holder, next_number(db), now + seconds)
        row = (lease.name, lease.holder, lease.token, lease.expires)
        db.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)", row)
        put_digests(db, "leases", [row])
        put_sequence_digest(db)
    return lease


def _renew(file: SqliteFile, lease: Lease, seconds: float, now: float) -> Lease:
    with file.transaction() as db:
        live = _find(db, lease.name)
        if live is None or live.token != lease.token or live.expires <= now:
            raise lease_lost(lease.fence)
        db.execute("UPDATE leases SET expires = ? WHERE name = ?", (now + seconds, lease.name))
        put_digests(db, "leases", [(live.name, live.holder, live.token, now + seconds)])
    return Lease(live.name, live.holder, live.token, now + seconds)


def _release(file: SqliteFile, lease: Lease) -> None:
    with file.transaction() as db:
        if db.execute("DELETE FROM leases WHERE name = ? AND token = ?", (lease.name, lease.token)).rowcount:
            delete_digest(db, "leases", lease.name)


def _current(file: SqliteFile, name: str, now: float) -> Lease | None:
    with file.read() as db:
        lease = _find(db, name)
    return lease if lease is not None and lease.expires > now else None


def _find(db: sqlite3.Connection, name: str) -> Lease | None:
    row = db.execute("SELECT name, holder, token, expires FROM leases WHERE name = ?", (name,)).fetchone()
    return Lease(*row) if row else None

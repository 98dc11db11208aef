"""The SQLite file of a store: held by one process, opened, read, and written in transactions. Everything here blocks.

A transaction ends in one of three ways. It is refused before COMMIT: nothing changed. COMMIT returns: it is on the disk (WAL,
synchronous=FULL). COMMIT fails: nobody knows. The last is an `InDoubt`, and `settle` finds out: a new connection sees either
all of it or nothing, and emptying the WAL makes what it saw last.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from controlplane.errors import Code, Error
from controlplane.store.sqlite.explain import explain, explain_os, refused
from controlplane.store.sqlite.schema import migrate

DATABASE = "turnout.db"
LOCK = "turnout.lock"

Connect = Callable[..., sqlite3.Connection]


class InDoubt(Exception):
    """A COMMIT failed, so nobody knows whether it happened. `error` is the error to raise if it did not."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.message)
        self.error = error


class SqliteFile:
    """A store's file. It is made, used and closed on one thread."""

    def __init__(self, directory: Path, connect: Connect = sqlite3.connect) -> None:
        """Open the file in `directory`, and make both where they are missing.

        Errors: see `explain`, and FAILED_PRECONDITION / STORE_HELD, STORE_READ_ONLY, STORE_FOREIGN, STORE_NEWER.
        """
        self.path = directory / DATABASE
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._lock: int | None = _locked(directory)
        try:
            _keep_to_owner(self.path)  # before SQLite makes it
            with self.read() as db:
                migrate(db, self.path)
        except BaseException:
            self.close()
            raise

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            # Autocommit: every transaction below is begun and ended explicitly.
            db = self._connect(self.path, isolation_level=None, timeout=5.0)
            self._connection = db
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
        return self._connection

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection. Errors of SQLite inside are raised as ours."""
        try:
            yield self._db
        except sqlite3.Error as error:
            raise explain(error, self.path) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection in a transaction, which is rolled back when an error leaves it. Errors: InDoubt."""
        with self.read() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                _rollback(db)
                raise
        try:
            db.execute("COMMIT")
        except sqlite3.Error as error:
            _rollback(db)
            raise InDoubt(explain(error, self.path)) from error

    def settle(self) -> None:
        """Make the present content of the file last, after an `InDoubt`. Errors: its outcome is still not known."""
        self._disconnect()
        with self.read() as db:
            # The first read of a new connection recovers the file.
            db.execute("SELECT max(number) FROM revisions").fetchone()
            if db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                raise Error(Code.UNAVAILABLE, "STORE_BUSY", f"{self.path} is being read by another program; try again")

    def close(self) -> None:
        """Close the file, and give up the lock. The process may open it again."""
        self._disconnect()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _disconnect(self) -> None:
        db, self._connection = self._connection, None
        if db is not None:
            with suppress(sqlite3.Error):  # the next connection recovers the file
                db.close()


def _rollback(db: sqlite3.Connection) -> None:
    # Some errors end the transaction by themselves.
    with suppress(sqlite3.Error):
        if db.in_transaction:
            db.execute("ROLLBACK")


def _keep_to_owner(database: Path) -> None:
    """Let only the owner read the file and those beside it, also where an older version, or a copy, made them otherwise."""
    with suppress(OSError):  # SQLite reports a file that can't be opened or changed
        os.close(os.open(database, os.O_RDWR | os.O_CREAT, 0o600))
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.chmod(f"{database}{suffix}", 0o600)


def _locked(directory: Path) -> int:
    """Return the descriptor of a lock that this process holds until it ends, however it ends."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except FileExistsError:
        raise refused("STORE_CANT_OPEN", f"{directory} is a file: name a directory") from None
    except OSError as error:
        raise explain_os(error, directory) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
    except BlockingIOError:
        process_id = os.read(lock, 20).decode(errors="replace").strip()
        os.close(lock)
        holder = f"process {process_id}" if process_id else "another process"
        raise refused("STORE_HELD", f"{directory} is held by {holder}: stop it first, or name another directory") from None
    except OSError as error:
        os.close(lock)
        raise explain_os(error, directory) from None
    return lock

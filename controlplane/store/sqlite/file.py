"""The SQLite file of a store. One process holds it. All functions block.

A transaction ends in one of three ways:

    an error before COMMIT    nothing has changed
    COMMIT returns            the transaction is on the disk (WAL, synchronous=FULL)
    COMMIT fails              the outcome is unknown: `InDoubt`

After an `InDoubt`, `settle` finds out the outcome. It opens a new connection, which sees either the whole transaction or
nothing of it. Then it moves the WAL into the file, so that the outcome can't change any more.
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
    """A COMMIT failed, so its outcome is unknown. `error` is the error to raise if the transaction was not committed."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.message)
        self.error = error


class SqliteFile:
    """A store's file. It is opened, used and closed on one thread."""

    def __init__(self, directory: Path, connect: Connect = sqlite3.connect) -> None:
        """Open the file in `directory`. Create the file and the directory if they are missing.

        Errors: see `explain`, and FAILED_PRECONDITION / STORE_HELD, STORE_READ_ONLY, STORE_FOREIGN, STORE_NEWER.
        """
        self.path = directory / DATABASE
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._lock: int | None = _acquire_lock(directory)
        try:
            _restrict_to_owner(self.path)  # before SQLite creates the file
            with self.read() as db:
                migrate(db, self.path)
        except BaseException:
            self.close()
            raise

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            # Without a level, sqlite3 begins no transactions of its own: the code here begins and ends each one.
            db = self._connect(self.path, isolation_level=None, timeout=5.0)
            self._connection = db
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
        return self._connection

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection. An error of SQLite in the `with` block is raised as an `Error`."""
        try:
            yield self._db
        except sqlite3.Error as error:
            raise explain(error, self.path) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection in a transaction. An error in the `with` block rolls the transaction back. Errors: InDoubt."""
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
        """Make the outcome of the last transaction final, after an `InDoubt`. Errors: the outcome is still unknown."""
        self._disconnect()
        with self.read() as db:
            # SQLite recovers the file at the first read of a new connection.
            db.execute("SELECT max(number) FROM revisions").fetchone()
            if db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                raise Error(Code.UNAVAILABLE, "STORE_BUSY", f"{self.path} is being read by another program; try again")

    def close(self) -> None:
        """Close the file, and release the lock."""
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
    # Some errors have already ended the transaction.
    with suppress(sqlite3.Error):
        if db.in_transaction:
            db.execute("ROLLBACK")


def _restrict_to_owner(database: Path) -> None:
    """Let only the owner read the database and its WAL. An older version or a copy may have created them with other modes."""
    with suppress(OSError):  # SQLite will report a file that can't be opened or changed
        os.close(os.open(database, os.O_RDWR | os.O_CREAT, 0o600))
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.chmod(f"{database}{suffix}", 0o600)


def _acquire_lock(directory: Path) -> int:
    """Lock the directory, and return the lock's descriptor. The kernel releases the lock when the process ends."""
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

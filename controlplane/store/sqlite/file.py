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
from controlplane.store.sqlite import digests, earlier_use
from controlplane.store.sqlite.earlier_use import DATABASE, LOCK
from controlplane.store.sqlite.explain import corrupt, explain, explain_os, refused
from controlplane.store.sqlite.integrity import check_rows, check_structure, explain_damage
from controlplane.store.sqlite.schema import migrate

Connect = Callable[..., sqlite3.Connection]


class InDoubt(Exception):
    """A COMMIT failed, so its outcome is unknown. `error` is the error to raise if the transaction was not committed."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.message)
        self.error = error


class SqliteFile:
    """A store's file. It is opened, used and closed on one thread."""

    def __init__(self, directory: Path, connect: Connect = sqlite3.connect, *, init: bool = False) -> None:
        """Open the file in `directory`, and check it. Create the file and the directory if they are missing.

        `init` starts a new history in spite of signs of earlier use.

        Errors: see `explain`, and FAILED_PRECONDITION / STORE_HELD, STORE_READ_ONLY, STORE_FOREIGN, STORE_NEWER,
        STORE_CORRUPT; STORE_LOST without `init`; STORE_EXISTS with `init`.
        """
        self.path = directory / DATABASE
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        # The key of the rows' MACs. b"" until the sealing keys are known: rows that have MACs are not written before.
        self.mac_key = b""
        # True if this file was created now.
        self.created = not earlier_use.has_database(directory)
        was_locked_before = (directory / LOCK).exists()
        if not init and not was_locked_before:
            self._refuse_earlier_use()  # before anything is created
        self._lock: int | None = acquire_lock(directory)
        try:
            if init:
                self._set_damaged_store_aside()
            elif was_locked_before:
                self._refuse_earlier_use()
            if self.created:
                self._create()
            else:
                self._open()
        except BaseException:
            if self.created and not was_locked_before:
                (directory / LOCK).unlink(missing_ok=True)  # or it would look like a lost store
            self.close()
            raise

    def _create(self) -> None:
        """Create the file. After an error, remove it: an empty file would look like a lost store."""
        try:
            self._open()
        except BaseException:
            self._disconnect()
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
            raise

    def _open(self) -> None:
        _restrict_to_owner(self.path)  # before SQLite creates the file
        with self.read() as db:
            try:
                check_structure(db, self.path)
                migrate(db, self.path)
                check_rows(db, self.path)
            except sqlite3.Error as error:
                raise explain_damage(error, self.path) from error

    def _refuse_earlier_use(self) -> None:
        if self.created and (refusal := earlier_use.refusal(self.path.parent)) is not None:
            raise refusal

    def _set_damaged_store_aside(self) -> None:
        """Move a damaged store aside, so that a new one can be created. Errors: STORE_EXISTS."""
        if not self.created:
            try:
                self._open()
            except Error as error:
                if error.reason != "STORE_CORRUPT":
                    raise
            else:
                message = f"{self.path} is a store already: start without --init, which is for the first start only"
                raise refused("STORE_EXISTS", message)
            finally:
                self._disconnect()
        earlier_use.set_aside(self.path.parent, "init")
        self.created = True

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            # Without a level, sqlite3 begins no transactions of its own: the code here begins and ends each one.
            db = self._connect(self.path, isolation_level=None, timeout=5.0)
            self._connection = db
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            # What is deleted or replaced is overwritten: a purged private key must not stay in a free page.
            db.execute("PRAGMA secure_delete = ON")
            db.create_function("row_mac", 2, lambda table, data: digests.row_mac(self.mac_key, table, data))
        return self._connection

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection. An error of SQLite in the `with` block is raised as an `Error`."""
        try:
            yield self._db
        except sqlite3.Error as error:
            raise explain(error, self.path) from error
        except UnicodeDecodeError as error:
            # The text of an error of SQLite quotes a damaged name.
            raise corrupt(self.path, "a name in it is not text") from error

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

    def empty_wal(self) -> None:
        """Move the WAL into the file, and empty it: it has the earlier content of pages. Without effect while others read."""
        with self.read() as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

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


def acquire_lock(directory: Path) -> int:
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

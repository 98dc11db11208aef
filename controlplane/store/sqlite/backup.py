"""Backups of a store, and stores that are restored from them. All functions block.

A backup is one SQLite file: the store at one moment, with its records and its sealed private keys, and never with the sealing
key. It can be made while the server runs, because SQLite copies one snapshot of the file.

A restored store has a new history id. The lost history may have gone on after the backup, and used the numbers that the
restored store uses next: the ids distinguish both histories. For the same reason the versions of records and the tokens of
leases continue above a range of numbers that is left out.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from controlplane.errors import Error
from controlplane.store.records import Record
from controlplane.store.sqlite import marker
from controlplane.store.sqlite.digests import put_digests
from controlplane.store.sqlite.earlier_use import DATABASE, LOCK, has_database, set_aside
from controlplane.store.sqlite.explain import corrupt, explain_os, refused
from controlplane.store.sqlite.file import acquire_lock
from controlplane.store.sqlite.integrity import check_rows, check_structure, explain_damage
from controlplane.store.sqlite.marker import MARKER, Marker
from controlplane.store.sqlite.schema import check_header, has_layout, migrate
from controlplane.store.sqlite.sealed_keys import sealing_key_ids

# How many numbers are left out: more than a lost history can have used after the backup, for records and leases.
_SKIPPED_NUMBERS = 2**32


@dataclass(frozen=True, slots=True)
class Summary:
    """The content of a store in a file."""

    # Empty for a store of the first schema, which has no id yet.
    history: str
    # The newest revision, and its time in seconds since the epoch; 0 if there is none.
    revision: int
    time: float
    # Ids of the sealing keys that its private keys need.
    sealing_key_ids: frozenset[str]
    bytes: int


def back_up(directory: Path, file: Path) -> Summary:
    """Copy the store in `directory` to a new file, and check the copy. The store may be in use.

    Errors: FAILED_PRECONDITION / STORE_MISSING, BACKUP_EXISTS, STORE_CORRUPT; those of `explain` and `explain_os`.
    """
    if not has_database(directory):
        raise refused("STORE_MISSING", f"{directory} holds no store: name the directory of the server with --data")
    if os.path.lexists(file):
        raise refused("BACKUP_EXISTS", f"{file} exists already: name a new file")
    source = directory / DATABASE
    with _new_file(file, source, in_use=True) as partial, _reading(partial, source) as db:
        return _checked(db, source, partial)


def records_of(directory: Path, kind: str) -> list[Record]:
    """Return the records of a kind in a store, which may be in use. The store is not changed.

    Errors: FAILED_PRECONDITION / STORE_MISSING; those of `explain`.
    """
    if not has_database(directory):
        raise refused("STORE_MISSING", f"{directory} holds no store: name the directory of the server with --data")
    source = directory / DATABASE
    with _reading(source, source) as db:
        rows = db.execute("SELECT name, version, value FROM records WHERE kind = ? ORDER BY name", (kind,)).fetchall()
    return [Record(*row) for row in rows]


def inspect(file: Path) -> Summary:
    """Check a backup, and return what it contains. The file is not changed.

    Errors: FAILED_PRECONDITION / BACKUP_MISSING, BACKUP_CORRUPT; those of `explain`.
    """
    with _backup_errors(file), _reading(file, file) as db:
        return _checked(db, file, file)


def restore(file: Path, directory: Path, *, replace: bool = False) -> tuple[Summary, Path | None]:
    """Make a store in `directory` from a backup, with a new history id.

    Return the summary of the store, and the folder with the files that were in their place before; None if there were none.

    Errors: FAILED_PRECONDITION / STORE_HELD while a server uses the directory, STORE_EXISTS without `replace` if the directory
    holds a store, BACKUP_MISSING, BACKUP_CORRUPT; those of `explain` and `explain_os`.
    """
    if has_database(directory) and not replace:
        raise refused(
            "STORE_EXISTS",
            f"{directory} holds a store: name a new directory, or repeat with --replace, which moves the files of that store "
            "into a folder beside the new one",
        )
    lock = acquire_lock(directory)
    try:
        # In the same directory, so that the last step is one rename.
        restored = directory / "restored.db"
        with _backup_errors(file), _new_file(restored, file) as partial:
            with _writing(partial, file) as db:
                check_structure(db, file)
                _require_store(db, file)
                migrate(db, file)
                check_rows(db, file)
                _begin_history(db)
            with _reading(partial, file) as db:
                summary = _checked(db, file, partial)
        aside = set_aside(directory, "restore")
        os.rename(restored, directory / DATABASE)
        marker.write(directory, Marker(summary.history, summary.revision))
        _give_to_owner(directory)
        _sync(directory)
        return summary, aside
    except OSError as error:
        raise explain_os(error, directory) from None
    finally:
        os.close(lock)


def _begin_history(db: sqlite3.Connection) -> None:
    """Give the history a new id, and leave out the numbers that the lost history may have used."""
    triggers = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'identity'").fetchall()
    db.execute("BEGIN IMMEDIATE")
    for name, _ in triggers:
        db.execute(f"DROP TRIGGER {name}")
    db.execute("UPDATE identity SET history_id = lower(hex(randomblob(4)))")
    for _, sql in triggers:
        db.execute(sql)
    db.execute("UPDATE sequence SET number = number + ?", (_SKIPPED_NUMBERS,))
    if not sealing_key_ids(db):
        # Nothing in it needs the sealing key that it was made with. The server makes new MACs with the key that it has.
        db.execute("UPDATE layout SET mac_key = ''")
    for table in ("identity", "sequence"):
        put_digests(db, table, db.execute(f"SELECT * FROM {table}").fetchall())
    db.execute("COMMIT")


@contextmanager
def _new_file(file: Path, source: Path, *, in_use: bool = False) -> Iterator[Path]:
    """Yield a copy of a database that only its owner can read. At the end it gets the name `file`; an error removes it."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with _reading(source, source, in_use=in_use) as db, _writing(partial, source) as copy:
            db.backup(copy)
            # A backup is one file: without a WAL beside it.
            copy.execute("PRAGMA journal_mode = DELETE")
        yield partial
        _sync(partial)
        os.rename(partial, file)
        _sync(file.parent)
    except OSError as error:
        raise explain_os(error, file.parent) from None
    finally:
        for suffix in ("", "-journal", "-wal", "-shm"):
            with suppress(OSError):
                os.unlink(f"{partial}{suffix}")


@contextmanager
def _reading(file: Path, source: Path, *, in_use: bool = False) -> Iterator[sqlite3.Connection]:
    """Yield a connection that changes no data. Damage is reported as damage of `source`."""
    if not in_use:
        # Otherwise SQLite would need to write files beside it, also to read it.
        in_use = any(os.path.exists(f"{file}{suffix}") for suffix in ("-wal", "-shm"))
    with _connected(f"file:{quote(str(file))}?{'mode=rw' if in_use else 'mode=ro&immutable=1'}", file, source) as db:
        yield db


@contextmanager
def _writing(file: Path, source: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection to a copy of `source`, which is reported if it is damaged."""
    with _connected(f"file:{quote(str(file))}?mode=rw", file, source) as db:
        yield db


@contextmanager
def _connected(uri: str, file: Path, source: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection. An error of SQLite in the `with` block is raised as an `Error`."""
    try:
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5.0)) as db:
            yield db
    except sqlite3.Error as error:
        explained = explain_damage(error, file)
        raise corrupt(source, str(error)) if explained.reason == "STORE_CORRUPT" else explained from error
    except UnicodeDecodeError as error:
        raise corrupt(source, "a name in it is not text") from error


@contextmanager
def _backup_errors(backup: Path) -> Iterator[None]:
    """Check that a backup is a file, and report damage as damage of the backup."""
    if not backup.is_file():
        raise refused("BACKUP_MISSING", f"{backup} is not a file: name a backup that `turnout backup` made")
    try:
        yield
    except Error as error:
        if error.reason != "STORE_CORRUPT":
            raise
        message = f"{backup} is damaged, or not a backup: {error.metadata['problem']}. Nothing was changed; use another backup"
        raise refused("BACKUP_CORRUPT", message) from None


def _checked(db: sqlite3.Connection, source: Path, file: Path) -> Summary:
    """Check a store, and return the summary of its file. Errors name the `source`."""
    check_structure(db, source)
    _require_store(db, source)
    if has_layout(db):
        check_rows(db, source)
    revision, time = db.execute("SELECT number, time FROM revisions ORDER BY number DESC LIMIT 1").fetchone() or (0, 0.0)
    try:
        (history,) = db.execute("SELECT history_id FROM identity").fetchone()
    except sqlite3.OperationalError:  # the first schema
        history = ""
    return Summary(history, revision, time, frozenset(sealing_key_ids(db)), file.stat().st_size)


def _give_to_owner(directory: Path) -> None:
    """Give the files to the owner of the directory, if root restores the store of a service that has a user of its own."""
    owner = directory.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        for name in (DATABASE, LOCK, MARKER):
            os.chown(directory / name, owner.st_uid, owner.st_gid)


def _require_store(db: sqlite3.Connection, source: Path) -> None:
    """Check that a database is not empty, and that this version knows its schema."""
    if not check_header(db, source):
        raise corrupt(source, "it is an empty database")


def _sync(path: Path) -> None:
    """Wait until a file or a directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

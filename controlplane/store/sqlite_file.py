"""The SQLite file of a store: held by one process, opened, migrated, read and appended to. Everything here blocks.

What can happen to a transaction: it is refused before COMMIT, then nothing changed; COMMIT returns, then it is on the disk
(WAL, synchronous=FULL); or COMMIT fails, then nobody knows. The last is an `InDoubt`, and `settle` finds out: a new
connection sees either all of it or nothing, and emptying the WAL makes what it saw last.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path

from controlplane.domain import Object
from controlplane.domain.revision import Action, Draft, Head, ObjectMeta, Revision
from controlplane.domain.state import Changes, State
from controlplane.errors import Code, Error
from controlplane.store import Remembered, sealing
from controlplane.store.codec import SEALED, decode, encode

DATABASE = "turnout.db"
LOCK = "turnout.lock"
_APPLICATION_ID = 0x7475726E  # "turn", in the file's header

Connect = Callable[..., sqlite3.Connection]


class InDoubt(Exception):
    """A COMMIT failed: whether it happened is not known. `error` is what to say if it did not."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.message)
        self.error = error


class SqliteFile:
    """A store's file. Made, used and closed on one thread."""

    def __init__(self, directory: Path, connect: Connect = sqlite3.connect, key_file: Path | None = None) -> None:
        """`key_file` holds the keys that private keys are sealed with; None: `secret.key` in the directory, which is
        made when it is needed.

        Errors: see `_explained`, and STORE_HELD, STORE_READ_ONLY, STORE_FOREIGN, STORE_NEWER, and those of `sealing.load`:
        FAILED_PRECONDITION.
        """
        self.path = directory / DATABASE
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._lock: int | None = _locked(directory)
        try:
            with self._explained():
                _keep_to_owner(self.path)
                _migrate(self._db, self.path)
                self._check_numbers()
                self.keys = self._loaded_keys(key_file)
        except BaseException:
            self.close()
            raise

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            # autocommit: every transaction below is opened and closed in so many words
            db = self._connect(self.path, isolation_level=None, timeout=5.0)
            self._connection = db
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
        return self._connection

    def close(self) -> None:
        """Lets go of the file. The process may open it again."""
        self._disconnect()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _disconnect(self) -> None:
        db, self._connection = self._connection, None
        if db is not None:
            with suppress(sqlite3.Error):  # the file is as it is; the next connection recovers it
                db.close()

    def newest(self) -> int:
        """Number of the newest revision, 0 when there is none."""
        with self._explained():
            number: int = self._db.execute("SELECT coalesce(max(number), 0) FROM revisions").fetchone()[0]
            return number

    def head(self, number: int) -> Head:
        """The state as of a revision that exists."""
        objects: dict[str, Object | None] = {}
        kept: dict[str, ObjectMeta] = {}
        with self._explained():
            time = self._db.execute("SELECT time FROM revisions WHERE number = ?", (number,)).fetchone()
            rows = self._db.execute(_STATE, (number,)).fetchall()
        for name, content, revision, create_time, update_time in rows:
            objects[name] = decode(name, content, self.keys)
            kept[name] = ObjectMeta(revision, create_time, update_time)
        return Head(number, State().replayed(Changes(objects)), kept, time[0] if time else 0.0)

    def encode(self, obj: Object) -> str:
        """An object as `append` takes it."""
        return encode(obj, self.keys)

    def revisions(self, before: int, limit: int, object_name: str) -> list[Revision]:
        """As the contract says, but `before` bounds and numbers are not checked."""
        with self._explained():
            if object_name:
                numbered = self._db.execute(_REVISIONS_OF, (object_name, before, limit)).fetchall()
            else:
                numbered = self._db.execute(_REVISIONS, (before, limit)).fetchall()
            return [self._revision(*row) for row in numbered]

    def _revision(
        self, number: int, time: float, author: str, reason: str, action: str, reverted_to: int, request_id: str, digest: str
    ) -> Revision:
        changes: dict[str, tuple[Object | None, Object | None]] = {}
        for name, new, old in self._db.execute(_CHANGES, (number,)):
            changes[name] = (
                decode(name, old, self.keys) if old else None,
                decode(name, new, self.keys) if new else None,
            )
        draft = Draft(author, reason, Action(action), time, reverted_to, request_id, digest)
        return Revision(number, draft, changes)

    def recall(self, request_id: str) -> Remembered | None:
        """What a request id led to."""
        with self._explained():
            row = self._db.execute("SELECT digest, revision FROM requests WHERE id = ?", (request_id,)).fetchone()
        return Remembered(*row) if row else None

    def append(self, number: int, draft: Draft, objects: list[tuple[str, str | None, float]]) -> None:
        """Makes a revision of (name, content, create time) rows. Errors: REQUEST_ID_USED; InDoubt."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO revisions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    number,
                    draft.time,
                    draft.author,
                    draft.reason,
                    draft.action.value,
                    draft.reverted_to,
                    draft.request_id,
                    draft.request_digest,
                ),
            )
            db.executemany("INSERT INTO objects VALUES (?, ?, ?, ?)", [(number, *row) for row in objects])
            if draft.request_id:
                _insert_request(db, draft.request_id, draft.request_digest, number)

    def remember(self, request_id: str, digest: str, revision: int) -> None:
        """Remembers a call that changed nothing. Errors: REQUEST_ID_USED; InDoubt."""
        with self._transaction() as db:
            _insert_request(db, request_id, digest, revision)

    def settle(self) -> int:
        """After an `InDoubt`: makes what there is last, and returns the newest number. Errors: it is still not known."""
        self._disconnect()
        with self._explained():
            number = self.newest()
            if self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                raise Error(Code.UNAVAILABLE, "STORE_BUSY", f"{self.path} is being read by another program; try again")
        return number

    def _check_numbers(self) -> None:
        newest, count = self._db.execute("SELECT coalesce(max(number), 0), count(*) FROM revisions").fetchone()
        if newest != count:
            raise _corrupt(self.path, f"it holds {count} revisions, and the newest is {newest}")

    def _loaded_keys(self, key_file: Path | None) -> sealing.Keys:
        """The keys, of which none is missing: what the history is sealed with can be opened, all of it."""
        used = {row[0] for row in self._db.execute(_SEALED_WITH) if row[0] is not None}
        # A new key is never made where there is something that it does not open.
        keys = sealing.load(key_file or self.path.with_name(sealing.KEY_FILE), make=key_file is None and not used)
        lacking = keys.lacks(used)
        if lacking:
            raise sealing.wrong_key(lacking)
        return keys

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._explained():
            db = self._db
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
            raise InDoubt(_explain(error, self.path)) from error

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """SQLite's errors as ours, with what to do about them."""
        try:
            yield
        except sqlite3.Error as error:
            raise _explain(error, self.path) from error


_STATE = """
SELECT o.name, o.content, o.revision, o.create_time, r.time
FROM (SELECT name, max(revision) AS revision FROM objects WHERE revision <= ? GROUP BY name) AS newest
JOIN objects AS o USING (name, revision)
JOIN revisions AS r ON r.number = o.revision
WHERE o.content IS NOT NULL
"""
# Ids of keys. The range is that of the names which begin with 'secrets/', so that the index finds them.
_SEALED_WITH = f"""
SELECT DISTINCT substr(sealed, 1, instr(sealed, ':') - 1)
FROM (SELECT json_extract(content, '$.tls_certificate.{SEALED}') AS sealed FROM objects
      WHERE name >= 'secrets/' AND name < 'secrets0' AND content IS NOT NULL)
"""
_COLUMNS = "number, time, author, reason, action, reverted_to, request_id, request_digest"
_REVISIONS = f"SELECT {_COLUMNS} FROM revisions WHERE number < ? ORDER BY number DESC LIMIT ?"
_REVISIONS_OF = f"""
SELECT {_COLUMNS} FROM revisions
WHERE number IN (SELECT revision FROM objects WHERE name = ? AND revision < ? ORDER BY revision DESC LIMIT ?)
ORDER BY number DESC
"""
_CHANGES = """
SELECT o.name, o.content,
  (SELECT p.content FROM objects AS p WHERE p.name = o.name AND p.revision < o.revision ORDER BY p.revision DESC LIMIT 1)
FROM objects AS o WHERE o.revision = ? ORDER BY o.name
"""


def _insert_request(db: sqlite3.Connection, request_id: str, digest: str, revision: int) -> None:
    if db.execute("SELECT 1 FROM requests WHERE id = ?", (request_id,)).fetchone():
        raise Error(Code.ALREADY_EXISTS, "REQUEST_ID_USED", f"request id {request_id} was used already")
    db.execute("INSERT INTO requests VALUES (?, ?, ?)", (request_id, digest, revision))


def _rollback(db: sqlite3.Connection) -> None:
    # Some errors end the transaction by themselves.
    with suppress(sqlite3.Error):
        if db.in_transaction:
            db.execute("ROLLBACK")


def _keep_to_owner(database: Path) -> None:
    """The file and those beside it are its owner's only, also where an older version, or a copy, made them otherwise."""
    with suppress(OSError):  # what can't be opened or changed is found out by SQLite, and said as it says it
        os.close(os.open(database, os.O_RDWR | os.O_CREAT, 0o600))
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.chmod(f"{database}{suffix}", 0o600)


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    """Brings the file to the newest schema, each step in a transaction."""
    (version,), (owner,) = (db.execute(f"PRAGMA {p}").fetchone() for p in ("user_version", "application_id"))
    steps = sorted((f for f in resources.files(f"{__package__}.migrations").iterdir() if f.name.endswith(".sql")), key=str)
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if owner != _APPLICATION_ID and (owner or version or tables):
        raise _refused("STORE_FOREIGN", f"{path} is a database of another program: name another directory")
    if version > len(steps):
        raise _refused(
            "STORE_NEWER",
            f"{path} was written by a newer version (schema {version}; this one knows up to {len(steps)}): run the newer one",
        )
    for number, step in enumerate(steps[version:], version + 1):
        db.execute("BEGIN IMMEDIATE")
        for statement in _statements(step.read_text()):
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {number}")
        db.execute("COMMIT")
    # A file that can be read only is found out now, and not by the first write.
    db.execute("BEGIN IMMEDIATE")
    db.execute(f"PRAGMA user_version = {len(steps)}")
    db.execute("ROLLBACK")


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _locked(directory: Path) -> int:
    """A lock that this process holds until it ends, however it ends."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except FileExistsError:
        raise _refused("STORE_CANT_OPEN", f"{directory} is a file: name a directory") from None
    except OSError as error:
        raise _explain_os(error, directory) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
    except BlockingIOError:
        holder = os.read(lock, 20).decode(errors="replace").strip()
        os.close(lock)
        who = f"process {holder}" if holder else "another process"
        raise _refused("STORE_HELD", f"{directory} is held by {who}: stop it first, or name another directory") from None
    except OSError as error:
        os.close(lock)
        raise _explain_os(error, directory) from None
    return lock


def _explain_os(error: OSError, directory: Path) -> Error:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Error(Code.RESOURCE_EXHAUSTED, "STORE_FULL", f"there is no space left on the disk under {directory}: free some")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        why = error.strerror or "no permission"
        return _refused("STORE_READ_ONLY", f"{directory} can't be written to ({why.lower()}): make it writable for this user")
    return _refused("STORE_CANT_OPEN", f"{directory} can't be opened: {error.strerror}")


def _explain(error: sqlite3.Error, path: Path) -> Error:
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return Error(Code.RESOURCE_EXHAUSTED, "STORE_FULL", f"there is no space left on the disk under {path}: free some")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return _refused("STORE_READ_ONLY", f"{path} can't be written to: make it and its directory writable for this user")
        case sqlite3.SQLITE_CANTOPEN:
            return _refused("STORE_CANT_OPEN", f"{path} can't be opened: make it and its directory writable for this user")
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return _corrupt(path, str(error))
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Error(Code.UNAVAILABLE, "STORE_BUSY", f"{path} is locked by another program; try again")
        case sqlite3.SQLITE_IOERR:
            return Error(
                Code.UNAVAILABLE, "STORE_IO", f"the disk under {path} fails or is full ({error}); see to it and try again"
            )
        case _:
            return Error(Code.INTERNAL, "STORE_FAILED", f"{path}: {error}")


def _refused(reason: str, message: str) -> Error:
    return Error(Code.FAILED_PRECONDITION, reason, message)


def _corrupt(path: Path, why: str) -> Error:
    return _refused(
        "STORE_CORRUPT", f"{path} is damaged or not a store ({why}): restore it from a backup, or name another directory"
    )

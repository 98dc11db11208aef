"""The SQL of the history. All functions block."""

from __future__ import annotations

import sqlite3
from typing import Any

from controlplane.domain import Object, Secret
from controlplane.domain.revision import Action, Draft, Head, ObjectMeta, Revision
from controlplane.domain.state import Changes, State
from controlplane.errors import Code, Error
from controlplane.store.codec import codec_digest, decode, encode
from controlplane.store.history import RememberedRequest
from controlplane.store.lease import Fence
from controlplane.store.sealing import KeySource
from controlplane.store.sqlite import marker
from controlplane.store.sqlite.digests import object_is_damaged, put_digests
from controlplane.store.sqlite.earlier_use import DATABASE
from controlplane.store.sqlite.explain import corrupt, refused
from controlplane.store.sqlite.file import SqliteFile
from controlplane.store.sqlite.leases import check_fence
from controlplane.store.sqlite.marker import MARKER, Marker
from controlplane.store.sqlite.sealed_keys import SealedKeys


class HistoryTables:
    """The tables of revisions, objects and requests."""

    def __init__(self, file: SqliteFile, key_source: KeySource) -> None:
        """Get the sealing keys, seal with the first of them, and check that this version reads each object.

        Errors: STORE_NEWER, STORE_CORRUPT, STORE_REPLACED; SECRET_KEY_WRONG; those of `key_source`.
        """
        self._file = file
        self._history_id = self.history_id()
        self._check_marker()
        self.sealed_keys = SealedKeys(file, key_source)
        self._check_objects()

    def history_id(self) -> str:
        """Return the random name of this history."""
        with self._file.read() as db:
            history_id: str = db.execute("SELECT history_id FROM identity").fetchone()[0]
            return history_id

    def newest(self) -> int:
        """Return the number of the newest revision; 0 if there is none."""
        with self._file.read() as db:
            number: int = db.execute("SELECT coalesce(max(number), 0) FROM revisions").fetchone()[0]
            return number

    def head(self, number: int) -> Head:
        """Return the head at an existing revision, or at 0."""
        objects: dict[str, Object | None] = {}
        meta: dict[str, ObjectMeta] = {}
        with self._file.read() as db:
            time = db.execute("SELECT time FROM revisions WHERE number = ?", (number,)).fetchone()
            rows = db.execute(_STATE, (number,)).fetchall()
        is_newest = number == self.newest()
        for name, content, revision, create_time, update_time in rows:
            objects[name] = obj = self._decoded(revision, name, content)
            if is_newest and isinstance(obj, Secret) and obj.purged:
                # Only withdrawn keys are purged.
                raise corrupt(self._file.path, f"table objects, revision {revision}, {name}: its private key is missing")
            meta[name] = ObjectMeta(revision, create_time, update_time, self._history_id)
        return Head(number, State().replayed(Changes(objects)), meta, time[0] if time else 0.0, self._history_id)

    def revisions(self, before: int, limit: int, object_name: str) -> list[Revision]:
        """Return revisions as `History.revisions` does. `before` may be any number."""
        with self._file.read() as db:
            if object_name:
                rows = db.execute(_REVISIONS_OF, (object_name, before, limit)).fetchall()
            else:
                rows = db.execute(_REVISIONS, (before, limit)).fetchall()
            return [self._revision(db, row) for row in rows]

    def _revision(self, db: sqlite3.Connection, row: tuple[Any, ...]) -> Revision:
        number, time, author, reason, action, reverted_to, request_id, digest = row
        changes: dict[str, tuple[Object | None, Object | None]] = {}
        for name, new, old, old_revision in db.execute(_CHANGES, (number,)).fetchall():
            changes[name] = (
                self._decoded(old_revision, name, old) if old else None,
                self._decoded(number, name, new) if new else None,
            )
        draft = Draft(author, reason, Action(action), time, reverted_to, request_id, digest)
        return Revision(number, draft, changes, self._history_id)

    def recall(self, request_id: str) -> RememberedRequest | None:
        """Return the request with an id, or None when the id is new."""
        with self._file.read() as db:
            row = db.execute("SELECT digest, revision FROM requests WHERE id = ?", (request_id,)).fetchone()
        return RememberedRequest(*row) if row else None

    def append(self, before: Head, proposed: Head, changes: Changes, draft: Draft, fence: Fence | None) -> None:
        """Append the revision that leads from `before` to `proposed`. Errors: REQUEST_ID_USED; LEASE_LOST; InDoubt."""
        number = proposed.number
        self.sealed_keys.forget_new()
        rows: list[tuple[int, str, str | None, float]] = []
        for name, obj in changes.objects.items():
            meta = proposed.meta.get(name) or before.meta.get(name)
            content = encode(obj, self.sealed_keys) if obj is not None else None
            rows.append((number, name, content, meta.create_time if meta else draft.time))
        with self._file.transaction() as db:
            check_fence(db, fence)
            revision = _revision_row(number, draft)
            db.execute("INSERT INTO revisions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", revision)
            db.executemany("INSERT INTO objects VALUES (?, ?, ?, ?)", rows)
            self.sealed_keys.write_new(db)
            put_digests(db, "revisions", [revision])
            put_digests(db, "objects", rows)
            if draft.request_id:
                _insert_request(db, draft.request_id, draft.request_digest, number)

    def remember(self, request_id: str, digest: str, revision: int, fence: Fence | None) -> None:
        """Remember a request that changed nothing. Errors: REQUEST_ID_USED; LEASE_LOST; InDoubt."""
        with self._file.transaction() as db:
            check_fence(db, fence)
            _insert_request(db, request_id, digest, revision)

    def mark(self, newest: int) -> None:
        """Write the number of the newest revision to the marker of the directory. It raises nothing."""
        marker.write(self._file.path.parent, Marker(self._history_id, newest))

    def _check_marker(self) -> None:
        """Check that the database is the one that was here before, and no older copy of it. Then update the marker."""
        directory = self._file.path.parent
        before = None if self._file.created else marker.read(directory)
        newest = self.newest()
        if before is not None and (before.history != self._history_id or before.revision > newest):
            raise refused(
                "STORE_REPLACED",
                f"{self._file.path} has history {self._history_id} up to revision {newest}, but {MARKER} beside it says that "
                f"history {before.history} was here, up to revision {before.revision}. Either an older or another database "
                f"was copied here, or the newest revisions were lost with {DATABASE}-wal. Put the right files back. To go on "
                f"with this database as a new history: turnout restore {self._file.path} --data {directory} --replace",
            )
        self.mark(newest)

    def _check_objects(self) -> None:
        """Decode each object of each revision, if another version or form of this program read the file last.

        Rows are as they were written: their digests are checked before. So what this form has read once, it can read again.
        """
        form = codec_digest()
        with self._file.read() as db:
            if db.execute("SELECT codec_digest FROM layout").fetchone()[0] == form:
                return
            for revision, name, content in db.execute("SELECT revision, name, content FROM objects WHERE content IS NOT NULL"):
                self._decoded(revision, name, content)
        with self._file.transaction() as db:
            db.execute("UPDATE layout SET codec_digest = ?", (form,))

    def _decoded(self, revision: int, name: str, content: str) -> Object:
        """Return an object of a revision. Errors: STORE_NEWER, STORE_CORRUPT, with the place."""
        try:
            return decode(name, content, self.sealed_keys)
        except Error as error:
            with self._file.read() as db:
                if object_is_damaged(db, revision, name):
                    raise corrupt(self._file.path, f"table objects, revision {revision}, {name}") from None
            message = f"{self._file.path}, table objects, revision {revision}: {error.message}"
            raise Error(error.code, error.reason, message) from None


_STATE = """
SELECT o.name, o.content, o.revision, o.create_time, r.time
FROM (SELECT name, max(revision) AS revision FROM objects WHERE revision <= ? GROUP BY name) AS newest
JOIN objects AS o USING (name, revision)
JOIN revisions AS r ON r.number = o.revision
WHERE o.content IS NOT NULL
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
  p.content, p.revision
FROM objects AS o LEFT JOIN objects AS p ON p.name = o.name AND p.revision =
  (SELECT max(revision) FROM objects AS q WHERE q.name = o.name AND q.revision < o.revision)
WHERE o.revision = ? ORDER BY o.name
"""


def _revision_row(number: int, draft: Draft) -> tuple[str | int | float, ...]:
    """Return the row of a revision, in the order of the table's columns."""
    return (
        number,
        draft.time,
        draft.author,
        draft.reason,
        draft.action.value,
        draft.target,
        draft.request_id,
        draft.request_digest,
    )


def _insert_request(db: sqlite3.Connection, request_id: str, digest: str, revision: int) -> None:
    if db.execute("SELECT 1 FROM requests WHERE id = ?", (request_id,)).fetchone():
        raise Error(Code.ALREADY_EXISTS, "REQUEST_ID_USED", f"request id {request_id} was used already")
    row = (request_id, digest, revision)
    db.execute("INSERT INTO requests VALUES (?, ?, ?)", row)
    put_digests(db, "requests", [row])

"""Private keys and opaque values: records, sealed, outside the history. All functions block.

The JSON of a secret in the history has `stored:ID` in place of its private key or value, and the record `sealed_keys/LABEL/ID`
has the sealed text. So a key is removed, or sealed anew with another sealing key, without a change of the history. Revisions
with the same key share one record. The ID is random, because people could guess a short value until a hash fits.

When a store is opened, everything is brought under the first sealing key, in one transaction:

| the store has | is done |
|---|---|
| private keys in the objects (schema 3 and earlier) | they become records |
| private keys under another sealing key than the first | they are sealed anew |
| one of both, or MACs with a key under another sealing key | all rows get MACs with a new key |
| no MACs (schema 3 and earlier, or restored without private keys) | all rows get MACs |

The rows are checked with the MACs that they have before anything is done. A process that is killed in the middle has changed
nothing, and the next start does it again.
"""

from __future__ import annotations

import builtins
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from controlplane.domain import Secret
from controlplane.store.codec import SEALED, SEALED_VALUE
from controlplane.store.records import Kind
from controlplane.store.sealing import KeySource, Purged, key_id, wrong_key
from controlplane.store.sqlite.digests import edited_row, put_all_macs, put_digests
from controlplane.store.sqlite.explain import corrupt
from controlplane.store.sqlite.file import InDoubt, SqliteFile
from controlplane.store.sqlite.leases import next_number, put_sequence_digest
from controlplane.store.sqlite.records import count_of, delete_in, put_in
from controlplane.store.sqlite.runner import FileRunner
from controlplane.store.withdrawn import WithdrawnKey

KIND = Kind("sealed_keys", max_records=100_000, max_bytes=128 * 1024)

_STORED = "stored:"
_MAC_KEY_NAME = "the key of the MACs"
_SECRETS = (f"{Secret.collection}/", f"{Secret.collection}0")  # '0' is the character after '/'


@dataclass(frozen=True, slots=True)
class Upkeep:
    """The upkeep of private keys and MACs when a store was opened."""

    # Private keys that were moved out of the history, and those that were sealed with another sealing key.
    moved: int = 0
    resealed: int = 0
    # True if all rows got new MACs; `had_macs` is True if they had others before, which were right.
    new_macs: bool = False
    had_macs: bool = False
    is_new_store: bool = False
    # The id of the sealing key that seals.
    sealed_with: str = ""


class SealedKeys:
    """The `Sealer` of a file."""

    def __init__(self, file: SqliteFile, key_source: KeySource) -> None:
        """Get the sealing keys, and bring the file under the first of them.

        Errors: SECRET_KEY_WRONG; STORE_CORRUPT if a row differs from its MAC; those of `key_source` and of the file.
        """
        self._file = file
        # By record: sealed texts that the next revision needs. `write_new` writes them.
        self._new: dict[str, str] = {}
        with file.read() as db:
            sealed_mac_key = _sealed_mac_key(db)
            used = sealing_key_ids(db) | ({key_id(sealed_mac_key)} if sealed_mac_key else set())
        self._keys = keys = key_source(used)
        if missing := keys.missing(used):
            raise wrong_key(missing)
        if sealed_mac_key:
            file.mac_key = self._opened_mac_key(sealed_mac_key)
            with file.read() as db:
                if problem := edited_row(db, file.mac_key):
                    raise corrupt(file.path, problem)
        stale = used - {keys.first} or _moves_needed(file)
        self.upkeep = self._bring_up(bool(sealed_mac_key)) if stale or not sealed_mac_key else Upkeep(sealed_with=keys.first)

    def seal(self, text: str, name: str) -> str:
        """Return a reference to the record of a text. Equal texts of one secret share a record."""
        label = name.partition("/")[2]
        with self._file.read() as db:
            rows = db.execute(_OF_SECRET, (KIND.name, f"{label}/", f"{label}0")).fetchall()
        for record, value in rows:
            if self._keys.open(value.decode(), _full_name(record)) == text:
                return _STORED + _id(record)
        record = f"{label}/{os.urandom(16).hex()}"
        self._new[record] = self._keys.seal(text, _full_name(record))
        return _STORED + _id(record)

    def open(self, sealed: str, name: str) -> str:
        """Return a text. Errors: Purged if there is no record; SECRET_KEY_WRONG; ValueError."""
        if not sealed.startswith(_STORED):
            return self._keys.open(sealed, name)
        record = f"{name.partition('/')[2]}/{sealed.removeprefix(_STORED)}"
        with self._file.read() as db:
            row = db.execute("SELECT value FROM records WHERE kind = ? AND name = ?", (KIND.name, record)).fetchone()
        if row is None:
            raise Purged(_id(record))
        return self._keys.open(row[0].decode(), _full_name(record))

    def forget_new(self) -> None:
        """Forget the texts that were sealed for a revision and not written: it was refused."""
        self._new.clear()

    def write_new(self, db: sqlite3.Connection) -> None:
        """Write the records of the texts that were sealed. Call it in the transaction of their revision."""
        if self._new:
            count = count_of(db, KIND)
            for i, (record, sealed) in enumerate(self._new.items()):
                put_in(db, KIND, record, sealed.encode(), 0, count + i)
            put_sequence_digest(db)

    def withdrawn(self) -> list[WithdrawnKey]:
        """Return the keys that the newest revision does not use and that are still in the store, oldest first."""
        with self._file.read() as db:
            rows = db.execute(_HISTORY_OF_SECRETS, _SECRETS).fetchall()
            records = {name for (name,) in db.execute("SELECT name FROM records WHERE kind = ?", (KIND.name,))}
        live: dict[str, str] = {}
        withdrawn: dict[str, WithdrawnKey] = {}
        for name, content, time in rows:
            label = name.partition("/")[2]
            _, _, sealed = _sealed_field(content)
            record = f"{label}/{sealed.removeprefix(_STORED)}" if sealed else ""
            before = live.get(label, "")
            if before != record:
                if before:
                    withdrawn[before] = WithdrawnKey(label, _id(before), time)
                withdrawn.pop(record, None)
                live[label] = record
        return sorted((withdrawn[r] for r in withdrawn.keys() & records), key=lambda key: (key.time, key.id))

    def purge(self, keys: Iterable[WithdrawnKey]) -> list[WithdrawnKey]:
        """Remove withdrawn keys from the store, and from the pages and the WAL that they were in. Return those removed."""
        wanted = set(keys)
        purged = [key for key in self.withdrawn() if key in wanted]
        with self._file.transaction() as db:
            for key in purged:
                record = f"{key.secret}/{key.id}"
                row = db.execute("SELECT version FROM records WHERE kind = ? AND name = ?", (KIND.name, record)).fetchone()
                delete_in(db, KIND, record, row[0])
        if purged:
            self._file.empty_wal()
        return purged

    def _opened_mac_key(self, sealed: str) -> bytes:
        try:
            return bytes.fromhex(self._keys.open(sealed, _MAC_KEY_NAME))
        except ValueError:
            raise corrupt(self._file.path, "table layout: the key of the MACs can't be opened") from None

    def _bring_up(self, had_macs: bool) -> Upkeep:
        """Bring the file under the first sealing key, in one transaction. Errors: those of the file."""
        mac_key = os.urandom(32)
        try:
            with self._file.transaction() as db:
                moved, resealed = self._move(db), self._reseal(db)
                put_all_macs(db, mac_key)
                sealed = self._keys.seal(mac_key.hex(), _MAC_KEY_NAME)
                db.execute("UPDATE layout SET mac_key = ?", (f"{sealed} {_checksum(sealed)}",))
        except InDoubt as doubt:
            raise doubt.error from doubt
        self._file.mac_key = mac_key
        if moved or resealed:
            self._file.empty_wal()
        return Upkeep(moved, resealed, True, had_macs, self._file.created, self._keys.first)

    def _move(self, db: sqlite3.Connection) -> int:
        """Make records of the private keys that are in objects. Return how many keys there were."""
        rows = [row for row in db.execute(_OBJECTS, _SECRETS).fetchall() if _is_in_object(row[2])]
        if not rows:
            return 0
        records: dict[tuple[str, str], str] = {}
        (trigger,) = db.execute("SELECT sql FROM sqlite_schema WHERE name = 'objects_stay'").fetchone()
        db.execute("DROP TRIGGER objects_stay")
        for revision, name, content, create_time in rows:
            data, (kind, field), sealed = _sealed_field(content)
            try:
                text = self._keys.open(sealed, name)
            except ValueError:
                continue  # the decoder reports it
            record = records.setdefault((name, text), f"{name.partition('/')[2]}/{os.urandom(16).hex()}")
            data[kind][field] = _STORED + _id(record)
            moved = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
            db.execute("UPDATE objects SET content = ? WHERE revision = ? AND name = ?", (moved, revision, name))
            put_digests(db, "objects", [(revision, name, moved, create_time)])
        db.execute(trigger)
        for (_, text), record in records.items():
            row = (KIND.name, record, next_number(db), self._keys.seal(text, _full_name(record)).encode())
            db.execute("INSERT INTO records VALUES (?, ?, ?, ?)", row)
            put_digests(db, "records", [row])
        put_sequence_digest(db)
        return len(records)

    def _reseal(self, db: sqlite3.Connection) -> int:
        """Seal the records that have another sealing key than the first anew. Return how many there were."""
        count = 0
        rows = db.execute("SELECT kind, name, version, value FROM records WHERE kind = ?", (KIND.name,)).fetchall()
        for kind, name, version, value in rows:
            try:
                sealed = self._keys.resealed(value.decode(), _full_name(name)).encode()
            except ValueError as error:
                raise corrupt(self._file.path, f"table records, {kind}/{name}: {error}") from None
            if sealed != value:
                # The version stays: it is the same key.
                db.execute("UPDATE records SET value = ? WHERE kind = ? AND name = ?", (sealed, kind, name))
                put_digests(db, "records", [(kind, name, version, sealed)])
                count += 1
        return count


class SqliteWithdrawnKeys:
    """The `WithdrawnKeys` of a SQLite store."""

    def __init__(self, runner: FileRunner, sealed_keys: SealedKeys) -> None:
        self._runner = runner
        self._sealed_keys = sealed_keys

    async def list(self) -> builtins.list[WithdrawnKey]:
        return await self._runner.read(lambda file: self._sealed_keys.withdrawn())

    async def purge(self, keys: Iterable[WithdrawnKey]) -> builtins.list[WithdrawnKey]:
        return await self._runner.write(lambda file: self._sealed_keys.purge(keys))


def sealing_key_ids(db: sqlite3.Connection) -> set[str]:
    """Return the ids of the sealing keys of the private keys in a store of any schema. The store may be a backup."""
    ids = {key_id(sealed) for _, sealed in _in_objects(db)}
    if db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'records'").fetchone():
        query = (
            "SELECT DISTINCT substr(CAST(value AS TEXT), 1, instr(CAST(value AS TEXT), ':') - 1) FROM records WHERE kind = ?"
        )
        ids |= {sealed_with for (sealed_with,) in db.execute(query, (KIND.name,))}
    return ids


def _moves_needed(file: SqliteFile) -> bool:
    with file.read() as db:
        return next(_in_objects(db), None) is not None


def _in_objects(db: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Yield the name of each secret in the history whose JSON has the sealed text itself, and that text."""
    for name, sealed in db.execute(_SEALED_IN_OBJECTS, _SECRETS):
        if sealed is not None and not str(sealed).startswith(_STORED):
            yield name, str(sealed)


def _is_in_object(content: str) -> bool:
    _, _, sealed = _sealed_field(content)
    return bool(sealed) and not sealed.startswith(_STORED)


def _sealed_field(content: str | None) -> tuple[dict[str, Any], tuple[str, str], str]:
    """Return the JSON of a secret, the place of its sealed field, and its value: "" if there is none, or no valid JSON."""
    try:
        data = json.loads(content) if content else {}
    except ValueError:
        data = {}  # the decoder reports it
    for place in (("tls_certificate", SEALED), ("opaque", SEALED_VALUE)):
        body = data.get(place[0]) if isinstance(data, dict) else None
        if isinstance(body, dict) and isinstance(body.get(place[1]), str):
            return data, place, body[place[1]]
    return {}, ("", ""), ""


def _sealed_mac_key(db: sqlite3.Connection) -> str:
    """Return the sealed key of the MACs; "" if there is none. Errors: STORE_CORRUPT."""
    (text,) = db.execute("SELECT mac_key FROM layout").fetchone()
    sealed, _, checksum = str(text).partition(" ")
    if text and checksum != _checksum(sealed):
        path = db.execute("PRAGMA database_list").fetchone()[2]
        raise corrupt(path, "table layout: the key of the MACs differs from its checksum")
    return sealed


def _checksum(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()


def _id(record: str) -> str:
    return record.partition("/")[2]


def _full_name(record: str) -> str:
    """Return the name that is authenticated with the sealed text of a record, so that no two can be exchanged."""
    return f"{Secret.collection}/{record}"


_OF_SECRET = "SELECT name, value FROM records WHERE kind = ? AND name >= ? AND name < ?"
_OBJECTS = """
SELECT revision, name, content, create_time FROM objects WHERE name >= ? AND name < ? AND content IS NOT NULL
"""
_HISTORY_OF_SECRETS = """
SELECT o.name, o.content, r.time FROM objects AS o JOIN revisions AS r ON r.number = o.revision
WHERE o.name >= ? AND o.name < ? ORDER BY o.name, o.revision
"""
_SEALED_IN_OBJECTS = f"""
SELECT name, coalesce(json_extract(content, '$.tls_certificate.{SEALED}'), json_extract(content, '$.opaque.{SEALED_VALUE}'))
FROM objects WHERE name >= ? AND name < ? AND content IS NOT NULL
"""

"""Digests and MACs of rows: they show that a row is as Turnout wrote it. All functions block.

SQLite checks the structure of its file, but not the values in it: a changed bit in the JSON of an object makes another
object. So each row of the tables below has a row in the table `digests`, which is written in the same transaction.

A *digest* needs no key, so every program can check it, also for a backup whose sealing key is elsewhere. A *MAC* (keyed
BLAKE2b, RFC 7693) can be made only with a key that is sealed in the store: it shows that nobody edited the row.

| table | key | MAC |
|---|---|---|
| revisions | number | yes |
| objects | revision, name | yes |
| requests | id | yes |
| records | kind, name | yes |
| leases | name | yes |
| identity, sequence | none: one row | no: `turnout restore` writes them, and has no sealing key |

Known flaws: whoever can write the file can put an older row back with its MAC, or remove records. The number of the newest
revision is also in the file `turnout.history` and in the audit log.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from hmac import compare_digest

Value = str | bytes | int | float | None

_BYTES = 16


@dataclass(frozen=True, slots=True)
class _Table:
    """The columns of a table; the first `key_columns` of them identify a row."""

    columns: str
    key_columns: int
    has_macs: bool = True


_TABLES: Mapping[str, _Table] = {
    "identity": _Table("history_id", 0, has_macs=False),
    "revisions": _Table("number, time, author, reason, action, reverted_to, request_id, request_digest", 1),
    "objects": _Table("revision, name, content, create_time", 2),
    "requests": _Table("id, digest, revision", 1),
    "records": _Table("kind, name, version, value", 2),
    "leases": _Table("name, holder, token, expires", 1),
    "sequence": _Table("number", 0, has_macs=False),
}


def put_digests(db: sqlite3.Connection, table: str, rows: Iterable[Sequence[Value]]) -> None:
    """Write the digests and MACs of rows that were written. The values are in the order of the table's columns.

    The MACs are those of the connection's function `row_mac` (`SqliteFile`).
    """
    if not _TABLES[table].has_macs:
        _put_digests_only(db, table, rows)
        return
    db.executemany(
        "INSERT OR REPLACE INTO digests (table_name, row_key, digest, mac) VALUES (?, ?, ?, row_mac(?, ?))",
        [(table, _key(table, row), _hash(data), table, data) for row in rows for data in [_row_data(row)]],
    )


def _put_digests_only(db: sqlite3.Connection, table: str, rows: Iterable[Sequence[Value]]) -> None:
    db.executemany(
        "INSERT OR REPLACE INTO digests (table_name, row_key, digest) VALUES (?, ?, ?)",
        [(table, _key(table, row), row_digest(row)) for row in rows],
    )


def row_mac(mac_key: bytes, table: str, data: bytes) -> bytes:
    """Return the MAC of a row of a table."""
    return blake2b(data, digest_size=_BYTES, key=mac_key, person=table.encode()).digest()


def put_all_macs(db: sqlite3.Connection, mac_key: bytes) -> None:
    """Write the MACs of all rows."""
    for table, rows in _rows_with_macs(db):
        macs = [(row_mac(mac_key, table, _row_data(row)), table, _key(table, row)) for row in rows]
        db.executemany("UPDATE digests SET mac = ? WHERE table_name = ? AND row_key = ?", macs)


def edited_row(db: sqlite3.Connection, mac_key: bytes) -> str:
    """Return the place and the problem of the first row that differs from its MAC; "" if there is none."""
    for table, rows in _rows_with_macs(db):
        macs = dict(db.execute("SELECT row_key, mac FROM digests WHERE table_name = ?", (table,)).fetchall())
        for row in rows:
            key = _key(table, row)
            if not compare_digest(macs.get(key) or b"", row_mac(mac_key, table, _row_data(row))):
                return f"{_place(table, key)}: the row differs from its MAC, so another program than Turnout changed it"
    return ""


def _rows_with_macs(db: sqlite3.Connection) -> Iterator[tuple[str, Iterator[tuple[Value, ...]]]]:
    for name, table in _TABLES.items():
        if table.has_macs:
            yield name, _rows(db, name)


def delete_digest(db: sqlite3.Connection, table: str, *key: Value) -> None:
    """Delete the digest of a row that was deleted."""
    db.execute("DELETE FROM digests WHERE table_name = ? AND row_key = ?", (table, _key(table, key)))


def put_all_digests(db: sqlite3.Connection) -> None:
    """Write the digests of all rows. A file of an earlier schema has none."""
    for table in _TABLES:
        _put_digests_only(db, table, _rows(db, table))


def damaged_row(db: sqlite3.Connection) -> str:
    """Return the place and the problem of the first row that differs from its digest; "" if there is none."""
    for table in _TABLES:
        with raw_text(db):
            stored = db.execute("SELECT row_key, digest FROM digests WHERE table_name = ?", (table,)).fetchall()
        digests: dict[str, bytes] = {key.decode(errors="replace"): digest for key, digest in stored}
        for row in _rows(db, table):
            key = _key(table, row)
            if digests.pop(key, None) != row_digest(row):
                return f"{_place(table, key)}: the row differs from its digest"
        if digests:
            return f"{_place(table, min(digests))}: the row is missing"
    (others,) = db.execute(
        f"SELECT count(*) FROM digests WHERE table_name NOT IN ({', '.join('?' * len(_TABLES))})", tuple(_TABLES)
    ).fetchone()
    return "table digests: a row of an unknown table" if others else ""


def object_is_damaged(db: sqlite3.Connection, revision: int, name: str) -> bool:
    """Return True if the row of an object differs from its digest."""
    with raw_text(db):
        row = db.execute(
            f"SELECT {_TABLES['objects'].columns} FROM objects WHERE revision = ? AND name = ?", (revision, name)
        ).fetchone()
    digest = db.execute(
        "SELECT digest FROM digests WHERE table_name = 'objects' AND row_key = ?", (_key("objects", (revision, name)),)
    ).fetchone()
    return row is None or digest is None or row_digest(row) != digest[0]


def row_digest(row: Sequence[Value]) -> bytes:
    """Return the digest of a row's values. A text has the digest of its bytes in UTF-8, a number that of the nearest float."""
    return _hash(_row_data(row))


def _hash(data: bytes) -> bytes:
    return blake2b(data, digest_size=_BYTES).digest()


def _row_data(row: Sequence[Value]) -> bytes:
    """Return the values of a row as bytes: each after its length."""
    return b"".join(len(data).to_bytes(8, "big") + data for value in row for data in [_data(value)])


def _data(value: Value) -> bytes:
    match value:
        case None:
            return b"null"
        case str():
            return b"t" + value.encode()
        case bytes():
            return b"t" + value
        case _:
            # A column of numbers may return an integer as a float. Adding 0.0 makes 0.0 of -0.0, as SQLite does.
            return b"n" + struct.pack(">d", float(value) + 0.0)


def _rows(db: sqlite3.Connection, table: str) -> Iterator[tuple[Value, ...]]:
    """Yield the rows of a table, texts as bytes: a damaged text may not be UTF-8."""
    with raw_text(db):
        cursor = db.execute(f"SELECT {_TABLES[table].columns} FROM {table}")
        while rows := cursor.fetchmany(1_000):
            yield from rows


@contextmanager
def raw_text(db: sqlite3.Connection) -> Iterator[None]:
    """Return texts as bytes in the `with` block: a damaged text may not be UTF-8."""
    text_factory, db.text_factory = db.text_factory, bytes
    try:
        yield
    finally:
        db.text_factory = text_factory


def _key(table: str, row: Sequence[Value]) -> str:
    values = row[: _TABLES[table].key_columns]
    return " ".join(v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values)


def _place(table: str, key: str) -> str:
    """Return a place for people: `table objects, revision 12, models/iris`."""
    match table, key.split(" ", 1):
        case "revisions", [number]:
            return f"table revisions, revision {number}"
        case "objects", [number, name]:
            return f"table objects, revision {number}, {name}"
        case "records", [kind, name]:
            return f"table records, {kind}/{name}"
        case _:
            return f"table {table}" + (f", {key}" if key else "")

"""The tables of the file: creates them, and migrates them to the newest version.

The version of the schema is in the header of the file, and a second time in the table `layout`, with a digest of the SQL of
all tables. So a damaged header or a damaged table is distinguished from a file of a newer version or of another program.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from controlplane.store.sqlite.digests import put_all_digests, row_digest
from controlplane.store.sqlite.explain import corrupt, refused

_APPLICATION_ID = 0x7475726E  # "turn", in the file's header


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Migrate the file to the newest schema, each step in a transaction. Errors: STORE_FOREIGN, STORE_NEWER, STORE_CORRUPT."""
    version = check_header(db, path)
    steps = _steps()
    for number, step in enumerate(steps[version:], version + 1):
        db.execute("BEGIN IMMEDIATE")
        had_digests = _has_table(db, "digests")
        for statement in _statements(step.read_text()):
            db.execute(statement)
        if _has_table(db, "digests"):
            if not had_digests:
                put_all_digests(db)
            db.execute("UPDATE layout SET version = ?, schema_digest = ?", (number, _schema_digest(db)))
        db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {number}")
        db.execute("COMMIT")
    if not _has_table(db, "layout"):
        raise corrupt(path, "the table layout is missing")
    # Try a write, so that a read-only file fails now and not later.
    db.execute("BEGIN IMMEDIATE")
    db.execute(f"PRAGMA user_version = {len(steps)}")
    db.execute("ROLLBACK")


def has_layout(db: sqlite3.Connection) -> bool:
    """Return True if the file has digests, and a second copy of the version of its schema."""
    return _has_table(db, "layout")


def check_header(db: sqlite3.Connection, path: Path) -> int:
    """Return the version of the schema. Errors: STORE_FOREIGN, STORE_NEWER, STORE_CORRUPT."""
    (version,), (owner,) = (db.execute(f"PRAGMA {p}").fetchone() for p in ("user_version", "application_id"))
    newest = len(_steps())
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if _has_table(db, "layout"):
        second, schema_digest = db.execute("SELECT version, schema_digest FROM layout").fetchone() or (0, b"")
        if second != version or owner != _APPLICATION_ID:
            problem = f"its header says application {owner:#x}, schema {version}, and the table layout says schema {second}"
            raise corrupt(path, problem)
        if version <= newest and schema_digest != _schema_digest(db):
            raise corrupt(path, "a table, an index or a trigger is not as it was created")
    elif owner != _APPLICATION_ID and (owner or version or tables):
        raise refused("STORE_FOREIGN", f"{path} is a database of another program: name another directory")
    elif tables and not version:
        raise corrupt(path, "its header says schema 0, and there are tables")
    if version > newest:
        raise refused(
            "STORE_NEWER",
            f"{path} was written by a newer version (schema {version}; this one knows up to {newest}): run the newer one",
        )
    return int(version)


def _steps() -> list[Traversable]:
    """Return the scripts of the migrations, in their order."""
    return sorted((f for f in resources.files(f"{__package__}.migrations").iterdir() if f.name.endswith(".sql")), key=str)


def _has_table(db: sqlite3.Connection, name: str) -> bool:
    return db.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?", (name,)).fetchone() is not None


def _schema_digest(db: sqlite3.Connection) -> bytes:
    """Return a digest of the SQL of everything in the schema, but for SQLite's own tables."""
    rows = db.execute(
        "SELECT CAST(type || ' ' || name || ' ' || tbl_name || ' ' || coalesce(sql, '') AS BLOB) FROM sqlite_schema "
        "WHERE name NOT LIKE 'sqlite_stat%' ORDER BY type, name"
    )
    return row_digest([sql for (sql,) in rows])


def _statements(script: str) -> Iterator[str]:
    """Yield the statements of a script."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""

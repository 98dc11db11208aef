"""The tables of the file: creates them, and migrates them to the newest version."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from controlplane.store.sqlite.explain import refused

_APPLICATION_ID = 0x7475726E  # "turn", in the file's header


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Migrate the file to the newest schema, each step in a transaction. Errors: STORE_FOREIGN, STORE_NEWER."""
    (version,), (owner,) = (db.execute(f"PRAGMA {p}").fetchone() for p in ("user_version", "application_id"))
    steps = sorted((f for f in resources.files(f"{__package__}.migrations").iterdir() if f.name.endswith(".sql")), key=str)
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if owner != _APPLICATION_ID and (owner or version or tables):
        raise refused("STORE_FOREIGN", f"{path} is a database of another program: name another directory")
    if version > len(steps):
        raise refused(
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
    # Try a write, so that a read-only file fails now and not later.
    db.execute("BEGIN IMMEDIATE")
    db.execute(f"PRAGMA user_version = {len(steps)}")
    db.execute("ROLLBACK")


def _statements(script: str) -> Iterator[str]:
    """Yield the statements of a script."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""

"""Opens SQLite stores as the program does: with a key file in the directory, which is created if it is missing."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from controlplane.store import sqlite
from controlplane.store.key_file import key_source
from controlplane.store.sqlite import SqliteStore
from controlplane.store.sqlite.file import Connect

# The id of histories that `with_fixed_id` makes.
HISTORY = "0a1b2c3d"


def with_fixed_id(path: Path, **options: Any) -> sqlite3.Connection:
    """Connect like `sqlite3.connect`. A store that is created gets the history id `HISTORY`, so that its etags are known."""
    db: sqlite3.Connection = sqlite3.connect(path, **options)
    db.create_function("randomblob", 1, lambda size: bytes.fromhex(HISTORY))
    return db


def etag(revision: int | str) -> str:
    """Return the etag of a revision in the history `HISTORY`."""
    return f"{HISTORY}-{revision}"


async def open_store(directory: Path, connect: Connect = sqlite3.connect, key_file: Path | None = None) -> SqliteStore:
    """Open the store in a directory; `key_file` as in `key_source`."""
    return await sqlite.open_store(directory, key_source(directory, key_file), connect)

"""Opens SQLite stores as the program does: with a key file in the directory, which is created if it is missing."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from controlplane.store import sqlite
from controlplane.store.key_file import key_source
from controlplane.store.sqlite import SqliteStore
from controlplane.store.sqlite.file import Connect


async def open_store(directory: Path, connect: Connect = sqlite3.connect, key_file: Path | None = None) -> SqliteStore:
    """Open the store in a directory; `key_file` as in `key_source`."""
    return await sqlite.open_store(directory, key_source(directory, key_file), connect)

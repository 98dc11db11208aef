"""The store in one SQLite file: the default, for one control plane.

| module | job |
|---|---|
| `file` | the file: locked, opened, written in transactions. Everything in it blocks |
| `schema` | tables: made, and brought to the newest version |
| `history`, `records`, `leases` | the SQL of each part of the contract, and the part itself |
| `runner` | the one thread that the file's calls run on, one write at a time |
| `explain` | SQLite's errors as ours |
| `store` | opens it all |
"""

from __future__ import annotations

from controlplane.store.sqlite.file import DATABASE
from controlplane.store.sqlite.store import SqliteStore, open_store

__all__ = ["DATABASE", "SqliteStore", "open_store"]

"""The store in one SQLite file: the default, for one control plane.

| module | job |
|---|---|
| `earlier_use` | signs that a directory without a store had one |
| `file` | locks the file, opens it, and writes it in transactions; blocking |
| `schema` | creates the tables, and migrates them to the newest version |
| `integrity`, `digests` | check at the start that nothing in the file is damaged, and that no other program changed it |
| `sealed_keys` | private keys: sealed records outside the history, which can be purged or sealed anew |
| `marker` | the newest revision in a file of its own, to notice a database that was lost or exchanged |
| `backup` | backups, and stores that are restored from them |
| `history` | the SQL of the history; blocking |
| `records`, `leases` | the SQL of these parts of the contract, and the parts themselves |
| `runner` | the one thread that runs the blocking calls, one write at a time |
| `explain` | converts SQLite's errors to `Error` |
| `store` | opens the store, and implements the contract |
"""

from __future__ import annotations

from controlplane.store.sqlite.earlier_use import DATABASE
from controlplane.store.sqlite.store import SqliteStore, open_store

__all__ = ["DATABASE", "SqliteStore", "open_store"]

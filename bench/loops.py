"""The alternative to Turnout: a table with a version for each user, and a loop that updates all of them.

Each table is as fast as possible for its kind: users are integers, routes have only a version, and no proxy is notified.
"""

from __future__ import annotations

import gc
import sqlite3
from pathlib import Path

BATCH = 10_000  # users


class Route:
    """The route of one user."""

    __slots__ = ("version",)

    def __init__(self, version: str) -> None:
        self.version = version


class Memory:
    """A dict from user to route, rewritten one by one."""

    name = "loop, in memory"

    def __init__(self, users: int) -> None:
        # Otherwise the garbage collector would visit millions of live objects again and again.
        gc.disable()
        self.live = "blue"
        self.routes = {user: Route(self.live) for user in range(users)}
        gc.freeze()
        gc.enable()

    def switch(self, version: str) -> None:
        """Move every user."""
        for route in self.routes.values():
            route.version = version
        self.live = version

    def holds(self, version: str) -> bool:
        """Return True if every user is on this version."""
        return all(route.version == version for route in self.routes.values())


class Rebuilt:
    """A dict from user to version, replaced as a whole: the batch variant in memory."""

    name = "batches, in memory"

    def __init__(self, users: int) -> None:
        self.live = "blue"
        self.versions = dict.fromkeys(range(users), self.live)

    def switch(self, version: str) -> None:
        """Move every user."""
        self.versions = dict.fromkeys(self.versions, version)
        self.live = version

    def holds(self, version: str) -> bool:
        """Return True if every user is on this version."""
        return all(v == version for v in self.versions.values())


class Database:
    """A table in SQLite with a row for each user. Changes are durable when they return. All variants share the file."""

    def __init__(self, path: Path, users: int) -> None:
        self.users = users
        self.live = "blue"
        self.connection = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-1000000"):
            self.connection.execute(f"PRAGMA {pragma}")
        self.connection.execute("CREATE TABLE route (user INTEGER PRIMARY KEY, version TEXT NOT NULL)")
        with self.connection:
            self.connection.execute("BEGIN")
            self.connection.executemany("INSERT INTO route VALUES (?, 'blue')", ((user,) for user in range(users)))

    def holds(self, version: str) -> bool:
        """Return True if every user is on this version."""
        rows = self.connection.execute("SELECT version, count(*) FROM route GROUP BY version").fetchall()
        return rows == [(version, self.users)]

    def close(self) -> None:
        """Close the file."""
        self.connection.close()


class Rows:
    """One UPDATE for each user, with one commit at the end."""

    name = "loop, SQLite"

    def __init__(self, database: Database) -> None:
        self.database = database

    @property
    def live(self) -> str:
        """Return the version that every user has."""
        return self.database.live

    def switch(self, version: str) -> None:
        """Move every user."""
        self.update(version)
        self.database.live = version

    def update(self, version: str) -> None:
        """Run the statements."""
        execute = self.database.connection.execute
        execute("BEGIN")
        for user in range(self.database.users):
            execute("UPDATE route SET version = ? WHERE user = ?", (version, user))
        execute("COMMIT")

    def holds(self, version: str) -> bool:
        """Return True if every user is on this version."""
        return self.database.holds(version)


class Committed(Rows):
    """One UPDATE for each user, each with a commit, as in a loop that may be interrupted."""

    name = "loop, SQLite, commit each"

    def update(self, version: str) -> None:
        """Run the statements."""
        execute = self.database.connection.execute
        for user in range(self.database.users):
            execute("UPDATE route SET version = ? WHERE user = ?", (version, user))


class Batches(Rows):
    """One UPDATE for each 10,000 users, with one commit at the end."""

    name = "batches, SQLite"

    def update(self, version: str) -> None:
        """Run the statements."""
        execute = self.database.connection.execute
        execute("BEGIN")
        for first in range(0, self.database.users, BATCH):
            execute("UPDATE route SET version = ? WHERE user BETWEEN ? AND ?", (version, first, first + BATCH - 1))
        execute("COMMIT")

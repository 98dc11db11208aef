"""The starting point that Turnout is measured against: a version kept for each user, and a loop that updates them all.

Each table is as fast as its kind gets without changing what it does: users are integers, routes carry nothing but a
version, and nothing is sent to any proxy.
"""

from __future__ import annotations

import gc
import sqlite3
from pathlib import Path

BATCH = 10_000  # users


class Route:
    """Where one user's requests go."""

    __slots__ = ("version",)

    def __init__(self, version: str) -> None:
        self.version = version


class Memory:
    """A dict from user to route, rewritten one by one."""

    name = "loop, in memory"

    def __init__(self, users: int) -> None:
        # A collection would look at millions of objects that are all in use, time and again.
        gc.disable()
        self.live = "blue"
        self.routes = {user: Route(self.live) for user in range(users)}
        gc.freeze()
        gc.enable()

    def switch(self, version: str) -> None:
        """Moves every user."""
        for route in self.routes.values():
            route.version = version
        self.live = version

    def holds(self, version: str) -> bool:
        """Whether every user is there."""
        return all(route.version == version for route in self.routes.values())


class Rebuilt:
    """A dict from user to version, made anew in one go: the batch of this kind."""

    name = "batches, in memory"

    def __init__(self, users: int) -> None:
        self.live = "blue"
        self.versions = dict.fromkeys(range(users), self.live)

    def switch(self, version: str) -> None:
        """Moves every user."""
        self.versions = dict.fromkeys(self.versions, version)
        self.live = version

    def holds(self, version: str) -> bool:
        """Whether every user is there."""
        return all(v == version for v in self.versions.values())


class Database:
    """A table in SQLite, one row a user; its changes are durable when they return. One file, whatever way it is changed."""

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
        """Whether every user is there."""
        rows = self.connection.execute("SELECT version, count(*) FROM route GROUP BY version").fetchall()
        return rows == [(version, self.users)]

    def close(self) -> None:
        """Lets go of the file."""
        self.connection.close()


class Rows:
    """One UPDATE a user, committed once at the end."""

    name = "loop, SQLite"

    def __init__(self, database: Database) -> None:
        self.database = database

    @property
    def live(self) -> str:
        """The version that every user has."""
        return self.database.live

    def switch(self, version: str) -> None:
        """Moves every user."""
        self.update(version)
        self.database.live = version

    def update(self, version: str) -> None:
        """The statements."""
        execute = self.database.connection.execute
        execute("BEGIN")
        for user in range(self.database.users):
            execute("UPDATE route SET version = ? WHERE user = ?", (version, user))
        execute("COMMIT")

    def holds(self, version: str) -> bool:
        """Whether every user is there."""
        return self.database.holds(version)


class Committed(Rows):
    """One UPDATE a user, each committed: what a loop does that may be interrupted."""

    name = "loop, SQLite, commit each"

    def update(self, version: str) -> None:
        """The statements."""
        execute = self.database.connection.execute
        for user in range(self.database.users):
            execute("UPDATE route SET version = ? WHERE user = ?", (version, user))


class Batches(Rows):
    """One UPDATE for 10,000 users at a time, committed once at the end."""

    name = "batches, SQLite"

    def update(self, version: str) -> None:
        """The statements."""
        execute = self.database.connection.execute
        execute("BEGIN")
        for first in range(0, self.database.users, BATCH):
            execute("UPDATE route SET version = ? WHERE user BETWEEN ? AND ?", (version, first, first + BATCH - 1))
        execute("COMMIT")

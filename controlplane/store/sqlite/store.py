"""The SQLite store as the contract wants it.

SQLite's calls block, so they run on one thread of the store's own, one after the other. The head is kept in memory and moves
when, and only when, the file has moved: readers of `head` wait for no disk.
"""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from controlplane.aio.latest import Latest
from controlplane.domain.revision import Draft, Head, Revision
from controlplane.domain.state import Changes
from controlplane.errors import Code, Error, not_found
from controlplane.store.history import Remembered, conflict
from controlplane.store.lease import Fence
from controlplane.store.sealing import KeySource
from controlplane.store.sqlite.file import Connect, InDoubt, SqliteFile
from controlplane.store.sqlite.history import HistoryTables
from controlplane.store.sqlite.leases import SqliteLeases
from controlplane.store.sqlite.records import SqliteRecords
from controlplane.store.sqlite.runner import FileRunner


async def open_store(directory: Path, keys: KeySource, connect: Connect = sqlite3.connect) -> SqliteStore:
    """Open the store in `directory`, which is made where it is missing; `keys` are those that private keys are sealed with.

    Errors: those of `SqliteFile` and `HistoryTables`.
    """
    thread = ThreadPoolExecutor(1, "store")
    loop = asyncio.get_running_loop()
    try:
        file, tables, history_id, head = await loop.run_in_executor(thread, _open, directory, keys, connect)
    except BaseException:
        thread.shutdown(wait=False)
        raise
    return SqliteStore(FileRunner(file, thread), tables, history_id, head)


def _open(directory: Path, keys: KeySource, connect: Connect) -> tuple[SqliteFile, HistoryTables, str, Head]:
    file = SqliteFile(directory, connect)
    try:
        tables = HistoryTables(file, keys)
        return file, tables, tables.history_id(), tables.head(tables.newest())
    except BaseException:
        file.close()
        raise


class SqliteStore:
    """A `Store`. `open_store` makes one."""

    def __init__(self, runner: FileRunner, tables: HistoryTables, history_id: str, head: Head) -> None:
        self._runner = runner
        self._tables = tables
        self._head = Latest(head)
        self.history_id = history_id
        self.records = SqliteRecords(runner)
        self.leases = SqliteLeases(runner)
        runner.settled.append(self._reload)

    @property
    def head(self) -> Latest[Head]:
        return self._head

    async def commit(self, proposed: Head, changes: Changes, draft: Draft, *, fence: Fence | None = None) -> Head:
        return await self._runner.exclusively(lambda: self._commit(proposed, changes, draft, fence))

    async def remember(self, request_id: str, digest: str, revision: int, *, fence: Fence | None = None) -> None:
        await self._runner.write(lambda file: self._tables.remember(request_id, digest, revision, fence))

    async def recall(self, request_id: str) -> Remembered | None:
        return await self._runner.read(lambda file: self._tables.recall(request_id))

    async def at(self, number: int) -> Head:
        head = self._head.value
        if number == head.number:
            return head
        if number == 0:
            return Head()
        self._check(number)
        return await self._runner.read(lambda file: self._tables.head(number))

    async def revision(self, number: int) -> Revision:
        self._check(number)
        return (await self._runner.read(lambda file: self._tables.revisions(number + 1, 1, "")))[0]

    async def revisions(self, before: int, limit: int, object_name: str = "") -> list[Revision]:
        # A revision that is on the disk and not yet the head does not exist yet.
        before = min(before, self._head.value.number + 1)
        return await self._runner.read(lambda file: self._tables.revisions(before, limit, object_name))

    async def close(self) -> None:
        await self._runner.close()

    def _check(self, number: int) -> None:
        newest = self._head.value.number
        if not 1 <= number <= newest:
            raise not_found(f"revisions/{number}", f"the newest is revisions/{newest}" if newest else "there is none yet")

    async def _commit(self, proposed: Head, changes: Changes, draft: Draft, fence: Fence | None) -> Head:
        head = self._head.value
        if proposed.number != head.number + 1:
            raise conflict(proposed.number - 1, head.number)
        try:
            await self._runner.commit(lambda file: self._tables.append(head, proposed, changes, draft, fence))
        except InDoubt as doubt:
            await self._decide(doubt, proposed.number)
        self._head.set(proposed)
        return proposed

    async def _decide(self, doubt: InDoubt, number: int) -> None:
        """Return when the revision was made after all, and raise otherwise."""
        try:
            newest = await self._runner.settle(lambda file: self._tables.newest())
        except Error:
            if doubt.error.reason == "STORE_FULL":
                raise doubt.error from doubt  # the write itself was cut short, so it can't be whole
            raise Error(
                Code.UNAVAILABLE,
                "STORE_UNKNOWN_OUTCOME",
                f"{doubt.error.message}; whether revision {number} was made will be known when the disk answers again",
            ) from doubt
        if newest != number:
            raise doubt.error from doubt

    async def _reload(self) -> None:
        """Read the head again, if the file has moved without it."""
        newest = await self._runner.read(lambda file: self._tables.newest())
        if newest != self._head.value.number:
            self._head.set(await self._runner.read(lambda file: self._tables.head(newest)))

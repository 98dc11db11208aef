"""The SQLite store, as the contract requires.

SQLite's calls block, so they run one after the other on the store's own thread. The head is kept in memory, so that its
readers never wait for the disk. The head changes only after the file has changed.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from controlplane.aio.latest import Latest
from controlplane.domain.revision import Draft, Head, Revision
from controlplane.domain.state import Changes
from controlplane.errors import Code, Error, not_found
from controlplane.store.history import RememberedRequest, conflict
from controlplane.store.lease import Fence
from controlplane.store.sealing import KeySource
from controlplane.store.sqlite.file import Connect, InDoubt, SqliteFile
from controlplane.store.sqlite.history import HistoryTables
from controlplane.store.sqlite.leases import SqliteLeases
from controlplane.store.sqlite.records import SqliteRecords
from controlplane.store.sqlite.runner import FileRunner
from controlplane.store.sqlite.sealed_keys import SqliteWithdrawnKeys


async def open_store(
    directory: Path, key_source: KeySource, connect: Connect = sqlite3.connect, *, init: bool = False
) -> SqliteStore:
    """Open the store in `directory`, and check it. Create a new store where nothing says that there was one, or with `init`.

    `key_source` returns the sealing keys. Errors: those of `SqliteFile` and `HistoryTables`.
    """
    thread = ThreadPoolExecutor(1, "store")
    loop = asyncio.get_running_loop()
    try:
        file, tables, head = await loop.run_in_executor(thread, _open, directory, key_source, connect, init)
    except BaseException:
        thread.shutdown(wait=False)
        raise
    return SqliteStore(FileRunner(file, thread), tables, head, created=file.created)


def _open(directory: Path, key_source: KeySource, connect: Connect, init: bool) -> tuple[SqliteFile, HistoryTables, Head]:
    file = SqliteFile(directory, connect, init=init)
    try:
        tables = HistoryTables(file, key_source)
        return file, tables, tables.head(tables.newest())
    except BaseException:
        file.close()
        raise


class SqliteStore:
    """A `Store` in a SQLite file. `open_store` creates it."""

    def __init__(self, runner: FileRunner, tables: HistoryTables, head: Head, *, created: bool) -> None:
        self._runner = runner
        self._tables = tables
        self._head = Latest(head)
        self.history_id = head.history
        # True if the store was created when it was opened now.
        self.created = created
        self.records = SqliteRecords(runner)
        self.leases = SqliteLeases(runner)
        self.withdrawn_keys = SqliteWithdrawnKeys(runner, tables.sealed_keys)
        # What was done with the private keys and MACs when the store was opened.
        self.upkeep = tables.sealed_keys.upkeep
        runner.on_settled.append(self._reload)

    @property
    def head(self) -> Latest[Head]:
        return self._head

    async def commit(
        self,
        proposed: Head,
        changes: Changes,
        draft: Draft,
        *,
        fence: Fence | None = None,
        on_commit: Callable[[], None] | None = None,
    ) -> Head:
        return await self._runner.exclusively(lambda: self._commit(proposed, changes, draft, fence, on_commit))

    async def remember(self, request_id: str, digest: str, revision: int, *, fence: Fence | None = None) -> None:
        await self._runner.write(lambda file: self._tables.remember(request_id, digest, revision, fence))

    async def recall(self, request_id: str) -> RememberedRequest | None:
        return await self._runner.read(lambda file: self._tables.recall(request_id))

    async def at(self, number: int) -> Head:
        head = self._head.value
        if number == head.number:
            return head
        if number == 0:
            return Head(history=self.history_id)
        self._check_number(number)
        return await self._runner.read(lambda file: self._tables.head(number))

    async def revision(self, number: int) -> Revision:
        self._check_number(number)
        return (await self._runner.read(lambda file: self._tables.revisions(number + 1, 1, "")))[0]

    async def revisions(self, before: int, limit: int, object_name: str = "") -> list[Revision]:
        # A revision that is on the disk and is not the head yet must not be visible.
        before = min(before, self._head.value.number + 1)
        return await self._runner.read(lambda file: self._tables.revisions(before, limit, object_name))

    async def close(self) -> None:
        await self._runner.close()

    def _check_number(self, number: int) -> None:
        newest = self._head.value.number
        if not 1 <= number <= newest:
            raise not_found(
                f"revisions/{number}", f"the newest is revisions/{newest}" if newest else "there is no revision yet"
            )

    async def _commit(
        self, proposed: Head, changes: Changes, draft: Draft, fence: Fence | None, on_commit: Callable[[], None] | None
    ) -> Head:
        head = self._head.value
        if proposed.number != head.number + 1:
            raise conflict(proposed.number - 1, head.number)
        try:
            await self._runner.commit(lambda file: self._append(head, proposed, changes, draft, fence))
        except InDoubt as doubt:
            await self._check_committed(doubt, proposed.number)
        if on_commit is not None:
            on_commit()
        self._head.set(proposed)
        return proposed

    def _append(self, before: Head, proposed: Head, changes: Changes, draft: Draft, fence: Fence | None) -> None:
        self._tables.append(before, proposed, changes, draft, fence)
        self._tables.mark(proposed.number)

    async def _check_committed(self, doubt: InDoubt, number: int) -> None:
        """Return if the revision was committed in spite of the error. Otherwise raise an error."""
        try:
            newest = await self._runner.settle(lambda file: self._tables.newest())
        except Error:
            if doubt.error.reason == "STORE_FULL":
                raise doubt.error from doubt  # the disk was full before the write was complete, so it was not committed
            raise Error(
                Code.UNAVAILABLE,
                "STORE_UNKNOWN_OUTCOME",
                f"{doubt.error.message}; revision {number} may be committed or not: when the disk works again, repeat the "
                "call with its request id, or look at the newest revision",
            ) from doubt
        if newest != number:
            raise doubt.error from doubt

    async def _reload(self) -> None:
        """Read the head again, if the file has a newer revision."""
        newest = await self._runner.read(lambda file: self._tables.newest())
        if newest != self._head.value.number:
            self._head.set(await self._runner.read(lambda file: self._tables.head(newest)))

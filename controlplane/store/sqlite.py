"""The store in one SQLite file: the default, for one control plane.

SQLite's calls block, so they are made on one thread of the store's own, one after the other. The head is kept in memory and
moves when, and only when, the file has: readers of `head` wait for no disk.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from controlplane.aio.latest import Latest
from controlplane.domain.revision import Draft, Head, Revision
from controlplane.domain.state import Changes
from controlplane.errors import Code, Error, not_found
from controlplane.store import Remembered, conflict
from controlplane.store.sqlite_file import Connect, InDoubt, SqliteFile

T = TypeVar("T")


async def open_store(directory: Path, connect: Connect = sqlite3.connect, key_file: Path | None = None) -> SqliteStore:
    """Opens the store in `directory`, which is made where it is missing; `key_file` as for `SqliteFile`. Errors: its."""
    thread = ThreadPoolExecutor(1, "store")
    loop = asyncio.get_running_loop()
    try:
        file, head = await loop.run_in_executor(thread, _open, directory, connect, key_file)
    except BaseException:
        thread.shutdown(wait=False)
        raise
    return SqliteStore(file, head, thread)


def _open(directory: Path, connect: Connect, key_file: Path | None) -> tuple[SqliteFile, Head]:
    file = SqliteFile(directory, connect, key_file)
    try:
        return file, file.head(file.newest())
    except BaseException:
        file.close()
        raise


class SqliteStore:
    """A `Store`. `open_store` makes one."""

    def __init__(self, file: SqliteFile, head: Head, thread: ThreadPoolExecutor) -> None:
        self._file = file
        self._head = Latest(head)
        self._thread = thread
        # Held from the look at the head to its move.
        self._writing = asyncio.Lock()
        # True after a COMMIT failed, until it is known what became of it; nothing is written meanwhile.
        self._in_doubt = False
        self._writes: set[asyncio.Task[Any]] = set()

    @property
    def head(self) -> Latest[Head]:
        return self._head

    async def commit(self, base: int, changes: Changes, draft: Draft) -> Head:
        return await self._to_its_end(self._commit(base, changes, draft))

    async def remember(self, request_id: str, digest: str, revision: int) -> None:
        await self._to_its_end(self._remember(request_id, digest, revision))

    async def recall(self, request_id: str) -> Remembered | None:
        return await self._run(lambda: self._file.recall(request_id))

    async def at(self, number: int) -> Head:
        head = self._head.value
        if number == head.number:
            return head
        if number == 0:
            return Head()
        self._check(number)
        return await self._run(lambda: self._file.head(number))

    async def revision(self, number: int) -> Revision:
        self._check(number)
        return (await self._run(lambda: self._file.revisions(number + 1, 1, "")))[0]

    async def revisions(self, before: int, limit: int, object_name: str = "") -> list[Revision]:
        # What is on the disk and not yet in the head is not there yet.
        before = min(before, self._head.value.number + 1)
        return await self._run(lambda: self._file.revisions(before, limit, object_name))

    async def close(self) -> None:
        """Waits for a write under way, then lets go."""
        async with self._writing:
            await self._run(self._file.close)
        self._thread.shutdown(wait=False)

    def _check(self, number: int) -> None:
        newest = self._head.value.number
        if not 1 <= number <= newest:
            raise not_found(f"revisions/{number}", f"the newest is revisions/{newest}" if newest else "there is none yet")

    async def _commit(self, base: int, changes: Changes, draft: Draft) -> Head:
        async with self._writing:
            await self._settled()
            head = self._head.value
            if base != head.number:
                raise conflict(base, head.number)
            try:
                new = await self._run(lambda: self._append(head, changes, draft))
            except InDoubt as doubt:
                self._in_doubt = True
                await self._decide(doubt, head.number + 1)
                new = head.after(changes, draft)
            self._head.set(new)
            return new

    def _append(self, head: Head, changes: Changes, draft: Draft) -> Head:
        """Writes a change, and returns the head after it."""
        new = head.after(changes, draft)
        rows: list[tuple[str, str | None, float]] = []
        for name, obj in changes.objects.items():
            since = new.meta.get(name) or head.meta.get(name)
            rows.append(
                (name, self._file.encode(obj) if obj is not None else None, since.create_time if since else draft.time)
            )
        self._file.append(new.number, draft, rows)
        return new

    async def _remember(self, request_id: str, digest: str, revision: int) -> None:
        async with self._writing:
            await self._settled()
            try:
                await self._run(lambda: self._file.remember(request_id, digest, revision))
            except InDoubt as doubt:
                self._in_doubt = True
                raise doubt.error from doubt

    async def _decide(self, doubt: InDoubt, number: int) -> None:
        """Returns when the revision is there after all, and raises otherwise."""
        try:
            newest = await self._run(self._file.settle)
        except Error:
            if doubt.error.reason == "STORE_FULL":
                raise doubt.error from doubt  # the write itself was cut short: it can't be whole
            raise Error(
                Code.UNAVAILABLE,
                "STORE_UNKNOWN_OUTCOME",
                f"{doubt.error.message}; whether revision {number} was made will be known when the disk answers again",
            ) from doubt
        self._in_doubt = False
        if newest != number:
            raise doubt.error from doubt

    async def _settled(self) -> None:
        """Finds out what became of a failed COMMIT, before anything else is written."""
        if self._in_doubt:
            newest = await self._run(self._file.settle)
            if newest != self._head.value.number:
                self._head.set(await self._run(lambda: self._file.head(newest)))
            self._in_doubt = False

    async def _to_its_end(self, write: Coroutine[Any, Any, T]) -> T:
        """A write goes on when its caller is cancelled: the file must not move without the head."""
        task = asyncio.create_task(write)
        self._writes.add(task)
        task.add_done_callback(self._written)
        return await asyncio.shield(task)

    def _written(self, task: asyncio.Task[Any]) -> None:
        self._writes.discard(task)
        if not task.cancelled():
            task.exception()  # seen, even where the caller is gone

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

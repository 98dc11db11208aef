"""The one thread that the file's calls run on: reads in order, and one write at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from controlplane.store.sqlite.file import InDoubt, SqliteFile

T = TypeVar("T")


class FileRunner:
    """Runs calls of a file on its thread, for the event loop.

    After an `InDoubt` nothing is written until the outcome is known: the next write finds out first.
    """

    def __init__(self, file: SqliteFile, thread: ThreadPoolExecutor) -> None:
        self._file = file
        self._thread = thread
        # Held from a write's check of the present state to the publication of its result.
        self._writing = asyncio.Lock()
        self._in_doubt = False
        self._writes: set[asyncio.Task[Any]] = set()
        # Called once the outcome of a write in doubt is known, before anything else is written.
        self.settled: list[Callable[[], Awaitable[None]]] = []

    async def read(self, call: Callable[[SqliteFile], T]) -> T:
        """Return the result of a call."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, self._file)

    async def write(self, call: Callable[[SqliteFile], T]) -> T:
        """Return the result of a call that writes. An outcome that nobody knows is raised as the error of the COMMIT."""

        async def step() -> T:
            try:
                return await self.commit(call)
            except InDoubt as doubt:
                raise doubt.error from doubt

        return await self.exclusively(step)

    async def exclusively(self, step: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a step that writes, alone. It goes on when its caller is cancelled: the file must not move without the head."""
        task = asyncio.create_task(self._alone(step))
        self._writes.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def commit(self, call: Callable[[SqliteFile], T]) -> T:
        """Return the result of a call that writes, inside `exclusively`. Errors: InDoubt."""
        try:
            return await self.read(call)
        except InDoubt:
            self._in_doubt = True
            raise

    async def settle(self, read: Callable[[SqliteFile], T]) -> T:
        """Find out the outcome of a write in doubt, inside `exclusively`. Return what `read` reads then."""

        def call(file: SqliteFile) -> T:
            file.settle()
            return read(file)

        result = await self.read(call)
        self._in_doubt = False
        return result

    async def close(self) -> None:
        """Wait for a write under way, and close the file."""
        async with self._writing:
            await self.read(SqliteFile.close)
        self._thread.shutdown(wait=False)

    async def _alone(self, step: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async with self._writing:
            if self._in_doubt:
                await self.read(SqliteFile.settle)
                for callback in self.settled:
                    await callback()
                self._in_doubt = False
            return await step()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._writes.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, also where the caller was cancelled

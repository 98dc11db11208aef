"""The one thread that runs the blocking calls of a file, in order, and one write at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from controlplane.store.sqlite.file import InDoubt, SqliteFile

T = TypeVar("T")


class FileRunner:
    """Runs blocking calls on the thread of a file, for the event loop.

    After an `InDoubt` nothing is written until the outcome is known. The next write finds out the outcome first.
    """

    def __init__(self, file: SqliteFile, thread: ThreadPoolExecutor) -> None:
        self._file = file
        self._thread = thread
        # Held by a write from its first check of the state until its result is published.
        self._writing = asyncio.Lock()
        self._in_doubt = False
        self._writes: set[asyncio.Task[Any]] = set()
        # Called when a write finds out the outcome of an earlier write in doubt, before it writes.
        self.on_settled: list[Callable[[], Awaitable[None]]] = []

    async def read(self, call: Callable[[SqliteFile], T]) -> T:
        """Return the result of a call that writes nothing."""
        return await self._run(call)

    async def write(self, call: Callable[[SqliteFile], T]) -> T:
        """Return the result of a call that writes. After an `InDoubt`, raise the error of the COMMIT."""

        async def step() -> T:
            try:
                return await self.commit(call)
            except InDoubt as doubt:
                raise doubt.error from doubt

        return await self.exclusively(step)

    async def exclusively(self, step: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a step that writes, while no other step runs.

        If the caller is cancelled, the step is still completed. Otherwise the file could change without the head.
        """
        task = asyncio.create_task(self._run_exclusively(step))
        self._writes.add(task)
        task.add_done_callback(self._discard_write)
        return await asyncio.shield(task)

    async def commit(self, call: Callable[[SqliteFile], T]) -> T:
        """Return the result of a call that writes. Call it in a step of `exclusively`. Errors: InDoubt."""
        try:
            return await self._run(call)
        except InDoubt:
            self._in_doubt = True
            raise

    async def settle(self, read: Callable[[SqliteFile], T]) -> T:
        """Find out the outcome of a write in doubt, then return the result of `read`. Call it in a step of `exclusively`."""

        def call(file: SqliteFile) -> T:
            file.settle()
            return read(file)

        result = await self._run(call)
        self._in_doubt = False
        return result

    async def close(self) -> None:
        """Wait for the write in progress, and close the file."""
        async with self._writing:
            await self._run(SqliteFile.close)
        self._thread.shutdown(wait=False)

    async def _run(self, call: Callable[[SqliteFile], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, self._file)

    async def _run_exclusively(self, step: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async with self._writing:
            if self._in_doubt:
                await self._run(SqliteFile.settle)
                for callback in self.on_settled:
                    await callback()
                self._in_doubt = False
            return await step()

    def _discard_write(self, task: asyncio.Task[Any]) -> None:
        self._writes.discard(task)
        if not task.cancelled():
            task.exception()  # asyncio would report an error that nobody has retrieved, because the caller was cancelled

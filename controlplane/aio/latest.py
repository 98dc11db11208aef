"""Newest value wins: no queue, a slow reader skips and never blocks the writer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Newest(Protocol[T_co]):
    """A `Latest` for those who read it."""

    @property
    def value(self) -> T_co: ...
    async def newer(self, seen: int) -> int: ...


class Latest(Generic[T]):
    """A value that changes. Readers see the newest; what came in between while they were busy, they never see."""

    def __init__(self, value: T) -> None:
        self.value = value
        # Grows by one at each set; a reader that remembers it knows whether it has seen the newest.
        self.serial = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def set(self, value: T) -> None:
        """Replaces the value and wakes the readers. Call it on the event loop's thread."""
        self.value = value
        self.serial += 1
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def newer(self, seen: int) -> int:
        """Waits until `serial` is past `seen`, and returns it."""
        while self.serial <= seen:
            # Each its own, so that it is woken in the next turn of the loop.
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.add(waiting)
            try:
                await waiting
            finally:
                self._waiting.discard(waiting)
        return self.serial

    async def watch(self) -> AsyncIterator[T]:
        """Yields the value there is, and then each newest one."""
        seen = self.serial
        yield self.value
        while True:
            seen = await self.newer(seen)
            yield self.value

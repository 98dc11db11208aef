"""A value that one writer sets and many readers follow. There is no queue: a slow reader skips values."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Newest(Protocol[T_co]):
    """The part of a `Latest` that readers need."""

    @property
    def value(self) -> T_co: ...
    async def newer(self, seen: int) -> int: ...


class Latest(Generic[T]):
    """A value that changes. A reader always gets the newest value. It misses values that were replaced while it was busy."""

    def __init__(self, value: T) -> None:
        self.value = value
        # Grows by one with each `set`. A reader remembers it, to know if it has seen the newest value.
        self.serial = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def set(self, value: T) -> None:
        """Replace the value and wake the readers. Call it on the event loop's thread."""
        self.value = value
        self.serial += 1
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def newer(self, seen: int) -> int:
        """Wait until `serial` is greater than `seen`, and return it."""
        while self.serial <= seen:
            # A future for each reader. A shared event would wake readers one loop turn later.
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.add(waiting)
            try:
                await waiting
            finally:
                self._waiting.discard(waiting)
        return self.serial

    async def watch(self) -> AsyncIterator[T]:
        """Yield the current value, and then the newest one after each change."""
        seen = self.serial
        yield self.value
        while True:
            seen = await self.newer(seen)
            yield self.value

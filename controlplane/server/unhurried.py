"""Work in slices: what takes long for a person who asks must not keep Envoys waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")

# Whoever uses the parts may have waited for something else meanwhile. Seconds.
_LONGEST = 0.05


async def unhurried(parts: Iterable[T]) -> AsyncIterator[T]:
    """Yields what `parts` does. What it takes to make a part is rested after it: at most half of the process is used."""
    clock = asyncio.get_running_loop().time
    began = clock()
    for part in parts:
        yield part
        await asyncio.sleep(min(clock() - began, _LONGEST))
        began = clock()

"""Work in slices: what takes long for a person who asks must not keep Envoys waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")

# Work that may be done in one go; and the longest rest, since whoever uses a part may have waited for something else
# meanwhile. Seconds.
_SPELL = 0.005
_LONGEST = 0.05


async def time_sliced(parts: Iterable[T]) -> AsyncIterator[T]:
    """Yields what `parts` does. What it takes to make and use them is rested, too: at most half of the process is used."""
    worked, began = 0.0, time.perf_counter()
    for part in parts:
        yield part
        worked += time.perf_counter() - began
        if worked > _SPELL:
            await asyncio.sleep(min(worked, _LONGEST))
            worked = 0.0
        began = time.perf_counter()

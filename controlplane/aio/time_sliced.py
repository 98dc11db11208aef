"""Work in time slices: a long answer to an operator must not keep Envoys waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")

# Time to work before a pause, in seconds.
_SLICE = 0.005

# Longest pause, in seconds. The measured work can include time in which the caller waited for something else.
_MAX_PAUSE = 0.05


async def time_sliced(parts: Iterable[T]) -> AsyncIterator[T]:
    """Yield each of `parts`, with pauses as long as the work of making and using them: at most half of the CPU is used."""
    worked, began = 0.0, time.perf_counter()
    for part in parts:
        yield part
        worked += time.perf_counter() - began
        if worked > _SLICE:
            await asyncio.sleep(min(worked, _MAX_PAUSE))
            worked = 0.0
        began = time.perf_counter()

"""Work in time slices, so that Envoys don't wait while a long answer for an operator is computed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")

# Seconds of work before a pause.
_SLICE = 0.005

# Seconds of the longest pause. The measured work can include time in which the caller waited for something else.
_MAX_PAUSE = 0.05


async def time_sliced(parts: Iterable[T]) -> AsyncIterator[T]:
    """Yield each of `parts`. After some work, pause for as long as the work took, so that it uses at most half of the CPU."""
    worked, began = 0.0, time.perf_counter()
    for part in parts:
        yield part
        worked += time.perf_counter() - began
        if worked > _SLICE:
            await asyncio.sleep(min(worked, _MAX_PAUSE))
            worked = 0.0
        began = time.perf_counter()

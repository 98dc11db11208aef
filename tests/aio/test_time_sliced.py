"""Work in slices: other tasks run in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from controlplane.aio.time_sliced import time_sliced


def busy(parts: int, seconds: float) -> Iterator[int]:
    for i in range(parts):
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pass
        yield i


async def count_turns(parts: int, seconds: float) -> int:
    """Return how often another task ran while the parts were computed."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(others())
    assert [part async for part in time_sliced(busy(parts, seconds))] == list(range(parts))
    task.cancel()
    return turns


async def test_other_tasks_run_after_each_slice() -> None:
    assert await count_turns(10, 0.006) >= 10

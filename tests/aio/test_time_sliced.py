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


async def turns_of_others(parts: int, seconds: float) -> int:
    """How often something else came to its turn while the parts were made."""
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


async def test_others_come_to_their_turn_after_each_spell() -> None:
    assert await turns_of_others(10, 0.006) >= 10

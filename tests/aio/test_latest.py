"""The newest value: slow readers skip values, and each change wakes all readers."""

from __future__ import annotations

import asyncio

from controlplane.aio.latest import Latest


async def test_a_slow_reader_skips_to_the_newest() -> None:
    latest = Latest(0)
    seen: list[int] = []
    reads = asyncio.Semaphore(0)

    async def read() -> None:
        async for value in latest.watch():
            seen.append(value)
            if value == 1_000:
                return
            await reads.acquire()

    reader = asyncio.create_task(read())
    await asyncio.sleep(0)
    for value in range(1, 1_001):
        latest.set(value)
    reads.release()
    await asyncio.wait_for(reader, 5)
    assert seen == [0, 1_000]


async def test_every_reader_wakes_and_a_cancelled_one_does_not_affect_the_others() -> None:
    latest = Latest("a")
    readers = [asyncio.create_task(latest.newer(0)) for _ in range(3)]
    await asyncio.sleep(0)
    readers[0].cancel()
    await asyncio.sleep(0)
    latest.set("b")
    assert await asyncio.wait_for(asyncio.gather(*readers[1:]), 5) == [1, 1]


async def test_a_reader_does_not_wait_for_a_value_that_was_set_before() -> None:
    latest = Latest("a")
    latest.set("b")
    assert await asyncio.wait_for(latest.newer(0), 5) == 1


async def test_readers_wake_in_the_next_turn_of_the_loop() -> None:
    latest = Latest("a")
    readers = [asyncio.create_task(latest.newer(0)) for _ in range(3)]
    await asyncio.sleep(0)
    latest.set("b")
    await asyncio.sleep(0)
    assert [reader.done() for reader in readers] == [True] * 3
    assert not latest._waiting

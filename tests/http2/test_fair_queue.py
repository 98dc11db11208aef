"""Turns for connections that have used their share."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.http2 import fair_queue
from controlplane.http2.accounts import Account, ClientLimits
from controlplane.http2.fair_queue import FairQueue

ALICE, BOB = (Account(name, ClientLimits()) for name in ("alice", "bob"))


async def until_done(turns: list[str], count: int) -> None:
    async with asyncio.timeout(10):
        while len(turns) < count:  # noqa: ASYNC110  there is no event for it
            await asyncio.sleep(0.001)


async def test_addresses_take_turns() -> None:
    turns: list[str] = []
    queue: FairQueue[str] = FairQueue(lambda name, _: turns.append(name), lambda: False)
    for name in ("a1", "a2", "a3"):
        queue.add(name, ALICE, heavy=True)
    queue.add("b1", BOB, heavy=True)
    await until_done(turns, 4)
    assert turns == ["a1", "b1", "a2", "a3"]


async def test_connections_that_have_used_little_come_first_but_not_always() -> None:
    turns: list[str] = []
    queue: FairQueue[str] = FairQueue(lambda name, _: turns.append(name), lambda: False)
    queue.add("heavy", ALICE, heavy=True)
    for name in ("l1", "l2", "l3", "l4"):
        queue.add(name, ALICE, heavy=False)
    await until_done(turns, 5)
    assert turns == ["l1", "l2", "l3", "heavy", "l4"]


async def test_the_event_loop_runs_between_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_queue, "SLICE", 1e-9)
    turns: list[str] = []
    queue: FairQueue[str] = FairQueue(lambda name, _: turns.append(name), lambda: False)
    for n in range(3):
        queue.add(f"{n}", ALICE, heavy=True)
    loop = asyncio.get_running_loop()
    seen: list[int] = []
    for n in range(40):
        loop.call_later(n / 2_000, lambda: seen.append(len(turns)))
    await until_done(turns, 3)
    assert {1, 2} <= set(seen)


async def test_during_a_push_connections_wait_but_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_queue, "_MAX_DELAY", 0.03)
    turns: list[str] = []
    queue: FairQueue[str] = FairQueue(lambda name, _: turns.append(name), lambda: True)
    queue.add("a", ALICE, heavy=False)
    await asyncio.sleep(0.01)
    assert turns == []
    await until_done(turns, 1)

"""Deferred reading while the server is busy."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.http2 import deferred
from controlplane.http2.deferred import DeferredReads


async def test_connections_catch_up_in_their_order_when_the_server_is_no_longer_busy() -> None:
    busy, caught_up = True, list[str]()
    reads: DeferredReads[str] = DeferredReads(lambda: busy, caught_up.append)
    for name in ("a", "b", "a"):
        assert reads.add(name)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not caught_up
    busy = False
    for _ in range(2):
        await asyncio.sleep(0)
    assert caught_up == ["a", "b"]


async def test_the_delay_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred, "_MAX_DELAY", 0.01)
    caught_up: list[str] = []
    reads: DeferredReads[str] = DeferredReads(lambda: True, caught_up.append)
    assert reads.add("a")
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(lambda: None)
    async with asyncio.timeout(10):
        while not caught_up:  # noqa: ASYNC110  there is no event for it
            await asyncio.sleep(0)
    assert caught_up == ["a"]


async def test_a_connection_is_not_deferred_behind_one_that_waited_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred, "_MAX_DELAY", -1.0)
    reads: DeferredReads[str] = DeferredReads(lambda: True, lambda name: None)
    assert reads.add("a")
    assert not reads.add("b")


async def test_a_long_queue_is_caught_up_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred, "_SLICE", -1.0)
    caught_up: list[str] = []
    reads: DeferredReads[str] = DeferredReads(lambda: False, caught_up.append)
    reads.add("a")
    await asyncio.sleep(0)
    monkeypatch.setattr(deferred, "_SLICE", 1.0)
    assert not caught_up
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert caught_up == ["a"]

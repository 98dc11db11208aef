"""DNS lookups that can be cancelled."""

from __future__ import annotations

import asyncio
import threading

import pytest

from controlplane.probe import resolve
from controlplane.probe.resolve import Resolver


async def test_addresses_of_a_name() -> None:
    assert (await Resolver().resolve("localhost"))[0] == "127.0.0.1"
    with pytest.raises(LookupError):
        await Resolver().resolve("green.invalid")


async def test_lookups_that_hang_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    monkeypatch.setattr(resolve, "_addresses", lambda name: ["10.0.0.1"] if answer.wait(20) else None)
    resolver = Resolver()
    for _ in range(Resolver._BOUND):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await resolver.resolve("green.test")
    with pytest.raises(OSError, match="too many names"):
        await resolver.resolve("green.test")
    # A lookup that nobody waits for any more ends, and makes room for another.
    answer.set()
    async with asyncio.timeout(20):
        while True:
            try:
                assert await resolver.resolve("green.test") == ["10.0.0.1"]
                break
            except OSError:
                await asyncio.sleep(0.01)

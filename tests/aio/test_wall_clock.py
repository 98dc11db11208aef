"""The difference between the wall clock and the event loop's clock: stable, and corrected when the clock is set."""

from __future__ import annotations

import asyncio
import time

import pytest

from controlplane.aio.wall_clock import WallClock


async def test_the_difference_of_the_clocks_is_stable_until_the_wall_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, wall = asyncio.get_running_loop(), WallClock()
    assert wall.ahead() + loop.time() == pytest.approx(time.time(), abs=1)
    first = wall.ahead()
    now = time.time()
    for offset, same in ((0.01, True), (3_600.0, False)):
        with monkeypatch.context() as patched:
            patched.setattr("controlplane.aio.wall_clock.time.time", lambda offset=offset: now + offset)
            patched.setattr(loop, "time", lambda: now - first)
            assert (wall.ahead() == first) is same

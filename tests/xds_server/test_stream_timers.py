"""The timers of one stream."""

from __future__ import annotations

import asyncio

from controlplane.xds_server.stream_timers import StreamTimers


async def test_each_timer_calls_once_with_its_arguments() -> None:
    timers, calls = StreamTimers(asyncio.get_running_loop()), list[object]()
    timers.after(0.01, calls.append, "second")
    timers.after(0.0, calls.append, "first")
    await asyncio.sleep(0.05)
    assert calls == ["first", "second"]


async def test_cancelled_timers_do_not_call() -> None:
    timers, calls = StreamTimers(asyncio.get_running_loop()), list[object]()
    timers.after(0.0, calls.append, 1)
    timers.after(0.01, calls.append, 2)
    timers.cancel()
    timers.cancel()
    await asyncio.sleep(0.05)  # nothing should happen, so there is no condition to wait for
    assert calls == []

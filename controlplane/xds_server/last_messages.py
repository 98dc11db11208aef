"""Reports every few seconds when the last message of each stream came.

A message sets one attribute of its pump, and causes no event by itself. A stream without a new message causes no event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from controlplane.aio.time_sliced import time_sliced
from controlplane.xds.events import LastMessage, StreamId
from controlplane.xds_server.pump import Pump

# Seconds between two reports.
INTERVAL = 5.0


async def report_last_messages(pumps: Mapping[StreamId, Pump], report: Callable[[StreamId, LastMessage], None]) -> None:
    """Report the last messages of all streams every INTERVAL seconds, until cancelled."""
    clock = asyncio.get_running_loop().time
    while True:
        await asyncio.sleep(INTERVAL)
        async for stream, pump in time_sliced(list(pumps.items())):
            if pump.last_message_time and not pump.ended:
                report(stream, LastMessage(clock() - pump.last_message_time))
                pump.last_message_time = 0.0

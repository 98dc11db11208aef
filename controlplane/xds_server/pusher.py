"""Push each newest revision to every stream, and send heartbeats. `push_schedule.py` decides order and pace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from controlplane.aio.latest import Newest
from controlplane.published import PublishedRevision
from controlplane.xds.events import StreamId
from controlplane.xds_server.pump import Pump
from controlplane.xds_server.push_schedule import (
    FLUSH_SIZE,
    IDLE_STEP,
    PUSH_TIME_SLICE,
    PUSH_TIME_SLICE_WITH_FLUSH,
    TURNS_BETWEEN_SLICES,
    IdleTime,
    push_order,
)

# Heartbeats in the lifetime of a resource with a TTL.
_HEARTBEATS_PER_TTL = 3


class Pusher:
    """The loops that send without a request of a client. `pumps` are the open streams."""

    def __init__(
        self, published: Newest[PublishedRevision | None], pumps: Mapping[StreamId, Pump], resource_ttl: float
    ) -> None:
        self._published = published
        self._pumps = pumps
        # Seconds; 0: resources have no TTL, and there are no heartbeats.
        self._resource_ttl = resource_ttl
        # True while a revision is being pushed.
        self.pushing = False
        # Write all output to the sockets. The transport `http2` sets it; None when the transport writes by itself.
        self.flush: Callable[[], None] | None = None

    async def run(self) -> None:
        """Push each newest revision to the streams that do not have it, and send heartbeats, until cancelled."""
        heartbeats = asyncio.create_task(self._send_heartbeats()) if self._resource_ttl else None
        try:
            await self._push_revisions()
        finally:
            if heartbeats is not None:
                heartbeats.cancel()

    async def _push_revisions(self) -> None:
        clock, seen = asyncio.get_running_loop().time, 0
        while True:
            # A newer revision was published, or more snapshots of the same one have arrived in this process. A stream that
            # opened meanwhile may have the revision already.
            seen = await self._published.newer(seen)
            pumps = push_order(p for p in self._pumps.values() if p.offered is not self._published.value)
            self.pushing, started = True, clock()
            try:
                await self._for_each(pumps, Pump.push)
                # ACKs were read meanwhile. They are served in short slices, since thousands at once would delay other work.
                await _let_others_run()
            finally:
                self.pushing = False
            await self._idle(clock() - started)

    async def _send_heartbeats(self) -> None:
        while True:
            await asyncio.sleep(self._resource_ttl / _HEARTBEATS_PER_TTL)
            await self._for_each(list(self._pumps.values()), Pump.heartbeat)

    async def _for_each(self, pumps: Sequence[Pump], work: Callable[[Pump, float], float]) -> None:
        """Call `work(pump, now)` for each pump, which returns the time after it."""
        clock, flush = asyncio.get_running_loop().time, self.flush
        time_slice = PUSH_TIME_SLICE if flush is None else PUSH_TIME_SLICE_WITH_FLUSH
        now = clock()
        slice_end = now + time_slice
        for start in range(0, len(pumps), FLUSH_SIZE):
            for pump in pumps[start : start + FLUSH_SIZE]:
                # A pump that has ended meanwhile does nothing. The time slice may be over after each pump, and the output is
                # flushed after the last one of a batch.
                now = work(pump, now)
                if now > slice_end:
                    if flush is not None:
                        flush()
                    await _let_others_run()
                    now = clock()
                    slice_end = now + time_slice
            if flush is not None:
                flush()
                now = clock()

    async def _idle(self, push_seconds: float) -> None:
        clock = asyncio.get_running_loop().time
        idle = IdleTime(push_seconds, clock())
        while not idle.is_over(started := clock()):
            await asyncio.sleep(IDLE_STEP)
            idle.record_nap(clock() - started)


async def _let_others_run() -> None:
    for _ in range(TURNS_BETWEEN_SLICES):
        await asyncio.sleep(0)

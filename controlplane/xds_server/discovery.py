"""The xDS services, and every stream of theirs that is open, whatever carries it (`grpc_transport.py`, `http2/transport.py`).

Each service is there in both variants over one and the same pump (`pump.py`): ADS, where a stream speaks of any type, and the
services of a single type (`envoy_types.py`). Of types that the compiler does not make
(extension configurations, virtual hosts, runtime layers) a client gets what the protocol says of names that don't exist.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections import Counter
from collections.abc import Callable

from controlplane.aio.latest import Newest
from controlplane.aio.time_sliced import time_sliced
from controlplane.aio.wall_clock import WallClock
from controlplane.envoy_types import TABLE
from controlplane.errors import Code, Error
from controlplane.http2.handler import Open, StreamHandler, Transport
from controlplane.http2.peer import Peer
from controlplane.published import PublishedRevision
from controlplane.xds.context import Context
from controlplane.xds.events import StreamClosed, StreamEvent, StreamId, StreamOpened
from controlplane.xds.memo import TransitionMemo
from controlplane.xds.status import ResourceStatus, merged, statuses
from controlplane.xds_server.limits import StreamLimits
from controlplane.xds_server.lrs_pump import LOAD_REPORTS, LoadPump
from controlplane.xds_server.node_streams import NodeStreams
from controlplane.xds_server.pump import Pump
from controlplane.xds_server.variants import DELTA, SOTW, Variant

# For how long a new world is offered to streams before the event loop sees to other things, seconds. Longer, where what is
# sent goes out meanwhile: what comes then is ACKs, most of all, and the last client is not to wait for those of the first.
# 1,000 clients take 20 ms, 5,000 take 70, and more where other programs want the processor, too.
_SLICE, _LONG_SLICE = 0.005, 0.1

# Where it took longer than a few milliseconds, the next world waits twice as long, and no longer than this: no change is made
# while one is offered, so that each of those that are called together would be sent to all. Seconds.
_BRIEF, _LONGEST_REST = 0.005, 0.2

# Between slices it has so many turns: a call of an operator takes a few.
_TURNS = 3

# What so many streams were offered goes out together: in a millisecond or two. Fewer would have the kernel wake those who read
# for each write, where they are on this machine, and put them in the server's way.
_TOGETHER = 256

# Service, what its methods are named after, and the type that its streams are about: any, on ADS.
SERVICES = (
    ("discovery.v3.AggregatedDiscoveryService", "AggregatedResources", ""),
    *((t.service, t.method_stem, t.url) for t in TABLE),
)

# What is said to who polls.
NO_POLLING = "Fetch{stem}: polling is not served; open a stream with Stream{stem} or Delta{stem}"


class Discovery:
    """The xDS services and that of load reports, and every stream of theirs that is open."""

    def __init__(
        self,
        worlds: Newest[PublishedRevision | None],
        report: Callable[[StreamId, StreamEvent], None],
        limits: StreamLimits | None = None,
        context: Context | None = None,
    ) -> None:
        self._worlds = worlds
        self._report = report
        self._limits = limits or StreamLimits()
        # What all streams share, and what comes of their inputs.
        self._memo = TransitionMemo(context)
        self._ids = itertools.count(1)
        self._pumps: dict[StreamId, Pump] = {}
        # By node id; of nodes that have a stream.
        self._nodes: dict[str, NodeStreams] = {}
        # Streams of load reports; and how many of them each node has, no zero counts.
        self._loads: dict[StreamId, LoadPump] = {}
        self._load_nodes: Counter[str] = Counter()
        self._wall = WallClock()
        self._closing = False
        # While a new world is offered to one stream after the other.
        self.offering = False
        # Sends what streams have to send, set by who carries them; None where that is left to the event loop.
        self.flush: Callable[[], None] | None = None

    def methods(self) -> dict[str, Open]:
        """What opens a stream of each method, by path; it takes what `open` takes."""
        opens: dict[str, Open] = {LOAD_REPORTS: self.open_load}
        for service, stem, type_url in SERVICES:
            opens[f"/envoy.service.{service}/Delta{stem}"] = functools.partial(self.open, DELTA, type_url)
            opens[f"/envoy.service.{service}/Stream{stem}"] = functools.partial(self.open, SOTW, type_url)
        return opens

    def open(self, variant: Variant, type_url: str, peer: Peer, transport: Transport) -> Pump:
        """A client at `peer` has opened a stream. Errors: UNAVAILABLE while nothing is served yet, or any more."""
        stream = self._opened(peer.address, variant.name)
        core = variant.core(type_url, self._limits.resource_ttl, self._memo)
        pump = Pump(stream, variant, core, peer.address, self._worlds, self._told, self._nodes, self._limits, transport)
        self._pumps[stream] = pump
        return pump

    def open_load(self, peer: Peer, transport: Transport) -> LoadPump:
        """A client at `peer` is about to report its load. Errors: as those of `open`."""
        stream = self._opened(peer.address, "load")
        others = self._loads.values()
        pump = LoadPump(stream, self._worlds, self._told, others, self._load_nodes, self._limits, transport)
        self._loads[stream] = pump
        return pump

    def _opened(self, peer: str, kind: str) -> StreamId:
        if self._closing or self._worlds.value is None:
            why = "is stopping" if self._closing else "has not loaded its state yet"
            raise Error(Code.UNAVAILABLE, "NOT_SERVING", f"the control plane {why}; try again")
        stream = next(self._ids)
        self._report(stream, StreamOpened(peer, kind))
        return stream

    def _told(self, stream: StreamId, event: StreamEvent) -> None:
        if isinstance(event, StreamClosed) and self._pumps.pop(stream, None) is None:
            del self._loads[stream]
        self._report(stream, event)

    async def run(self) -> None:
        """Offers each newest world to every stream that was not offered it yet, until it is cancelled; and prolongs TTLs."""
        beating = asyncio.create_task(self._beat()) if self._limits.resource_ttl else None
        try:
            await self._offer_each()
        finally:
            if beating is not None:
                beating.cancel()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._limits.resource_ttl / 3)
            await self._each(list(self._pumps.values()), Pump.heartbeat)

    async def _offer_each(self) -> None:
        clock, seen = asyncio.get_running_loop().time, 0
        while True:
            seen = await self._worlds.newer(seen)
            waiting = [pump for pump in self._pumps.values() if pump.world is not self._worlds.value]
            # Those that take long, or do not ACK, come last, so that they keep nobody waiting.
            waiting.sort(key=lambda pump: pump.last)
            self.offering, began = True, clock()
            try:
                await self._each(waiting, Pump.offer)
                # ACKs that have come meanwhile are read, and seen to a few at a time: thousands at once keep others waiting.
                await _turns()
            finally:
                self.offering = False
            await self._rest(2 * (clock() - began))

    async def _rest(self, seconds: float) -> None:
        """Leaves so much time for changes, beside what ACKs take."""
        clock = asyncio.get_running_loop().time
        until = clock() + _LONGEST_REST
        while seconds > _BRIEF and (began := clock()) < until:
            await asyncio.sleep(_BRIEF)
            if clock() - began < 2 * _BRIEF:
                seconds -= _BRIEF

    async def _each(self, pumps: list[Pump], work: Callable[[Pump], None]) -> None:
        """A bit at a time: what is to be sent goes out, and in between others are seen to."""
        clock, flush = asyncio.get_running_loop().time, self.flush
        slice_ = _SLICE if flush is None else _LONG_SLICE
        until = clock() + slice_
        for some in (pumps[i : i + _TOGETHER] for i in range(0, len(pumps), _TOGETHER)):
            for pump in some:
                work(pump)
                if clock() > until:
                    if flush is not None:
                        flush()
                    await _turns()
                    until = clock() + slice_
            if flush is not None:
                flush()

    def reconnect(self, node_id: str) -> int:
        """Ends the streams of a node well, so that it connects anew. Returns how many; 0 when it has none."""
        streams = self._nodes.get(node_id)
        if streams is None:
            return 0
        count = len(streams)
        streams.end()
        return count

    async def describe(self, node_id: str) -> list[ResourceStatus]:
        """What a node holds of each resource, against what it should; nothing when it has no streams here."""
        streams = self._nodes.get(node_id)
        if streams is None:
            return []
        parts = statuses(streams.cores, self._wall.ahead())
        return merged([part async for part in time_sliced(parts)])

    def close(self) -> None:
        """Ends every stream well, and takes no new ones. Envoys keep what they have, and look for a control plane again."""
        self._closing = True
        every: list[StreamHandler] = [*self._pumps.values(), *self._loads.values()]
        for pump in every:
            pump.end()


async def _turns() -> None:
    """Lets others have their turns."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)

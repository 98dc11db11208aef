"""One stream of load reports: a pump like those of xDS, and carried as they are.

`http2/handler.py` has the contract of transport and pump. This one is simpler: the server speaks when it is spoken to.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable

import structlog
from envoy.service.load_stats.v3 import lrs_pb2
from google.protobuf.message import DecodeError

from controlplane.aio.latest import Newest
from controlplane.envoy_types import CLUSTER
from controlplane.errors import Code, Error
from controlplane.http2.budget import Budget
from controlplane.http2.grpc_status import Status
from controlplane.http2.handler import Transport
from controlplane.published import PublishedRevision
from controlplane.xds.events import StreamClosed, StreamEvent, StreamId
from controlplane.xds.lrs import LoadStream, pace
from controlplane.xds_server.limits import StreamLimits
from controlplane.xds_server.status import XdsHandler

log = structlog.get_logger("xds")

# What a snapshot takes to come from another process, seconds.
_LOOK_AGAIN = 0.1

SERVICE, METHOD = "envoy.service.load_stats.v3.LoadReportingService", "StreamLoadStats"
LOAD_REPORTS = f"/{SERVICE}/{METHOD}"


class LoadPump(XdsHandler):
    """One stream. `report` is told what becomes of it; `pumps` are all that are open, `nodes` counts those of each node."""

    def __init__(
        self,
        stream: StreamId,
        worlds: Newest[PublishedRevision | None],
        report: Callable[[StreamId, StreamEvent], None],
        pumps: Collection[LoadPump],
        nodes: Counter[str],
        limits: StreamLimits,
        transport: Transport,
    ) -> None:
        super().__init__()
        # Whether the next message may be received (`receive_message`); false while the client has asked too much of late.
        self.reading = True
        self._core = LoadStream()
        self._stream = stream
        self._worlds = worlds
        self._report = report
        self._pumps = pumps
        self._nodes = nodes
        self._limits = limits
        self._transport = transport
        # Whose it is; "" until the client has said it.
        self._id = ""
        # What the client has not taken yet; a newer answer takes the place of an older one.
        self._waiting: bytes | None = None
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        self._budget = Budget(loop.time())
        self._says_no_more = False
        # Until when it is left alone, since it says too much; and when to look whether it can be told what to report.
        self._rest: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._timers = [loop.call_later(limits.greeting, self._guarded, self._check_greeted)]
        if limits.max_stream_age:
            self._timers.append(loop.call_later(limits.max_stream_age * random.uniform(0.9, 1.1), self.end))

    def half_closed(self) -> None:
        """The client says no more: the stream ends once it has taken what waits for it."""
        self._says_no_more = True
        self._transport.notify()

    def next_message(self) -> bytes | None:
        """What is to be sent next; None when there is nothing."""
        message, self._waiting = self._waiting, None
        if message is None and self._says_no_more:
            self.end()
        return message

    def end(self, status: Status | None = None) -> None:
        """Ends the stream; well, when there is no status. The transport calls it too, when the client is gone."""
        if self.ended:
            return
        self.ended, self.reading = True, False
        for timer in (*self._timers, self._rest, self._look):
            if timer is not None:
                timer.cancel()
        if self._id:
            self._nodes[self._id] -= 1
            if not self._nodes[self._id]:
                del self._nodes[self._id]
        self._report(self._stream, StreamClosed())
        self._transport.end(status)

    def _receive(self, data: bytes) -> None:
        began = self._clock()
        try:
            request = lrs_pb2.LoadStatsRequest.FromString(data)
        except DecodeError:
            raise Error(Code.INVALID_ARGUMENT, "NOT_A_REPORT", "the message is not a load report") from None
        if not self._id:
            self._limits.admit(request.node, self._nodes[request.node.id])
            self._id = request.node.id
            self._nodes[self._id] += 1
        for event in self._core.receive(request):
            self._report(self._stream, event)
        self._ask()
        now = self._clock()
        if pause := self._budget.spend(now - began, now):
            self.reading = False
            self._rest = asyncio.get_running_loop().call_later(pause, self._rested)

    def _rested(self) -> None:
        self._rest = None
        self.reading = True
        self._transport.resume_reading()

    def _ask(self) -> None:
        if self._look is not None:
            self._look.cancel()
        names = self._names()
        if names is None:
            self._look = asyncio.get_running_loop().call_later(_LOOK_AGAIN, self._guarded, self._ask)
            return
        self._core.ask(pace(len(self._pumps), self._core.size, self._limits.load_reports), names)
        if messages := self._core.to_send():
            self._waiting = messages[-1]
            self._transport.notify()

    def _names(self) -> Iterable[str] | None:
        """The clusters that the client is given, where it must be told; None when that can't be said yet."""
        world, client = self._worlds.value, self._core.client
        if self._core.sends_all or world is None or client is None:
            return ()
        snapshot = world.snapshot(world.audience(client))
        return None if snapshot is None else snapshot.resources[CLUSTER]

    def _check_greeted(self) -> None:
        if not self._id:
            message = f"nothing was said within {self._limits.greeting:g} s of opening the stream"
            raise Error(Code.FAILED_PRECONDITION, "NOTHING_ASKED", message)

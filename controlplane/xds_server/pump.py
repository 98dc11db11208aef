"""One xDS stream: a pump between the client and its protocol core.

What the client says goes into the core; what the core has to say goes out when the client takes it. A core is told of the
newest world only, so a client that does not read costs its own stream and nothing else: nothing queues for it here.

One of these things happens to a stream, and each wakes the core once:

    the client says something    `Stream.receive`, and the node's other streams look again
    there is a newer world       `Stream.offer`
    another stream moved on      `Stream.reconsider`
    time has passed              `Stream.assume_complete`; after a NACK `Stream.retry_in_parts`; with TTLs `Stream.heartbeat`

There are no tasks and nothing is awaited: a pump is called, and calls back the transport that it was made for, which is HTTP/2
in one form or another (`grpc_transport.py`, `http2/transport.py`). What is said:

    by the transport             `receive_message`; the client sends no more (`half_closed`); it is gone (`end`)
    by the pump                  `notify`: there is a `next_message`; `resume_reading`, after `reading` was false; `end`

Messages are bytes on the way in and out. The cores serialise, and what can't be parsed is answered with a status that fits.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog
from google.protobuf.message import DecodeError

from controlplane.aio.latest import Newest
from controlplane.domain import Gateway
from controlplane.errors import Code, Error
from controlplane.http2.budget import Budget
from controlplane.http2.grpc_status import Status
from controlplane.http2.handler import Transport
from controlplane.published import PublishedRevision
from controlplane.snapshot import Audience, Client
from controlplane.xds.events import AudienceAssigned, Event, Identified, Refused, StreamClosed, StreamEvent, StreamId
from controlplane.xds.memo import MemoisedStream
from controlplane.xds_server import variants
from controlplane.xds_server.limits import StreamLimits
from controlplane.xds_server.node_streams import NodeStreams
from controlplane.xds_server.status import XdsHandler
from controlplane.xds_server.variants import Variant

log = structlog.get_logger("xds")

# A client that comes back says within this time of its first request what it holds, on all its streams, seconds.
_QUIET = 2.0

# What a client asks is seen to for so long at a time, seconds; then others have their turn, also where it may go on at once.
_AT_A_TIME = 0.005

# A stream whose newest offer took longer than this is offered the next world after the others. Seconds.
_DEAR = 0.005

_MOST_WAITING = 64
_MOST_BYTES = 8 * 1024 * 1024

# Two Envoys under one name are told of once they have been there for so long: one may be the other, that comes back from
# elsewhere, and its old connection is not known to be broken yet. Seconds.
_TWINS = 90.0

# A client that says no more has this long to take what waits for it, seconds.
_DRAIN = 10.0


class Pump(XdsHandler):
    """One stream. `report` is told what becomes of it; `nodes` are the streams that are open, by node id."""

    __slots__ = (
        "__weakref__",
        "_audience",
        "_budget",
        "_client",
        "_clock",
        "_gateways",
        "_id",
        "_limits",
        "_nodes",
        "_patience",
        "_peer",
        "_pieces",
        "_report",
        "_rest",
        "_says_no_more",
        "_siblings",
        "_spoke",
        "_stream",
        "_targeted",
        "_timers",
        "_transport",
        "_twin",
        "_used",
        "_variant",
        "_waiting",
        "_waiting_bytes",
        "_worlds",
        "core",
        "host",
        "last",
        "reading",
        "world",
    )

    def __init__(
        self,
        stream: StreamId,
        variant: Variant,
        core: MemoisedStream,
        peer: str,
        worlds: Newest[PublishedRevision | None],
        report: Callable[[StreamId, StreamEvent], None],
        nodes: dict[str, NodeStreams],
        limits: StreamLimits,
        transport: Transport,
    ) -> None:
        super().__init__()
        self.core = core
        # Whether the next message may be received (`receive_message`); false while the client has asked too much of late.
        self.reading = True
        # Whether it is offered the next world after the others: the newest offer took long, or nothing was to be sent at once.
        self.last = False
        # Something was sent.
        self._spoke = False
        # Of an Envoy that takes all over this stream: its address, without the port. "" of others.
        self.host = ""
        self._peer = peer if not core.type_url else ""
        # What it was offered last; None before that.
        self.world: PublishedRevision | None = None
        self._stream = stream
        self._variant = variant
        self._worlds = worlds
        self._report = report
        self._nodes = nodes
        self._limits = limits
        self._transport = transport
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        # All streams of the client, this one included; None until the client has said who it is.
        self._siblings: NodeStreams | None = None
        self._id = ""
        # None until the client has said who it is; it is offered nothing before.
        self._client: Identified | None = None
        # What it is served, which follows from these gateways; and what was reported of it.
        self._audience: Audience | None = None
        self._gateways: Mapping[str, Gateway] = {}
        self._targeted: AudienceAssigned | None = None
        # Another Envoy has had the same name for long.
        self._twin = False
        # What its requests cost.
        self._budget = Budget(loop.time())
        # Seconds since others had their turn.
        self._used = 0.0
        # Pieces of the newest request that are still to be taken in.
        self._pieces: list[Any] = []
        # What the client has not taken yet. At most what the core says unasked (one message a type), and answers to what the
        # client asks: at _MOST_WAITING messages, or _MOST_BYTES of them, it is not listened to any more, until it has taken
        # them.
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._says_no_more = False
        # When what it has refused is tried in parts.
        self._patience: asyncio.TimerHandle | None = None
        # Until when it is left alone, since it asked too much of late.
        self._rest: asyncio.TimerHandle | None = None
        # What is to be done one day, if the stream has not ended.
        self._timers: list[asyncio.TimerHandle] = []
        self._after(limits.greeting, self._check_greeted)
        if limits.max_stream_age:
            self._after(limits.max_stream_age * random.uniform(0.9, 1.1), self.end)

    # ------------------------------------------------------------------------------------------------ for the transport

    def half_closed(self) -> None:
        """The client says no more: the stream ends once it has taken what waits for it."""
        if not self.ended and not self._says_no_more:
            self._says_no_more = True
            self._after(_DRAIN, self.end)
            self._transport.notify()

    def next_message(self) -> bytes | None:
        """What is to be sent next; None when there is nothing. Call it when the message before is out of the way."""
        if not self._waiting:
            if self._says_no_more:
                self.end()
            return None
        message = self._waiting.popleft()
        self._waiting_bytes -= len(message)
        if not self.reading and not self._full:
            # Soon, since this may be called from inside of what it leads to.
            asyncio.get_running_loop().call_soon(self._guarded, self._go_on)
        return message

    def end(self, status: Status | None = None) -> None:
        """Ends the stream; well, when there is no status. The transport calls it too, when the client is gone."""
        if self.ended:
            return
        self.ended, self.reading = True, False
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        for handle in (self._rest, self._patience):
            if handle is not None:
                handle.cancel()
        self._waiting.clear()
        self._pieces.clear()
        if self._siblings is not None:
            self._siblings.leave(self)
            if not self._siblings:
                del self._nodes[self._id]
        self._report(self._stream, StreamClosed())
        self._transport.end(status)

    # ------------------------------------------------------------------------------------------------- for the server

    def offer(self) -> None:
        """Takes in the newest world."""
        if self.ended:  # as `_guarded`, with a call less: thousands wait for each other's
            return
        began = self._clock()
        self._spoke = False
        try:
            if self.core.coordination is None:  # the node's only stream, as nearly all are
                self._offer()
            else:
                self._among_siblings(self._offer)
        except Exception as error:  # noqa: BLE001  it is logged there
            self.fail(error)
        self.last = not self._spoke or self._clock() - began > _DEAR

    def heartbeat(self) -> None:
        """Prolongs what the client holds, where it has a TTL."""
        self._guarded(self._beat)

    def reconsider(self) -> None:
        """Another stream of the node has moved on."""
        self._guarded(self._reconsider)

    # -------------------------------------------------------------------------------------------------------- inside

    def _receive(self, data: bytes) -> None:
        began = self._clock()
        core = self.core
        core.now = began
        if (events := core.recall(data)) is not None:
            # As most often: what was heard from another stream before, and costs next to nothing.
            self._tell(events)
            self._spent(began)
            return
        variant = self._variant
        try:
            request = variant.parse(data)
        except DecodeError:
            raise Error(Code.INVALID_ARGUMENT, "NOT_A_REQUEST", "the message is not a discovery request") from None
        count = variant.count_names(request)
        self._limits.check_names(count)
        if self._siblings is None:
            self._join(request.node)
        if count > variants.NAMES_PER_PART:
            request, *self._pieces = variant.divide(request)
        self._take_in(request, count, began, data if not self._pieces else b"")

    def _take_in(self, request: Any, count: int, began: float, data: bytes = b"") -> None:
        """One request, or a piece of one, which costs the time since `began`; `data` are the bytes of a whole one."""
        siblings = self._siblings
        assert siblings is not None
        # Others are only asked and told where there are others.
        if self.core.coordination is not None:
            siblings.tick()
        self.core.now = began
        self._tell(self.core.receive(request, data))
        if count:
            self._limits.check_names(self.core.name_count)
        if self.core.coordination is not None and not self.ended:
            siblings.moved(self)
        self._spent(began)

    def _spent(self, began: float) -> None:
        if self.ended:
            return
        now = self._clock()
        pause = self._budget.spend(now - began, now)
        self._used += now - began
        if pause or self._used > _AT_A_TIME or self._pieces or not self.reading or (self._waiting and self._full):
            self._used = 0.0
            self.reading = False
            self._rest = asyncio.get_running_loop().call_later(pause, self._rested)

    def _rested(self) -> None:
        self._rest = None
        self._guarded(self._go_on)

    def _go_on(self) -> None:
        """There may be time again, and room, for what the client says."""
        if self.reading or self._full or self._rest is not None:
            return
        if self._pieces:
            self._take_in(self._pieces.pop(0), 1, self._clock())
        else:
            self.reading = True
            self._transport.resume_reading()

    @property
    def _full(self) -> bool:
        return len(self._waiting) >= _MOST_WAITING or self._waiting_bytes >= _MOST_BYTES

    def _among_siblings(self, work: Callable[[], None]) -> None:
        """Does what may lead to something being sent, or having to wait for the node's other streams, if there are any."""
        siblings = self._siblings
        if siblings is None or self.core.coordination is None:
            work()
            return
        siblings.tick()
        work()
        siblings.offered()

    def _offer(self) -> None:
        world, client = self._worlds.value, self._client
        if world is None or client is None:
            return
        if self._audience is None or world.gateways is not self._gateways:
            self._gateways, self._audience = world.gateways, world.audience(client)
        target = self._audience
        snapshot = world.snapshot(target)
        if snapshot is None:
            return
        self.world, note = world, world.note(target)
        if self._twin and (twin := self._twins()):
            note = f"{twin}; {note}" if note else twin
        told = self._targeted
        if told is None or told.note != note or (told.audience is not target and told.audience != target):
            self._targeted = AudienceAssigned(target, note)
            self._report(self._stream, self._targeted)
        self._tell(self.core.offer(snapshot))

    def _reconsider(self) -> None:
        self._tell(self.core.reconsider())

    def _beat(self) -> None:
        self.core.heartbeat()
        self._tell(())

    def _quiet(self) -> None:
        self._among_siblings(lambda: self._tell(self.core.assume_complete()))

    def _isolate(self) -> None:
        self._patience = None
        self._among_siblings(lambda: self._tell(self.core.retry_in_parts()))

    def _tell(self, events: Iterable[Event]) -> None:
        for event in events:
            self._report(self._stream, event)
            if isinstance(event, Identified):
                self._client = event
                self._after(_QUIET, self._quiet)
                self._offer()
                self._look_for_twins()
            elif isinstance(event, Refused) and self._patience is None:
                loop = asyncio.get_running_loop()
                self._patience = loop.call_later(self._limits.patience, self._guarded, self._isolate)
        if messages := self.core.to_send():
            self._spoke = True
            self._waiting.extend(messages)
            self._waiting_bytes += sum(map(len, messages))
            self._transport.notify()

    def _look_for_twins(self) -> None:
        if self._peer and self._audience is not None and self._audience.client is Client.ENVOY:
            self.host = self._peer.rpartition(":")[0]
            if self._twins():
                self._after(_TWINS, self._tell_of_twins)

    def _twins(self) -> str:
        """What is to be said of two Envoys of one name; "" when there are none."""
        other = self._siblings.elsewhere(self) if self._siblings is not None else ""
        return f"two Envoys use this name, at {self.host} and {other}: what one holds is told of both" if other else ""

    def _tell_of_twins(self) -> None:
        if twins := self._twins():
            assert self._siblings is not None
            if not self._siblings.twins_told:  # by each stream, it would be a line for each of a hundred
                log.warning("two Envoys use one node id", node=self._id, says=twins)
                self._siblings.twins_told = True
            self._twin = True
            self._among_siblings(self._offer)

    def _after(self, seconds: float, call: Callable[[], None]) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(seconds, self._guarded, call))

    def _check_greeted(self) -> None:
        if self._siblings is None:
            message = f"nothing was asked within {self._limits.greeting:g} s of opening the stream"
            raise Error(Code.FAILED_PRECONDITION, "NOTHING_ASKED", message)

    def _join(self, node: Any) -> None:
        """The client says who it is. Errors: INVALID_ARGUMENT, RESOURCE_EXHAUSTED when it may not be served."""
        streams = self._nodes.get(node.id)
        self._limits.admit(node, len(streams) if streams is not None else 0)
        self._id = node.id
        self._siblings = self._nodes.setdefault(node.id, streams or NodeStreams(self._limits.linger))
        self._siblings.join(self)

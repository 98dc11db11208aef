"""The loops: desired state becomes what is served, and what the streams report becomes the fleet.

Nothing below this layer reads the clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Collection, Mapping

import structlog

from controlplane.aio.latest import Latest
from controlplane.compiler import audience
from controlplane.domain.revision import Head
from controlplane.domain.state import State
from controlplane.envoy_types import short_name
from controlplane.fleet import Fleet, Node, NodeState
from controlplane.published import CompiledRevision, SnapshotCompiler
from controlplane.snapshot import Audience
from controlplane.traffic import Traffic
from controlplane.xds.events import (
    Held,
    Identified,
    LoadReported,
    Oversized,
    Refused,
    ReporterIdentified,
    Settled,
    StreamClosed,
    StreamEvent,
    StreamId,
)

log = structlog.get_logger("fleet")

# Changes that follow one within this time go out together; the one goes out at once. Seconds.
COALESCE = 0.005

# Who does not hold the newest revision this long after it is served is named in the log. Seconds.
LATE = 10.0


# Of what happens to each node of a fleet so much is told singly, a second; of the rest how much it was.
SINGLY = 20


class RateLimitedLog:
    """Something that happens to nodes, one by one or to all: each has its line, and a whole fleet has one a second.

    `example` are those things that are said of the first, where it stands for the others.
    """

    def __init__(self, one: str, many: str, level: int = logging.INFO, example: Collection[str] = ()) -> None:
        self._one, self._many, self._level, self._example = one, many, level, example
        # Of this second: how many there were, and the first that was not told of.
        self._count = 0
        self._first: dict[str, object] = {}
        self._second: asyncio.TimerHandle | None = None
        self._open = True

    def tell(self, node: str, **more: object) -> None:
        """One more."""
        self._count += 1
        if self._count <= SINGLY:
            log.log(self._level, self._one, node=node, **more)
            if self._second is None and self._open:
                try:
                    self._second = asyncio.get_running_loop().call_later(1.0, self._sum_up)
                except RuntimeError:  # without a loop there is no crowd
                    self._count = 0
        elif not self._first:
            self._first = {"first": node, **{key: more[key] for key in self._example}}

    def close(self) -> None:
        """Tells how many more there were; there will be no other second."""
        self._open = False
        if self._second is not None:
            self._second.cancel()
            self._sum_up()

    def _sum_up(self) -> None:
        self._second = None
        if self._count > SINGLY:
            log.log(self._level, self._many, count=self._count - SINGLY, **self._first)
        self._count, self._first = 0, {}


class Observer:
    """Gives what the streams report its time, folds it into the fleet, and writes the log lines of it."""

    def __init__(self) -> None:
        self.fleet = Fleet()
        self.traffic = Traffic(time.time())
        # The same fleet, set at each report so that watchers wake; None once the server stops.
        self.changed: Latest[Fleet | None] = Latest(self.fleet)
        self._open = True
        # Where a stream belongs, while it is open.
        self._nodes: dict[StreamId, Node] = {}
        # What is served now.
        self._head = Head()
        # The revision since which its gateways are what they are. Who holds it, or a newer one, has said what it is served.
        self._gateways_since = 0
        # What nodes that have not said so will be served by these gateways, by id: worked out once for each.
        self._aimed: dict[str, Audience] = {}
        # Not every node is known to hold that yet; and when it is time to say which ones don't.
        self._awaited = False
        self._late: asyncio.TimerHandle | None = None
        self._come = RateLimitedLog("node connected", "more nodes connected")
        self._go = RateLimitedLog("node disconnected", "more nodes disconnected")
        self._refuse = RateLimitedLog(
            "revision refused", "revision refused by more", logging.WARNING, ("revision", "type", "resources", "error")
        )
        self._settle = RateLimitedLog(
            "revision held but for an older refusal",
            "revision held by more but for older refusals",
            example=("revision", "refused"),
        )
        self._oversize = RateLimitedLog(
            "response above gRPC's default limit; google_grpc clients may drop the stream",
            "more responses above gRPC's default limit",
            logging.WARNING,
            ("type", "bytes"),
        )

    def published(self, head: Head) -> None:
        """From now on `head` is what every node should hold."""
        if head.state.gateways != self._head.state.gateways:
            self._gateways_since = head.number
            self._aimed.clear()
        self._head = head
        self.fleet.publish(head.number)
        self.traffic.publish(head.state.models)
        self._stop_waiting()
        if head.number:
            self._awaited = True
            with contextlib.suppress(RuntimeError):  # without a loop nobody waits
                self._late = asyncio.get_running_loop().call_later(LATE, self._tell_late)
        self._wake()

    def report(self, stream: StreamId, event: StreamEvent, when: float | None = None) -> None:
        """Takes what a stream reported: just now, or at a time (seconds since the epoch)."""
        now = time.time() if when is None else when
        if isinstance(event, (ReporterIdentified, LoadReported)):
            self.traffic.apply(stream, event, now)
            return
        self.fleet.apply(stream, event, now)
        if type(event) is not Held:  # as most often: of those that hold a revision it is told together
            self._tell(stream, event, now)
        if self._awaited and not self.fleet.counts[NodeState.BEHIND]:
            self._tell_held(now)
        if self._open:
            self.changed.set(self.fleet)

    def by_audience(self, state: State) -> Mapping[Audience, int]:
        """How many connected nodes of each audience there would be under `state`."""
        nodes = (n for n in self.fleet.nodes.values() if n.connected)
        if state.gateways != self._head.state.gateways:
            return Counter(audience(state, n) for n in nodes)
        counts, since = Counter(self.fleet.audiences), self._gateways_since
        if self.fleet.holding(since) < self.fleet.connected:
            # What they are served from now on may not be known yet: workers take a moment to say it.
            for node in (n for n in nodes if since not in n.holds):
                counts[node.audience] -= 1
                if node.id not in self._aimed:
                    self._aimed[node.id] = audience(state, node)
                counts[self._aimed[node.id]] += 1
        return +counts

    def close(self) -> None:
        """Ends every watch; the fleet is still kept."""
        self._open = False
        self._stop_waiting()
        for crowd in (self._come, self._go, self._refuse, self._settle, self._oversize):
            crowd.close()
        self.changed.set(None)

    def _wake(self) -> None:
        if self._open:
            self.changed.set(self.fleet)

    def _tell_held(self, now: float) -> None:
        """No node that is connected is behind. Told once a revision, as soon as there are any."""
        head, counts = self._head, self.fleet.counts
        if not counts[NodeState.SYNCED]:
            return
        took = {"ms": round((now - head.time) * 1000, 1)} if head.time else {}
        refusing = {"refusing": counts[NodeState.REFUSING]} if counts[NodeState.REFUSING] else {}
        log.info("revision held by all", revision=head.number, nodes=counts[NodeState.SYNCED], **refusing, **took)
        self._stop_waiting()

    def _tell_late(self) -> None:
        """Who is behind is told once a revision, if that takes long."""
        behind = [n.id for n in self.fleet.nodes.values() if self.fleet.state_of(n) is NodeState.BEHIND]
        if behind:
            log.warning("revision not held by all yet", revision=self._head.number, behind=len(behind), nodes=behind[:8])

    def _stop_waiting(self) -> None:
        self._awaited = False
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _tell(self, stream: StreamId, event: StreamEvent, now: float) -> None:
        if isinstance(event, Identified):
            node = self._nodes[stream] = self.fleet.nodes[event.id]
            self._aimed.pop(event.id, None)
            if len(node.open) == 1:
                self._come.tell(node.id, cluster=node.cluster, client=node.user_agent, peer=node.peer)
        elif isinstance(event, Settled):
            self._settle.tell(self._nodes[stream].id, revision=event.revision, refused=event.since)
        elif isinstance(event, Refused):
            self._refuse.tell(
                self._nodes[stream].id,
                revision=event.revision,
                type=short_name(event.type_url),
                resources=list(event.resources),
                error=event.message,
            )
        elif isinstance(event, Oversized):
            self._oversize.tell(self._nodes[stream].id, type=short_name(event.type_url), bytes=event.bytes)
        elif isinstance(event, StreamClosed):
            self.traffic.apply(stream, event, now)
            gone = self._nodes.pop(stream, None)
            if gone is not None and not gone.open:
                self._aimed.pop(gone.id, None)
                self._go.tell(gone.id, held=gone.held_revision)


class Publisher:
    """Keeps `world` at the newest revision of the store. It lags rather than blocks: writers never wait for it."""

    def __init__(self, head: Latest[Head], compiler: SnapshotCompiler, observer: Observer) -> None:
        self._head = head
        self._compiler = compiler
        self._observer = observer
        # Serial of the head that was published, or could not be.
        self._seen = -1
        # None until there is a first one.
        self.published: Latest[CompiledRevision | None] = Latest(None)

    def publish(self) -> None:
        """Makes the newest revision what is served. When it can't be compiled, what was served before stays."""
        self._seen, head = self._head.serial, self._head.value
        before = self.published.value
        try:
            world = before.next(head) if before else CompiledRevision(head, self._compiler)
        except Exception:  # the fleet goes on with what it has, whatever the compiler met
            log.exception("revision not served: it does not compile", revision=head.number)
            return
        self._observer.published(head)
        self.published.set(world)
        if before is not None:
            log.info("revision served", revision=head.number, ms=round((time.time() - head.time) * 1000, 1))

    async def run(self) -> None:
        """Publishes until it is cancelled."""
        while True:
            await self._head.newer(self._seen)
            self.publish()
            await asyncio.sleep(COALESCE)

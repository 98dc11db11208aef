"""The log of the fleet: a few lines for each revision, one for each NACK, one when a node connects or disconnects."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import structlog

from controlplane.domain.revision import Head
from controlplane.envoy_types import short_name
from controlplane.fleet import Fleet, Node, NodeState
from controlplane.observers import Handler, Observer
from controlplane.observers.rate_limited_log import RateLimitedLog
from controlplane.xds.events import (
    Held,
    Identified,
    Oversized,
    Recovered,
    Refused,
    Settled,
    StreamClosed,
    StreamEvent,
    StreamId,
)

log = structlog.get_logger("fleet")

# A constant, because it is used for every Held, and the look-up of a member of an Enum is slow.
_BEHIND = NodeState.BEHIND

# Seconds after which the log names the nodes that do not hold a newly published revision yet.
LATE = 10.0


class FleetLog(Observer):
    """Writes the log lines about nodes and revisions."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._counts = fleet.counts
        self._head = Head()
        # True until `_head` is done and this was logged.
        self._awaited = False
        # True once it was logged that every connected node holds `_head`, while others are gone.
        self._logged_connected = False
        # Logs the nodes that do not hold `_head` yet.
        self._late: asyncio.TimerHandle | None = None
        self._connected = RateLimitedLog("node connected", "more nodes connected")
        self._disconnected = RateLimitedLog("node disconnected", "more nodes disconnected")
        self._released = RateLimitedLog("node released: it does not count any more", "more nodes released")
        self._refused = RateLimitedLog(
            "revision refused",
            "revision refused by more nodes",
            logging.WARNING,
            example=("revision", "type", "resources", "error"),
        )
        self._settled = RateLimitedLog(
            "revision held except for an earlier refusal",
            "revision held by more nodes except for earlier refusals",
            example=("revision", "refused"),
        )
        self._oversized = RateLimitedLog(
            "response above gRPC's default limit; google_grpc clients may drop the stream",
            "more responses above gRPC's default limit",
            logging.WARNING,
            example=("type", "bytes"),
        )

    def handlers(self) -> Mapping[type, Handler]:
        """Return the events that cause a line, and the events after which a revision is possibly done."""
        return {
            Identified: self._on_identified,
            Held: self._on_progress,
            Settled: self._on_settled,
            Refused: self._on_refused,
            Recovered: self._on_progress,
            Oversized: self._on_oversized,
            StreamClosed: self._on_closed,
        }

    def publish(self, head: Head) -> None:
        """Wait until every node that counts holds `head`."""
        self._head = head
        self._stop_waiting()
        if head.number:
            self._awaited = True
            with contextlib.suppress(RuntimeError):  # there is no timer without an event loop
                self._late = asyncio.get_running_loop().call_later(LATE, self._log_late)

    def members_changed(self, released: Sequence[Node], now: float) -> None:
        """Log the released nodes. Without them the newest revision is possibly done."""
        for node in released:
            self._released.log(node.id, away_s=round(now - (node.gone_since or now)))
        if self._awaited and not self._counts[_BEHIND]:
            self._log_held(now)

    def close(self) -> None:
        """Stop the timers, and write the summaries that are pending."""
        self._stop_waiting()
        for limited in (
            self._connected,
            self._disconnected,
            self._released,
            self._refused,
            self._settled,
            self._oversized,
        ):
            limited.close()

    def _on_progress(self, stream: StreamId, event: StreamEvent, now: float) -> None:
        if self._awaited and not self._counts[_BEHIND]:
            self._log_held(now)

    def _on_identified(self, stream: StreamId, event: Identified, now: float) -> None:
        node = self._fleet.nodes[event.id]
        if len(node.streams) == 1:
            self._connected.log(node.id, cluster=node.cluster, client=node.user_agent, peer=node.peer)
        self._on_progress(stream, event, now)

    def _on_settled(self, stream: StreamId, event: Settled, now: float) -> None:
        if (node := self._fleet.node_of(stream)) is not None:
            self._settled.log(node.id, revision=event.revision, refused=event.since)
        self._on_progress(stream, event, now)

    def _on_refused(self, stream: StreamId, event: Refused, now: float) -> None:
        if (node := self._fleet.node_of(stream)) is not None:
            self._refused.log(
                node.id,
                revision=event.revision,
                type=short_name(event.type_url),
                resources=list(event.resources),
                error=event.message,
            )
        self._on_progress(stream, event, now)

    def _on_oversized(self, stream: StreamId, event: Oversized, now: float) -> None:
        if (node := self._fleet.node_of(stream)) is not None:
            self._oversized.log(node.id, type=short_name(event.type_url), bytes=event.bytes)

    def _on_closed(self, stream: StreamId, event: StreamClosed, now: float) -> None:
        node = self._fleet.node_of(stream)
        if node is not None and not node.connected:
            self._disconnected.log(node.id, held=node.held_revision)
        self._on_progress(stream, event, now)

    def _log_held(self, now: float) -> None:
        """Log once for each revision that it is done, and before that once that every connected node holds it."""
        head, fleet = self._head, self._fleet
        connected = fleet.connected
        if not connected or fleet.holding(head.number) < connected:
            return
        done = fleet.is_done(head.number)
        if self._logged_connected and not done:
            return
        counts = fleet.counts
        fields = {"nodes": fleet.counted if done else connected}
        if counts[NodeState.REFUSING]:
            fields["refusing"] = counts[NodeState.REFUSING]
        if not done:
            fields["gone"] = counts[NodeState.GONE] - fleet.members.gone_holding(head.number)
            fields["too_few"] = sum(max(0, e.expected - e.counted) for e in fleet.members.expected(fleet.audiences))
        duration = {"ms": round((now - head.time) * 1000, 1)} if head.time else {}
        event = "revision held by all" if done else "revision held by all connected nodes"
        log.info(event, revision=head.number, **{k: v for k, v in fields.items() if v}, **duration)
        self._logged_connected = True
        if done:
            self._stop_waiting()

    def _log_late(self) -> None:
        """Log the nodes that do not hold the revision yet, once for each revision."""
        counted = [n for n in self._fleet.nodes.values() if n.connected or n.known]
        late = [n for n in counted if self._head.number not in n.holds]
        if late:
            states = Counter(n.progress(self._head.number).value for n in late)
            log.warning("revision not held by all yet", revision=self._head.number, **states, nodes=[n.id for n in late[:8]])

    def _stop_waiting(self) -> None:
        self._awaited = self._logged_connected = False
        if self._late is not None:
            self._late.cancel()
            self._late = None

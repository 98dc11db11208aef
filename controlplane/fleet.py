"""The fleet: the events of all xDS streams, folded into what each node holds.

A node is every client that gave the same id. It may have several streams. A stream holds a revision once the client has ACKed
everything of it on that stream, and a node holds a revision once all of its open streams do.

Everything here is a fold of events: no I/O, and the time is an argument. An event costs the same whatever the size of the
fleet. So the counts are updated with each event, and always equal what counting the nodes would give.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, NamedTuple

from controlplane.domain import Locality
from controlplane.snapshot import Audience
from controlplane.xds.events import (
    AudienceAssigned,
    Blocked,
    Held,
    Identified,
    Recovered,
    Refused,
    Settled,
    StreamClosed,
    StreamEvent,
    StreamId,
    StreamOpened,
)

# A node that disconnected stays listed for this long, and at most this many do.
GONE_SECONDS = 24 * 3600.0
GONE_NODES = 10_000

# Number of revisions for which a node's `history` keeps the time when it first held them.
HISTORY = 32


class NodeState(Enum):
    """A node's state, against the newest revision. A node that is both refusing and behind is REFUSING."""

    SYNCED = "synced"  # connected, and holds the newest revision
    BEHIND = "behind"  # connected, and has not ACKed all of the newest revision yet
    REFUSING = "refusing"  # connected, and a NACK stands; the node goes on with the configuration from before it
    GONE = "gone"  # not connected

    # Hashing by identity is in C. Enum's own hash is not, and would be much of the cost of an event.
    __hash__ = object.__hash__


# Constants, since they are looked up for every Held, and looking up a member of an Enum is slow.
_SYNCED, _BEHIND = NodeState.SYNCED, NodeState.BEHIND


class ProgressState(Enum):
    """A node's progress with one revision."""

    REFUSED = "refused"  # a NACK of this revision or a newer one stands, and the node holds an older one
    BEHIND = "behind"  # has not ACKed all of it yet
    GONE = "gone"  # disconnected before it held the revision
    HOLDING = "holding"  # has ACKed all of it or of a newer one, or all except for what it refused earlier


@dataclass(frozen=True, slots=True)
class Refusal:
    """A NACK that stands: the client has not ACKed anything newer of the type."""

    type_url: str
    resources: tuple[str, ...]
    message: str  # as the client wrote it
    revision: int  # the revision of the refused response
    time: float  # seconds since the epoch
    # The newest revision that the node can't hold because of this NACK; not below `revision`.
    stands_at: int


class HeldRevisions(NamedTuple):
    """The revisions that a stream or node holds: all up to `all_of`, and those above `since` up to `newest`."""

    # The newest revision of which everything was ACKed; 0 before any.
    all_of: int = 0
    # The newest revision that is held at least except for earlier refusals; not below `all_of`. Those refusals are of
    # revisions up to `since`.
    newest: int = 0
    since: int = 0

    def __contains__(self, revision: object) -> bool:
        assert isinstance(revision, int)
        return revision <= self.all_of or self.since < revision <= self.newest

    def after(self, event: Held | Settled) -> HeldRevisions:
        """Return the revisions that a stream holds after one more event."""
        if isinstance(event, Held):
            return HeldRevisions(event.revision, event.revision)
        return self if event.revision <= self.all_of else HeldRevisions(self.all_of, event.revision, event.since)

    @classmethod
    def common(cls, streams: Iterable[HeldRevisions]) -> HeldRevisions:
        """Return the revisions that all of several streams hold; where their ranges differ, the newest part."""
        every = tuple(streams)
        all_of, newest = min(h.all_of for h in every), min(h.newest for h in every)
        return cls(all_of, newest, max((h.since for h in every if h.all_of < newest), default=0))


@dataclass(slots=True, eq=False)
class _Stream:
    peer: str
    variant: str
    opened: float
    node: Node | None = None  # None until the client has identified itself
    audience: Audience = Audience()
    held: HeldRevisions = HeldRevisions()
    refused: dict[str, Refusal] = field(default_factory=dict)  # by type URL


@dataclass(slots=True, eq=False)
class Node:
    """One node. Times are seconds since the epoch. Read-only outside this module."""

    id: str
    cluster: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict, repr=False)
    user_agent: str = ""
    # `ip:port` of its newest stream, also when that has closed.
    peer: str = ""
    locality: Locality = Locality()
    # The newest audience that a stream of the node reported. They differ only while the streams identify the node differently.
    audience: Audience = Audience()
    note: str = ""
    # Sorted, without duplicates: the variants of its open streams; once the node is gone, of the last ones.
    variants: tuple[str, ...] = ()
    # The newest revision of which every open stream has ACKed everything, so 0 from when a stream opens until it is in sync.
    # Once the node is gone, the value at the end.
    held_revision: int = 0
    # The same, with the revisions that are held except for earlier refusals. `held_revision` is its `all_of`.
    holds: HeldRevisions = HeldRevisions()
    # When the first of the open streams was opened; None when the node is gone.
    connect_time: float | None = None
    last_seen: float = 0.0
    # (revision, when every stream first held it, if only except for earlier refusals), ascending in both; the newest HISTORY.
    history: list[tuple[int, float]] = field(default_factory=list)
    # Open streams only. An event looks at all of them only when streams hold different revisions.
    streams: dict[StreamId, _Stream] = field(default_factory=dict, repr=False)
    # Number of open streams with a NACK that stands.
    refusing: int = 0

    @property
    def connected(self) -> bool:
        """Return True if the node has an open stream."""
        return bool(self.streams)

    @property
    def gateways(self) -> tuple[str, ...]:
        """Return the labels of the gateways that select the node, sorted."""
        return self.audience.gateways

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Return the NACKs that stand on open streams, by type, the newest first within a type."""
        refusals = [r for s in self.streams.values() for r in s.refused.values()]
        return tuple(sorted(refusals, key=lambda r: (r.type_url, -r.time)))

    def hold_time(self, revision: int) -> float | None:
        """Return when the node first held `revision` or a newer one; None if it never did. Looks back HISTORY revisions."""
        at = bisect_left(self.history, (revision, 0.0))
        return self.history[at][1] if at < len(self.history) else None

    def progress(self, revision: int) -> ProgressState:
        """Return the node's progress with `revision`."""
        if revision in self.holds:
            return ProgressState.HOLDING
        if not self.streams:
            return ProgressState.GONE
        refused = any(r.stands_at >= revision for s in self.streams.values() for r in s.refused.values())
        return ProgressState.REFUSED if refused else ProgressState.BEHIND

    def _common_holds(self, before: HeldRevisions, rising: bool) -> HeldRevisions:
        """Return the revisions that all open streams hold, after an event of a stream that held `before`.

        `rising`: the stream now holds at least as much, or is closed. Then the result is the same as before the event for as
        long as another stream still holds `before`.
        """
        streams = self.streams.values()
        # The newest stream first: when all streams report the same event, they do so in their order.
        if rising and any(s.held == before for s in reversed(streams)):
            return self.holds
        return HeldRevisions.common(s.held for s in streams)

    def _note_held(self, now: float) -> None:
        """Remember when the node first held the newest revision that it holds."""
        history, newest = self.history, self.holds.newest
        if newest > (history[-1][0] if history else 0):
            history.append((newest, now))
            if len(history) > HISTORY:
                del history[0]


class Fleet:
    """All nodes that are connected, and those that disconnected lately."""

    def __init__(self) -> None:
        # The newest published revision, which every connected node should hold.
        self.revision = 0
        # Number of nodes in each state.
        self.counts: dict[NodeState, int] = dict.fromkeys(NodeState, 0)
        # Number of connected nodes of each audience; no zero counts.
        self.audiences: Counter[Audience] = Counter()
        self._nodes: dict[str, Node] = {}
        # Open streams. This is the only record in the process of which node a stream belongs to.
        self._streams: dict[StreamId, _Stream] = {}
        # The stream that closed last, for observers that handle its StreamClosed after the fleet; None before any.
        self._last_closed: tuple[StreamId, Node | None] | None = None
        # Ids of nodes that are gone, the longest gone first.
        self._gone: OrderedDict[str, None] = OrderedDict()
        # Number of connected nodes by what they hold; no zero counts.
        self._held: Counter[HeldRevisions] = Counter()

    @property
    def nodes(self) -> Mapping[str, Node]:
        """Return all nodes by id, in no particular order."""
        return self._nodes

    @property
    def connected(self) -> int:
        """Return the number of connected nodes."""
        return len(self._nodes) - self.counts[NodeState.GONE]

    @property
    def streams(self) -> int:
        """Return the number of open streams, including those of clients that have not identified themselves."""
        return len(self._streams)

    def node_of(self, stream: StreamId) -> Node | None:
        """Return the node of a stream that is open, or that closed last; None if its client has not identified itself."""
        opened = self._streams.get(stream)
        if opened is not None:
            return opened.node
        return self._last_closed[1] if self._last_closed is not None and self._last_closed[0] == stream else None

    def streams_of(self, node_id: str) -> Collection[StreamId]:
        """Return the open streams of a node; none when the node is not known."""
        node = self._nodes.get(node_id)
        return node.streams.keys() if node is not None else ()

    def holding(self, revision: int) -> int:
        """Return the number of connected nodes that hold `revision` or a newer one, if only except for earlier refusals."""
        return sum(n for held, n in self._held.items() if revision in held)

    def state_of(self, node: Node) -> NodeState:
        """Return a node's state, against the newest revision."""
        if not node.streams:
            return NodeState.GONE
        if node.refusing:
            return NodeState.REFUSING
        return NodeState.SYNCED if node.held_revision >= self.revision else NodeState.BEHIND

    def unsynced_first(self) -> Iterator[Node]:
        """Yield all nodes: refusing, behind, gone, synced; by id within each."""
        by_state: dict[NodeState, list[Node]] = {state: [] for state in NodeState}
        for node in self._nodes.values():
            by_state[self.state_of(node)].append(node)
        for state in (NodeState.REFUSING, NodeState.BEHIND, NodeState.GONE, NodeState.SYNCED):
            yield from sorted(by_state[state], key=lambda n: n.id)

    def publish(self, revision: int) -> None:
        """Expect every connected node to hold `revision` from now on. An older revision than the newest changes nothing."""
        if revision > self.revision:
            self.revision = revision
            self.counts[NodeState.BEHIND] += self.counts[NodeState.SYNCED]
            self.counts[NodeState.SYNCED] = 0

    def apply(self, stream: StreamId, event: StreamEvent, now: float) -> None:
        """Fold in an event of a stream. Events of a stream that is not open change nothing."""
        if type(event) is Held and self._apply_held(stream, event.revision, now):
            return
        if isinstance(event, StreamOpened):
            self._streams[stream] = _Stream(event.peer, event.variant, now)
            return
        if isinstance(event, Held | Settled):
            self.publish(event.revision)
        opened = self._streams.get(stream)
        if opened is None:
            return
        if isinstance(event, AudienceAssigned):
            self._assign_audience(opened, event)
        elif isinstance(event, Identified) and event.id not in self._nodes:
            self._add_node(stream, opened, event, now)
        else:
            if isinstance(event, Identified):
                opened.node = self._nodes[event.id]
            if opened.node is not None:
                self._uncount(opened.node)
                self._fold(stream, opened, opened.node, event, now)
                self._count(opened.node)
            if isinstance(event, StreamClosed):
                del self._streams[stream]
                self._last_closed = stream, opened.node
        if self._gone:
            self._forget_gone(now)

    def _apply_held(self, stream: StreamId, revision: int, now: float) -> bool:
        """Fold in Held for a node that refuses nothing: the event that a switch makes every stream report.

        Has the same result as `_fold`, at a lower cost. Returns False, and does nothing, for any other stream.
        """
        opened = self._streams.get(stream)
        if opened is None or (node := opened.node) is None or node.refusing:
            return False
        if revision > self.revision:
            self.publish(revision)
        before, opened.held = opened.held, HeldRevisions(revision, revision)
        holds = opened.held if len(node.streams) == 1 else node._common_holds(before, revision >= before.newest)
        newest = self.revision
        synced = holds.all_of >= newest
        if synced != (node.held_revision >= newest):
            more = 1 if synced else -1
            self.counts[_BEHIND] -= more
            self.counts[_SYNCED] += more
        if holds is not node.holds:
            _decrement(self._held, node.holds)
            self._held[holds] += 1
            node.holds = holds
            node.held_revision = holds.all_of
            node._note_held(now)
        node.last_seen = now
        if self._gone:
            self._forget_gone(now)
        return True

    def _add_node(self, stream: StreamId, opened: _Stream, event: Identified, now: float) -> None:
        node = opened.node = self._nodes[event.id] = Node(
            event.id, event.cluster, event.metadata, event.user_agent, opened.peer, event.locality, variants=(opened.variant,)
        )
        node.connect_time, node.last_seen = opened.opened, now
        node.streams[stream] = opened
        self._count(node)

    def _assign_audience(self, opened: _Stream, event: AudienceAssigned) -> None:
        """Record the audience. `last_seen` stays, since the client did nothing."""
        opened.audience = event.audience
        node = opened.node
        if node is None:
            return
        if node.audience != event.audience:
            _decrement(self.audiences, node.audience)
            self.audiences[event.audience] += 1
        node.audience, node.note = event.audience, event.note

    def _fold(self, stream: StreamId, opened: _Stream, node: Node, event: StreamEvent, now: float) -> None:
        before, refused = opened.held, bool(opened.refused)
        match event:
            case Held() | Settled():
                opened.held = opened.held.after(event)
            case Blocked(revision):
                for type_url, refusal in opened.refused.items():
                    opened.refused[type_url] = replace(refusal, stands_at=max(refusal.stands_at, revision))
                return
            case Identified():
                node.cluster, node.metadata = event.cluster, event.metadata
                node.user_agent, node.peer, node.locality = event.user_agent, opened.peer, event.locality
                node.streams[stream] = opened
                self._gone.pop(node.id, None)
            case Refused(type_url) if (newer := opened.refused.get(type_url)) and newer.revision > event.revision:
                pass  # content that was refused earlier was sent again
            case Refused():
                content = (event.type_url, event.resources, event.message)
                opened.refused[event.type_url] = Refusal(*content, event.revision, now, event.revision)
            case Recovered(type_url):
                opened.refused.pop(type_url, None)
            case StreamClosed():
                del node.streams[stream]
        closed = isinstance(event, StreamClosed)
        node.refusing += (bool(opened.refused) and not closed) - refused
        node.last_seen = now
        if not node.streams:
            node.connect_time = None
            self._gone[node.id] = None
            return
        if len(node.streams) == 1 or (closed and (opened.opened == node.connect_time or len(node.variants) > 1)):
            streams = node.streams.values()
            node.connect_time = min(s.opened for s in streams)
            node.variants = tuple(sorted({s.variant for s in streams}))
        elif isinstance(event, Identified):
            node.connect_time = min(opened.opened, node.connect_time or opened.opened)
            if opened.variant not in node.variants:
                node.variants = tuple(sorted((*node.variants, opened.variant)))
        # A stream that has just identified its node holds nothing, so neither does the node.
        node.holds = (
            HeldRevisions()
            if isinstance(event, Identified)
            else node._common_holds(before, not isinstance(event, Held | Settled))
        )
        node.held_revision = node.holds.all_of
        node._note_held(now)

    def _uncount(self, node: Node) -> None:
        if not node.streams and node.id not in self._gone:
            return  # a new node, which no count includes yet
        self.counts[self.state_of(node)] -= 1
        if node.streams:
            _decrement(self._held, node.holds)
            _decrement(self.audiences, node.audience)

    def _count(self, node: Node) -> None:
        self.counts[self.state_of(node)] += 1
        if node.streams:
            self._held[node.holds] += 1
            self.audiences[node.audience] += 1

    def _forget_gone(self, now: float) -> None:
        """Drop nodes that have been gone for GONE_SECONDS, and the longest gone above GONE_NODES."""
        while self._gone:
            oldest = self._nodes[next(iter(self._gone))]
            if len(self._gone) <= GONE_NODES and now - oldest.last_seen <= GONE_SECONDS:
                return
            del self._gone[oldest.id], self._nodes[oldest.id]
            self.counts[NodeState.GONE] -= 1


def _decrement(counter: Counter[Any], key: object) -> None:
    """Subtract one, and drop the key at zero."""
    counter[key] -= 1
    if not counter[key]:
        del counter[key]

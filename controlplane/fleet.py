"""The fleet: what the streams reported, folded into what each node holds.

A node is whatever clients gave one id. It may have several streams, and holds a revision when every one of them does: what
a stream was sent counts only once the client has said so on that stream. Everything here is a fold of events: no sockets,
and the time is an argument. An event costs the same however large the fleet is, so the counts are kept up, not counted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
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

# Nodes that went away stay listed for a day, and at most this many.
GONE_SECONDS = 24 * 3600.0
GONE_NODES = 10_000

# How many revisions back it is known when a node came to hold them.
HISTORY = 32


class NodeState(Enum):
    """Where a node stands. Refusing goes before behind."""

    SYNCED = "synced"  # connected, and holds the newest revision
    BEHIND = "behind"  # connected, and has not answered all of it yet
    REFUSING = "refusing"  # connected, and refuses a part; it goes on with what it had
    GONE = "gone"  # not connected any more

    # There is one of each; that of an Enum is not in C, and counts for much of what an event costs.
    __hash__ = object.__hash__


class ProgressState(Enum):
    """A node's part in one revision."""

    REFUSED = "refused"  # refused a part of it, or of something newer, and holds something older
    BEHIND = "behind"  # has not answered yet
    GONE = "gone"  # went away before it held it
    HOLDING = "holding"  # has ACKed all of it, or of a newer one; or all but what it refused before


@dataclass(frozen=True, slots=True)
class Refusal:
    """A NACK that stands."""

    type_url: str
    resources: tuple[str, ...]
    message: str  # the client's words
    revision: int  # that the response was of
    time: float
    # The newest revision that is known not to be held because of it; not below `revision`.
    stands_at: int


class HeldRevisions(NamedTuple):
    """Which revisions are held: all up to one, and a range of newer ones but for what was refused before them."""

    # Newest of which everything was ACKed; 0 before any.
    all_of: int = 0
    # Newest that is held at all, not below `all_of`; and what was refused is of revisions up to `since`.
    newest: int = 0
    since: int = 0

    def __contains__(self, revision: object) -> bool:
        assert isinstance(revision, int)
        return revision <= self.all_of or self.since < revision <= self.newest

    def after(self, event: Held | Settled) -> HeldRevisions:
        """What a stream holds that has reported one thing more."""
        if isinstance(event, Held):
            return HeldRevisions(event.revision, event.revision)
        return self if event.revision <= self.all_of else HeldRevisions(self.all_of, event.revision, event.since)

    @classmethod
    def common(cls, streams: Iterable[HeldRevisions]) -> HeldRevisions:
        """What all of several streams hold; of ranges that differ, the newest part."""
        every = tuple(streams)
        all_of, newest = min(h.all_of for h in every), min(h.newest for h in every)
        return cls(all_of, newest, max((h.since for h in every if h.all_of < newest), default=0))


@dataclass(slots=True, eq=False)
class _Stream:
    peer: str
    variant: str
    opened: float
    node: Node | None = None  # None until the client has said who it is
    audience: Audience = Audience()
    held: HeldRevisions = HeldRevisions()
    refused: dict[str, Refusal] = field(default_factory=dict)  # by type URL


@dataclass(slots=True, eq=False)
class Node:
    """One node. Times are seconds since the epoch. Read-only outside the fleet."""

    id: str
    cluster: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict, repr=False)
    user_agent: str = ""
    # Of its newest stream, also when that has ended.
    peer: str = ""
    locality: Locality = Locality()
    # Of the stream that was targeted last; they differ only while a client is not at one with itself.
    audience: Audience = Audience()
    note: str = ""
    # Sorted, none twice; of the streams that are open, and of the last ones once the node is gone.
    variants: tuple[str, ...] = ()
    # The least that any open stream holds: 0 from when a stream opens until it has ACKed everything. What it was at the end
    # once the node is gone.
    held_revision: int = 0
    # The same, with what is held but for older refusals.
    holds: HeldRevisions = HeldRevisions()
    # When the first of the open streams was opened; None when the node is gone.
    connect_time: float | None = None
    last_seen: float = 0.0
    # Ascending in both: (revision, when every stream first held it, be it but for older refusals). The newest HISTORY.
    history: list[tuple[int, float]] = field(default_factory=list)
    # Only open ones. With thousands of them, an event may have to look at each: not as a rule, since those that hold the same
    # are as one.
    open: dict[StreamId, _Stream] = field(default_factory=dict, repr=False)
    # How many of them refuse something.
    refusing: int = 0

    @property
    def connected(self) -> bool:
        return bool(self.open)

    @property
    def gateways(self) -> tuple[str, ...]:
        """Labels of those that select it, sorted."""
        return self.audience.gateways

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """NACKs that stand on open streams, by type, the newest first within one."""
        standing = [r for s in self.open.values() for r in s.refused.values()]
        return tuple(sorted(standing, key=lambda r: (r.type_url, -r.time)))

    def hold_time(self, revision: int) -> float | None:
        """When it first held `revision` or a newer one, as far back as is known; None when it never did."""
        at = bisect_left(self.history, (revision, 0.0))
        return self.history[at][1] if at < len(self.history) else None

    def common(self, before: HeldRevisions, alike: bool) -> HeldRevisions:
        """What all open streams hold. `alike`: it is what it was if another still holds `before`, which one held until now."""
        streams = self.open.values()
        # The newest one first: when all report the same thing, they do so in their order.
        if alike and any(s.held == before for s in reversed(streams)):
            return self.holds
        return HeldRevisions.common(s.held for s in streams)

    def note_held(self, now: float) -> None:
        """Remembers when it first held what it holds."""
        history, newest = self.history, self.holds.newest
        if newest > (history[-1][0] if history else 0):
            history.append((newest, now))
            if len(history) > HISTORY:
                del history[0]

    def progress(self, revision: int) -> ProgressState:
        """Its part in `revision`."""
        if revision in self.holds:
            return ProgressState.HOLDING
        if not self.open:
            return ProgressState.GONE
        refused = any(r.stands_at >= revision for s in self.open.values() for r in s.refused.values())
        return ProgressState.REFUSED if refused else ProgressState.BEHIND


class Fleet:
    """Every node that is connected, and those that were."""

    def __init__(self) -> None:
        # The newest revision that is served: what every connected node should hold.
        self.revision = 0
        # Nodes by standing; always what counting them would give.
        self.counts: dict[NodeState, int] = dict.fromkeys(NodeState, 0)
        # Connected nodes by what they are served; no zero counts.
        self.audiences: Counter[Audience] = Counter()
        self._nodes: dict[str, Node] = {}
        self._streams: dict[StreamId, _Stream] = {}
        # Ids of nodes that are gone, the longest gone first.
        self._gone: OrderedDict[str, None] = OrderedDict()
        # Connected nodes by what they hold; no zero counts.
        self._held: Counter[HeldRevisions] = Counter()

    @property
    def nodes(self) -> Mapping[str, Node]:
        """By id, in no particular order."""
        return self._nodes

    @property
    def connected(self) -> int:
        """How many nodes are connected."""
        return len(self._nodes) - self.counts[NodeState.GONE]

    @property
    def streams(self) -> int:
        """How many streams are open, those of clients that said nothing yet included."""
        return len(self._streams)

    def holding(self, revision: int) -> int:
        """How many connected nodes hold `revision` or a newer one, be it but for what they refused before."""
        return sum(n for held, n in self._held.items() if revision in held)

    def state_of(self, node: Node) -> NodeState:
        """Where a node stands."""
        if not node.open:
            return NodeState.GONE
        if node.refusing:
            return NodeState.REFUSING
        return NodeState.SYNCED if node.held_revision >= self.revision else NodeState.BEHIND

    def publish(self, revision: int) -> None:
        """A newer revision is served from now on; nobody holds it yet."""
        if revision > self.revision:
            self.revision = revision
            self.counts[NodeState.BEHIND] += self.counts[NodeState.SYNCED]
            self.counts[NodeState.SYNCED] = 0

    def apply(self, stream: StreamId, event: StreamEvent, now: float) -> None:
        """Folds in what a stream reported. What comes of a stream that is closed changes nothing."""
        if type(event) is Held and self._held_plainly(stream, event.revision, now):
            return
        if isinstance(event, StreamOpened):
            self._streams[stream] = _Stream(event.peer, event.variant, now)
            return
        if isinstance(event, Held | Settled):
            self.publish(event.revision)
        known = self._streams.get(stream)
        if known is None:
            return
        if isinstance(event, AudienceAssigned):
            self._target(known, event)
        elif isinstance(event, Identified) and event.id not in self._nodes:
            self._meet(stream, known, event, now)
        else:
            if isinstance(event, Identified):
                known.node = self._nodes[event.id]
            if known.node is not None:
                self._uncount(known.node)
                self._fold(stream, known, known.node, event, now)
                self._count(known.node)
            if isinstance(event, StreamClosed):
                del self._streams[stream]
        if self._gone:
            self._forget(now)

    def _held_plainly(self, stream: StreamId, revision: int, now: float) -> bool:
        """Folds in what a switch makes every stream report: that of a node, which refuses nothing, holds a revision.

        It comes to the same as `_fold`, for less. False, and nothing is done, where it is not so simple.
        """
        known = self._streams.get(stream)
        if known is None or (node := known.node) is None or node.refusing:
            return False
        if revision > self.revision:
            self.publish(revision)
        before, known.held = known.held, HeldRevisions(revision, revision)
        holds = known.held if len(node.open) == 1 else node.common(before, revision >= before.newest)
        newest = self.revision
        synced = holds.all_of >= newest
        if synced != (node.held_revision >= newest):
            more = 1 if synced else -1
            self.counts[NodeState.BEHIND] -= more
            self.counts[NodeState.SYNCED] += more
        if holds is not node.holds:
            _take(self._held, node.holds)
            self._held[holds] += 1
            node.holds = holds
            node.held_revision = holds.all_of
            node.note_held(now)
        node.last_seen = now
        if self._gone:
            self._forget(now)
        return True

    def _meet(self, stream: StreamId, known: _Stream, who: Identified, now: float) -> None:
        """Somebody new."""
        node = known.node = self._nodes[who.id] = Node(
            who.id, who.cluster, who.metadata, who.user_agent, known.peer, who.locality, variants=(known.variant,)
        )
        node.connect_time, node.last_seen = known.opened, now
        node.open[stream] = known
        self._count(node)

    def _target(self, known: _Stream, event: AudienceAssigned) -> None:
        """Our own doing: nothing was heard of the node."""
        known.audience = event.audience
        node = known.node
        if node is None:
            return
        if node.audience != event.audience:
            _take(self.audiences, node.audience)
            self.audiences[event.audience] += 1
        node.audience, node.note = event.audience, event.note

    def _fold(self, stream: StreamId, known: _Stream, node: Node, event: StreamEvent, now: float) -> None:
        before, refused = known.held, bool(known.refused)
        match event:
            case Held() | Settled():
                known.held = known.held.after(event)
            case Blocked(revision):
                for type_url, refusal in known.refused.items():
                    known.refused[type_url] = replace(refusal, stands_at=max(refusal.stands_at, revision))
                return
            case Identified():
                node.cluster, node.metadata = event.cluster, event.metadata
                node.user_agent, node.peer, node.locality = event.user_agent, known.peer, event.locality
                node.open[stream] = known
                self._gone.pop(node.id, None)
            case Refused(type_url) if (newer := known.refused.get(type_url)) and newer.revision > event.revision:
                pass  # what was refused before was tried again
            case Refused():
                words = (event.type_url, event.resources, event.message)
                known.refused[event.type_url] = Refusal(*words, event.revision, now, event.revision)
            case Recovered(type_url):
                known.refused.pop(type_url, None)
            case StreamClosed():
                del node.open[stream]
        closed = isinstance(event, StreamClosed)
        node.refusing += (bool(known.refused) and not closed) - refused
        node.last_seen = now
        if not node.open:
            node.connect_time = None
            self._gone[node.id] = None
            return
        if len(node.open) == 1 or (closed and (known.opened == node.connect_time or len(node.variants) > 1)):
            streams = node.open.values()
            node.connect_time = min(s.opened for s in streams)
            node.variants = tuple(sorted({s.variant for s in streams}))
        elif isinstance(event, Identified):
            node.connect_time = min(known.opened, node.connect_time or known.opened)
            if known.variant not in node.variants:
                node.variants = tuple(sorted((*node.variants, known.variant)))
        # A stream holds nothing when it says who it is.
        node.holds = (
            HeldRevisions() if isinstance(event, Identified) else node.common(before, not isinstance(event, Held | Settled))
        )
        node.held_revision = node.holds.all_of
        node.note_held(now)

    def _uncount(self, node: Node) -> None:
        if not node.open and node.id not in self._gone:
            return  # new: in no count yet
        self.counts[self.state_of(node)] -= 1
        if node.open:
            _take(self._held, node.holds)
            _take(self.audiences, node.audience)

    def _count(self, node: Node) -> None:
        self.counts[self.state_of(node)] += 1
        if node.open:
            self._held[node.holds] += 1
            self.audiences[node.audience] += 1

    def _forget(self, now: float) -> None:
        """Drops nodes that have been gone for too long, or are too many."""
        while self._gone:
            oldest = self._nodes[next(iter(self._gone))]
            if len(self._gone) <= GONE_NODES and now - oldest.last_seen <= GONE_SECONDS:
                return
            del self._gone[oldest.id], self._nodes[oldest.id]
            self.counts[NodeState.GONE] -= 1

    def unsynced_first(self) -> Iterator[Node]:
        """All nodes: refusing, behind, gone, synced; by id within each."""
        by_state: dict[NodeState, list[Node]] = {s: [] for s in NodeState}
        for node in self._nodes.values():
            by_state[self.state_of(node)].append(node)
        for standing in (NodeState.REFUSING, NodeState.BEHIND, NodeState.GONE, NodeState.SYNCED):
            yield from sorted(by_state[standing], key=lambda n: n.id)


def _take(counter: Counter[Any], key: object) -> None:
    """One less; nothing is left of a key at zero."""
    counter[key] -= 1
    if not counter[key]:
        del counter[key]

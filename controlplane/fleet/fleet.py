"""The fleet: a fold of the events of all xDS streams into the state of each node.

All clients that send the same id are one node. A node may have several streams. A stream holds a revision once the client has
ACKed all of it on that stream. A node holds a revision once all its open streams hold it.

Everything here is a fold of events: there is no I/O, and the time is an argument. The cost of an event does not depend on the
size of the fleet. Therefore each event updates the counts. They are always the same as if all nodes were counted.

`membership.py` defines which nodes count, and what done means.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from controlplane.fleet.counting import decrement
from controlplane.fleet.held_back import HeldBackNodes
from controlplane.fleet.held_revisions import HeldRevisions
from controlplane.fleet.members import RELEASED_NODES, Members
from controlplane.fleet.node import Node, NodeState, NodeStream, Refusal
from controlplane.snapshot import Audience
from controlplane.versions import VersionIndex
from controlplane.xds.events import (
    AudienceAssigned,
    Authenticated,
    Blocked,
    Claimed,
    Held,
    HeldBack,
    Identified,
    LastMessage,
    LoadReported,
    Recovered,
    Refused,
    ReporterIdentified,
    Settled,
    StreamClosed,
    StreamEvent,
    StreamId,
    StreamOpened,
)

# Constants for `_apply_held`, because the look-up of a member of an Enum is slow.
_SYNCED, _BEHIND, _RELEASED = NodeState.SYNCED, NodeState.BEHIND, NodeState.RELEASED
# Constants, too: `Held | Settled` makes a new object each time.
_MESSAGES, _PROGRESS = (LastMessage, ReporterIdentified, LoadReported), (Held, Settled)


class Fleet:
    """All nodes that are connected or known, and those that were released lately."""

    def __init__(self, versions: VersionIndex | None = None) -> None:
        """Make an empty fleet. `versions` says whether an unknown version is one of another history; None: it always is."""
        self._versions = versions if versions is not None else VersionIndex()
        # By the id of each node that came with a version which this history never made: the time of the newest such stream,
        # in the order of these times. At most RELEASED_NODES; the oldest is forgotten first.
        self.foreign: OrderedDict[str, float] = OrderedDict()
        self.held_back = HeldBackNodes()
        # The newest published revision, which every connected node should hold.
        self.revision = 0
        # Number of nodes in each state.
        self.counts: dict[NodeState, int] = dict.fromkeys(NodeState, 0)
        # Number of connected nodes of each audience; no zero counts.
        self.audiences: Counter[Audience] = Counter()
        self._nodes: dict[str, Node] = {}
        # Open streams. This is the only record in the process of which node a stream belongs to.
        self._streams: dict[StreamId, NodeStream] = {}
        # By open stream of load reports: the id of the client, which may be no node.
        self._reporters: dict[StreamId, str] = {}
        # The stream that closed last and its node, for observers that handle the StreamClosed after the fleet. None at first.
        self._last_closed: tuple[StreamId, Node | None] | None = None
        # The known and the released nodes.
        self.members = Members(self._nodes, self.counts)
        # Number of connected nodes by the revisions that they hold; no zero counts.
        self._held: Counter[HeldRevisions] = Counter()

    @property
    def nodes(self) -> Mapping[str, Node]:
        """Return all nodes by id, in no particular order."""
        return self._nodes

    @property
    def connected(self) -> int:
        """Return the number of connected nodes."""
        return len(self._nodes) - self.counts[NodeState.GONE] - self.counts[NodeState.RELEASED]

    @property
    def counted(self) -> int:
        """Return the number of nodes that count: those that are connected or known."""
        return len(self._nodes) - self.counts[NodeState.RELEASED]

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
        """Return the open streams of a node. An unknown node has none."""
        node = self._nodes.get(node_id)
        return node.streams.keys() if node is not None else ()

    def holding(self, revision: int) -> int:
        """Return the number of connected nodes whose `holds` contains `revision`."""
        return sum(n for held, n in self._held.items() if revision in held)

    def is_done(self, revision: int, *, connected_only: bool = False) -> bool:
        """Return True if every node that counts holds `revision`, and each gateway has as many nodes as it expects.

        With `connected_only`, only connected nodes count, and no gateway expects any. The cost does not depend on the size of
        the fleet.
        """
        if self.holding(revision) < self.connected:
            return False
        if connected_only:
            return True
        if self.members.gone_holding(revision) < self.counts[NodeState.GONE]:
            return False
        return all(e.counted >= e.expected for e in self.members.expected(self.audiences))

    def state_of(self, node: Node) -> NodeState:
        """Return a node's state, compared with the newest revision. While there is no revision, connected nodes are BEHIND."""
        if not node.streams:
            return NodeState.GONE if node.known else NodeState.RELEASED
        if node.refusing:
            return NodeState.REFUSING
        return NodeState.SYNCED if node.holds.all_of >= (self.revision or 1) else NodeState.BEHIND

    def unsynced_first(self) -> Iterator[Node]:
        """Yield all nodes in the order refusing, behind, gone, synced, released, and within a state sorted by id."""
        by_state: dict[NodeState, list[Node]] = {state: [] for state in NodeState}
        for node in self._nodes.values():
            by_state[self.state_of(node)].append(node)
        for state in (NodeState.REFUSING, NodeState.BEHIND, NodeState.GONE, NodeState.SYNCED, NodeState.RELEASED):
            yield from sorted(by_state[state], key=lambda n: n.id)

    def publish(self, revision: int) -> None:
        """Expect every connected node to hold `revision` from now on. If it is older than the newest, do nothing."""
        if revision > self.revision:
            self.revision = revision
            self.counts[NodeState.BEHIND] += self.counts[NodeState.SYNCED]
            self.counts[NodeState.SYNCED] = 0

    def apply(self, stream: StreamId, event: StreamEvent, now: float) -> None:
        """Apply an event of a stream. Events of a stream that is not open change nothing."""
        if type(event) is Held and self._apply_held(stream, event.revision, now):
            return
        if isinstance(event, _MESSAGES):
            self._note_message(stream, event, now)
            return
        if type(event) is Claimed:
            self._note_claim(stream, event, now)
            return
        if type(event) is HeldBack:
            if (held_back := self.node_of(stream)) is not None:
                self.held_back.note(held_back.id, stream, event)
            return
        if isinstance(event, StreamOpened):
            self._streams[stream] = NodeStream(event.peer, event.variant, now)
            return
        if isinstance(event, _PROGRESS):
            self.publish(event.revision)
        opened = self._streams.get(stream)
        if opened is None:
            return
        if isinstance(event, AudienceAssigned):
            self._assign_audience(opened, event)
        elif isinstance(event, Authenticated):
            opened.identity = event
        elif isinstance(event, Identified) and event.id not in self._nodes:
            self._add_node(stream, opened, event, now)
        else:
            if isinstance(event, Identified):
                opened.node = self._nodes[event.id]
            if opened.node is not None:
                self._count(opened.node, -1)
                self._fold(stream, opened, opened.node, event, now)
                self._count(opened.node, 1)
                self.members.identities.update(opened.node)
            if isinstance(event, StreamClosed):
                if opened.node is not None:
                    self.held_back.closed(opened.node.id, stream)
                del self._streams[stream]
                self._reporters.pop(stream, None)
                self._last_closed = stream, opened.node
        if self.counts[_RELEASED]:
            self.members.drop_released(now)

    def _apply_held(self, stream: StreamId, revision: int, now: float) -> bool:
        """Apply Held for a node that refuses nothing. This is the event that every stream reports after a switch.

        The result is the same as with `_fold`, at a lower cost. For any other node, do nothing and return False.
        """
        opened = self._streams.get(stream)
        if opened is None or (node := opened.node) is None or node.refusing:
            return False
        if revision > self.revision:
            self.publish(revision)
        before, opened.held = opened.held, HeldRevisions(revision, revision)
        opened.claims = None
        holds = opened.held if len(node.streams) == 1 else node.common_holds(before, revision >= before.newest)
        newest = self.revision
        synced = holds.all_of >= newest
        if synced != (node.holds.all_of >= newest):
            change = 1 if synced else -1
            self.counts[_BEHIND] -= change
            self.counts[_SYNCED] += change
        if holds is not node.holds:
            decrement(self._held, node.holds)
            self._held[holds] += 1
            node.holds = holds
            node.note_held(now)
            if not node.known:
                self.members.acked(node)
        node.last_seen = now
        return True

    def _add_node(self, stream: StreamId, opened: NodeStream, event: Identified, now: float) -> None:
        node = opened.node = self._nodes[event.id] = Node(
            event.id, event.cluster, event.metadata, event.user_agent, opened.peer, event.locality, variants=(opened.variant,)
        )
        node.connect_time, node.first_seen, node.last_seen = opened.opened, now, now
        node.streams[stream] = opened
        node.authenticate(opened.identity)
        self._count(node, 1)
        self.members.identities.update(node)

    def _note_message(self, stream: StreamId, event: LastMessage | ReporterIdentified | LoadReported, now: float) -> None:
        """Record when a node's last message came. A load report is a message, too."""
        if isinstance(event, ReporterIdentified):
            self._reporters[stream] = event.node
        node = self.node_of(stream) if isinstance(event, LastMessage) else self._nodes.get(self._reporters.get(stream, ""))
        if node is not None:
            node.last_seen = max(node.last_seen, now - event.ago if isinstance(event, LastMessage) else now)

    def _assign_audience(self, opened: NodeStream, event: AudienceAssigned) -> None:
        """Record the audience of a stream. `last_seen` does not change, because the client did nothing."""
        opened.audience = event.audience
        node = opened.node
        if node is None:
            return
        if node.audience != event.audience:
            decrement(self.audiences, node.audience)
            self.audiences[event.audience] += 1
        node.audience, node.note = event.audience, event.note
        self.members.identities.update(node)

    def _note_claim(self, stream: StreamId, event: Claimed, now: float) -> None:
        opened = self._streams.get(stream)
        if opened is None or (node := opened.node) is None:
            return
        if opened.claims is None:
            opened.claims = {}
        opened.claims[event.type_url] = event
        node.last_seen = now
        version = event.unknown_version
        # A worker process gets new entries of the index later than this process, so the version is looked up here, too.
        if version and self._versions.is_trusted(now) and not self._versions.has(event.type_url, version):
            self.foreign[node.id] = now
            self.foreign.move_to_end(node.id)
            if len(self.foreign) > RELEASED_NODES:
                self.foreign.popitem(last=False)

    def _fold(self, stream: StreamId, opened: NodeStream, node: Node, event: StreamEvent, now: float) -> None:
        """Apply an event to a stream and to its node. The caller has counted the node out, and counts it in again."""
        before, was_refusing = opened.held, bool(opened.refused)
        match event:
            case Held() | Settled():
                opened.held, opened.claims = opened.held.after(event), None
            case Blocked(revision):
                for type_url, refusal in opened.refused.items():
                    opened.refused[type_url] = replace(refusal, blocked_up_to=max(refusal.blocked_up_to, revision))
                return
            case Identified():
                node.cluster, node.metadata = event.cluster, event.metadata
                node.user_agent, node.peer, node.locality = event.user_agent, opened.peer, event.locality
                node.streams[stream] = opened
                node.authenticate(opened.identity)
                if node.known:
                    self.members.unsaved[node.id] = None
            case Refused(type_url) if (newer := opened.refused.get(type_url)) and newer.revision > event.revision:
                pass  # resources that the client had refused earlier were sent again
            case Refused():
                content = (event.type_url, event.resources, event.message)
                opened.refused[event.type_url] = Refusal(*content, event.revision, now, event.revision)
            case Recovered(type_url):
                opened.refused.pop(type_url, None)
            case StreamClosed():
                del node.streams[stream]
        closed = isinstance(event, StreamClosed)
        node.refusing += (bool(opened.refused) and not closed) - was_refusing
        if not closed:
            node.last_seen = now
        if not node.streams:
            node.connect_time = None
            self.members.left(node, now)
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
            HeldRevisions() if isinstance(event, Identified) else node.common_holds(before, not isinstance(event, _PROGRESS))
        )
        node.note_held(now)
        if not node.known:
            self.members.acked(node)

    def _count(self, node: Node, change: int) -> None:
        """Count a node in (1) or out (-1)."""
        self.counts[self.state_of(node)] += change
        if not node.streams:
            if change < 0:
                self.members.returned(node)
        elif change > 0:
            self._held[node.holds] += 1
            self.audiences[node.audience] += 1
        else:
            decrement(self._held, node.holds)
            decrement(self.audiences, node.audience)

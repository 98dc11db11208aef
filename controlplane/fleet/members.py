"""The nodes that are known, gone or released, with their counts: a part of the fleet.

The fleet calls `acked`, `left` and `returned` after events. The time is an argument: the caller calls `release` at
`next_release`.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from heapq import heapify, heappop, heappush

from controlplane.domain import Gateway
from controlplane.fleet.counting import decrement
from controlplane.fleet.held_revisions import HeldRevisions
from controlplane.fleet.identities import IdentityCounts
from controlplane.fleet.membership import (
    MAX_REMEMBERED,
    ExpectedNodes,
    RememberedNode,
    absence_at_start,
    absence_limit,
    can_be_remembered,
    selecting,
)
from controlplane.fleet.node import Node, NodeState
from controlplane.snapshot import Audience

# A node that was released stays listed for at most this long. At most RELEASED_NODES such nodes stay listed.
RELEASED_SECONDS = 24 * 3600.0
RELEASED_NODES = 10_000


class Members:
    """The known nodes, and those that were released lately."""

    def __init__(self, nodes: dict[str, Node], counts: dict[NodeState, int]) -> None:
        """Keep the members of `nodes`. `counts` has the number of nodes in each state."""
        self._nodes = nodes
        self._counts = counts
        # Number of known nodes; at most MAX_REMEMBERED.
        self.known = 0
        # Number of connected nodes that hold a revision and are not known, because they can't be remembered.
        self.not_remembered = 0
        # Time of the newest `restore`; None before the first one.
        self.restore_time: float | None = None
        # Ids of nodes whose record may be out of date: nodes to store, and nodes to delete from the store.
        self.unsaved: dict[str, None] = {}
        self._gateways: Mapping[str, Gateway] = {}
        # Gone nodes by the revisions that they hold, and by audience; no zero counts.
        self._held: Counter[HeldRevisions] = Counter()
        self._audiences: Counter[Audience] = Counter()
        # (time, id): a heap. It has an entry for each gone node, and entries that are out of date.
        self._due: list[tuple[float, str]] = []
        self.identities = IdentityCounts()
        # Ids of released nodes, in the order of their release.
        self._released: OrderedDict[str, None] = OrderedDict()

    # ------------------------------------------------------------------------------------------------------ for the fleet

    def acked(self, node: Node) -> None:
        """Handle an ACK of a connected node: make it known, if it holds a revision and can be remembered."""
        if not node.holds.newest or node.known:
            return
        if self.known < MAX_REMEMBERED and can_be_remembered(node):
            node.known = True
            self.known += 1
            self.unsaved[node.id] = None
            self._set_remembered(node, True)
        else:
            self._set_remembered(node, False)

    def left(self, node: Node, now: float) -> None:
        """Handle the end of a node's last stream: a known node is gone, any other is released."""
        node.gone_since = now
        self._set_remembered(node, True)
        if node.known:
            self.unsaved[node.id] = None
            self._await_return(node)
        else:
            node.release_time = now
            self._released[node.id] = None

    def returned(self, node: Node) -> None:
        """Handle the first stream of a node that was gone or released."""
        if node.known:
            self._count(node, -1)
        else:
            self._released.pop(node.id, None)
        node.gone_since = node.release_time = None
        node.restored = False

    def gone_holding(self, revision: int) -> int:
        """Return the number of gone nodes that hold a revision."""
        return sum(n for held, n in self._held.items() if revision in held)

    def drop_released(self, now: float) -> None:
        """Drop the nodes that were released more than RELEASED_SECONDS ago, and the oldest of more than RELEASED_NODES."""
        while self._released:
            oldest = self._nodes[next(iter(self._released))]
            if len(self._released) <= RELEASED_NODES and now - (oldest.release_time or 0.0) <= RELEASED_SECONDS:
                return
            self._remove(oldest)

    # -------------------------------------------------------------------------------------------------------- for others

    def set_gateways(self, gateways: Mapping[str, Gateway]) -> None:
        """Use the selectors and times of these gateways from now on."""
        self._gateways = gateways
        self._held.clear()
        self._audiences.clear()
        self._due.clear()
        for node in self._nodes.values():
            if node.known and not node.connected:
                self._find_gateways(node)
                self._await_return(node)

    @property
    def next_release(self) -> float | None:
        """Return the time at which `release` must be called, or None while no node is gone."""
        while self._due and not self._is_due(*self._due[0]):
            heappop(self._due)
        return self._due[0][0] if self._due else None

    def release(self, now: float) -> list[Node]:
        """Release the gone nodes whose time has come, and return them."""
        released = []
        while (due := self.next_release) is not None and due <= now:
            node = self._nodes[heappop(self._due)[1]]
            self._count(node, -1)
            self._forget(node)
            self._counts[NodeState.GONE] -= 1
            self._counts[NodeState.RELEASED] += 1
            self._released[node.id] = None
            released.append(node)
        return released

    def restore(self, nodes: Iterable[RememberedNode], now: float) -> None:
        """Add the nodes that an earlier process remembered. They are gone until they connect. Call it at the start."""
        self.restore_time = now
        nodes = list(nodes)[:MAX_REMEMBERED]
        this_hour = int(now // 3600)
        newest = max((min(n.last_seen_hour, this_hour) for n in nodes), default=0)
        for one in nodes:
            if one.id in self._nodes:
                continue
            node = Node(one.id, one.cluster, locality=one.locality, audience=Audience(client=one.client))
            node.first_seen, node.last_seen = float(one.first_seen), one.last_seen_hour * 3600.0
            node.identity, node.shared_identity = one.identity, one.shared_identity
            node.known = node.restored = True
            node.gone_since = now - absence_at_start(one.last_seen_hour, newest)
            self._nodes[node.id] = node
            self.known += 1
            self._counts[NodeState.GONE] += 1
            self._find_gateways(node)
            self._await_return(node)

    def forget(self, ids: Iterable[str]) -> None:
        """Remove nodes that are not connected. Unknown ids and connected nodes stay as they are."""
        for node_id in ids:
            node = self._nodes.get(node_id)
            if node is None or node.connected:
                continue
            if node.known:
                self._count(node, -1)
                self._forget(node)
                self._counts[NodeState.GONE] -= 1
                self._counts[NodeState.RELEASED] += 1
            self._remove(node)

    def expected(self, connected: Mapping[Audience, int]) -> list[ExpectedNodes]:
        """Return the gateways that expect a number of nodes, by label. `connected` has the connected nodes by audience."""
        return [
            ExpectedNodes(
                label,
                gateway.expected_nodes,
                sum(n for audiences in (connected, self._audiences) for a, n in audiences.items() if label in a.gateways)
                - self.identities.surplus[label],
            )
            for label, gateway in sorted(self._gateways.items())
            if gateway.expected_nodes
        ]

    def note_hour(self) -> None:
        """Mark the connected nodes as unsaved: they were seen in a new hour."""
        self.unsaved |= {node.id: None for node in self._nodes.values() if node.known and node.connected}

    # ------------------------------------------------------------------------------------------------------------- inside

    def _find_gateways(self, node: Node) -> None:
        node.audience = replace(node.audience, gateways=selecting(node, self._gateways))

    def _await_return(self, node: Node) -> None:
        """Count a gone node, and compute the time of its release."""
        assert node.gone_since is not None
        node.release_time = node.gone_since + absence_limit(node.audience.gateways, self._gateways)
        self._count(node, 1)
        self.identities.update(node)
        heappush(self._due, (node.release_time, node.id))
        if len(self._due) > 2 * self.known + 64:  # most entries are out of date
            self._due = [entry for entry in self._due if self._is_due(*entry)]
            heapify(self._due)

    def _is_due(self, time: float, node_id: str) -> bool:
        """Return True if an entry of the heap is not out of date."""
        node = self._nodes.get(node_id)
        return node is not None and node.known and node.release_time == time

    def _count(self, node: Node, change: int) -> None:
        """Count a gone node in (1) or out (-1)."""
        if change > 0:
            self._held[node.holds] += 1
            self._audiences[node.audience] += 1
        else:
            decrement(self._held, node.holds)
            decrement(self._audiences, node.audience)

    def _forget(self, node: Node) -> None:
        """Make a known node unknown."""
        node.known = False
        self.known -= 1
        self.unsaved[node.id] = None
        self.identities.update(node)

    def _remove(self, node: Node) -> None:
        """Remove a released node."""
        self._released.pop(node.id, None)
        self._counts[NodeState.RELEASED] -= 1
        del self._nodes[node.id]

    def _set_remembered(self, node: Node, value: bool) -> None:
        self.not_remembered += node.remembered - value
        node.remembered = value

"""The nodes by their audience, under the gateways of any state. The impact of a change needs them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from controlplane.compiler import audience
from controlplane.compiler.least_versions import Outdated, new_needs, older_nodes, outdated
from controlplane.domain.revision import Head
from controlplane.domain.state import State
from controlplane.fleet import Fleet, Node
from controlplane.observers import Handler, Observer
from controlplane.snapshot import Audience
from controlplane.xds.events import Identified, StreamClosed, StreamId


class AudienceCounts(Observer):
    """Counts connected nodes by audience.

    A stream reports its audience when it gets a new revision. With worker processes this takes a moment. So the reported
    audience is used only for nodes that hold a revision with the current gateways. For other nodes it is computed.
    """

    def __init__(self, fleet: Fleet) -> None:
        """Count the nodes of `fleet`."""
        self._fleet = fleet
        self._head = Head()
        # The first revision with the gateways of `_head`. Nodes that hold it or a newer one have reported their audience.
        self._gateways_since = 0
        # By node id: audiences that were computed with the gateways of `_head`. At most one for each connected node.
        self._computed: dict[str, Audience] = {}

    def handlers(self) -> Mapping[type, Handler]:
        """Return the events after which a node's audience must be computed again."""
        return {Identified: self._on_identified, StreamClosed: self._on_closed}

    def publish(self, head: Head) -> None:
        """Count by the gateways of `head` from now on."""
        if head.state.gateways != self._head.state.gateways:
            self._gateways_since = head.number
            self._computed.clear()
        self._head = head

    def by_audience(self, state: State) -> Mapping[Audience, int]:
        """Return the number of connected nodes of each audience under `state`; audiences without a node are left out."""
        nodes = (n for n in self._fleet.nodes.values() if n.connected)
        if state.gateways != self._head.state.gateways:
            return Counter(audience(state, n) for n in nodes)
        counts, since = Counter(self._fleet.audiences), self._gateways_since
        if self._fleet.holding(since) < self._fleet.connected:
            for node in (n for n in nodes if since not in n.holds):
                counts[node.audience] -= 1
                counts[self._current_audience(node)] += 1
        return +counts

    def variants(self) -> Mapping[Audience, set[str]]:
        """Return the variants of xDS that the connected nodes of each audience use; nothing if all use delta."""
        nodes = self._fleet.nodes.values()
        if not any("sotw" in n.variants for n in nodes):
            return {}
        # By identity first, because a fleet has many nodes and few audiences, whose hash is slow.
        pairs = {(id(n.audience), n.variants): n.audience for n in nodes if n.connected}
        used: dict[Audience, set[str]] = {}
        for (_, variants), shared in pairs.items():
            used.setdefault(shared, set()).update(variants)
        return used

    def outdated(self, before: Head, after: State) -> Sequence[Outdated]:
        """Return the connected nodes that are too old for what they would need under a state and did not need before."""
        needed = new_needs(before.state, after)
        if not needed:
            return ()
        nodes = older_nodes(n for n in self._fleet.nodes.values() if n.connected)
        return outdated(needed, ((node, audience(after, node)) for node in nodes))

    def _audience(self, node: Node, state: State) -> Audience:
        """Return the audience of a connected node under a state, without computing it if the node reported it."""
        if state.gateways is not self._head.state.gateways:
            return audience(state, node)
        return node.audience if self._gateways_since in node.holds else self._current_audience(node)

    def _current_audience(self, node: Node) -> Audience:
        """Return the computed audience of a connected node under the newest published state."""
        if node.id not in self._computed:
            self._computed[node.id] = audience(self._head.state, node)
        return self._computed[node.id]

    def _on_identified(self, stream: StreamId, event: Identified, now: float) -> None:
        self._computed.pop(event.id, None)

    def _on_closed(self, stream: StreamId, event: StreamClosed, now: float) -> None:
        node = self._fleet.node_of(stream)
        if node is not None and not node.connected:
            self._computed.pop(node.id, None)

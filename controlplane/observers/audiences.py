"""The nodes by their audience, under the gateways of any state. The impact of a change needs them."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from controlplane.compiler import audience
from controlplane.compiler.reach import NOTHING_HELD, Claim, Transition
from controlplane.domain.revision import Head
from controlplane.domain.state import State
from controlplane.envoy_types import LISTENER
from controlplane.fleet import Fleet, Node
from controlplane.observers import Handler, Observer
from controlplane.snapshot import Audience
from controlplane.xds.events import Identified, StreamClosed, StreamId

# Seconds after a start in which remembered nodes are expected back. An Envoy waits up to 30 s before it connects again.
RETURN_SECONDS = 60.0


class AudienceCounts(Observer):
    """Counts connected nodes by audience.

    A control plane that has just started has no connected nodes yet, and must not miss what a change cuts because of that. So
    for RETURN_SECONDS the transitions include the remembered nodes that have not connected yet: they serve what they had.

    A stream reports its audience when it gets a new revision. With worker processes this takes a moment. So the reported
    audience is used only for nodes that hold a revision with the current gateways. For other nodes it is computed.
    """

    def __init__(self, fleet: Fleet, clock: Callable[[], float] = time.time) -> None:
        """Count the nodes of `fleet`. `clock` returns seconds since the epoch."""
        self._fleet = fleet
        self._clock = clock
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

    def transitions(self, before: Head, after: State) -> Collection[Transition]:
        """Return the transitions that connected and awaited nodes would make from one state to another."""
        if self._head.number and before.state.gateways == after.gateways and not self._held_back(before):
            return {(a, a) for a in (*self.by_audience(after), *(_remembered_audience(after, n) for n in self._awaited()))}
        return {transition for _, transition in self._transitions(before, after)}

    def nodes_of(self, transitions: Collection[Transition], before: Head, after: State) -> Mapping[Transition, list[str]]:
        """Return the ids of the connected nodes of each of these transitions. Transitions without a node are left out."""
        ids: dict[Transition, list[str]] = {}
        for node, transition in self._transitions(before, after):
            if transition in transitions:
                ids.setdefault(transition, []).append(node.id)
        return ids

    def refused_listeners(self) -> Mapping[str, Sequence[tuple[int, frozenset[str]]]]:
        """Return the listeners that connected nodes refuse: by the node's id, the refused revisions and their addresses.

        A refused response may contain other listeners, which Envoy accepted. So only listeners that its message names count.
        """
        refused: dict[str, list[tuple[int, frozenset[str]]]] = {}
        for node in self._fleet.nodes.values():
            for refusal in node.refusals if node.refusing else ():
                if refusal.type_url == LISTENER:
                    named = frozenset(name for name in refusal.resources if _is_named(name, refusal.message))
                    refused.setdefault(node.id, []).append((refusal.revision, named))
        return refused

    def _transitions(self, before: Head, after: State) -> Iterator[tuple[Node, Transition]]:
        """Yield each connected and awaited node with its transition from one state to another."""
        same_gateways = before.state.gateways == after.gateways
        held_back = self._held_back(before)
        for node in self._fleet.nodes.values():
            if not node.connected:
                continue
            if not self._head.number or node.id in held_back:
                claims = node.claims
                claim = NOTHING_HELD if claims is None else Claim(claims.listeners, claims.scopes, claims.routes)
                yield node, (claim, audience(after, node))
                continue
            old = self._audience(node, before.state)
            yield node, (old, old if same_gateways else audience(after, node))
        if self._head.number:
            for node in self._awaited():
                yield node, (_remembered_audience(before.state, node), _remembered_audience(after, node))

    def _held_back(self, before: Head) -> Collection[str]:
        """Return the ids of the nodes that are held back at this revision: they hold what they claim."""
        return self._fleet.held_back.all(max(before.number, self._head.number))

    def _awaited(self) -> list[Node]:
        """Return the remembered nodes that are expected back, because the control plane has just started."""
        since = self._clock() - RETURN_SECONDS
        nodes = self._fleet.nodes.values()
        return [n for n in nodes if n.restored and n.known and n.gone_since is not None and n.gone_since > since]

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


def _remembered_audience(state: State, node: Node) -> Audience:
    """Return the audience of a node that has not connected since the start. Its metadata is not known."""
    return replace(audience(state, node), client=node.audience.client)


def _is_named(address: str, message: str) -> bool:
    """Return True if a text names an address, and not only a longer one that contains it."""
    return re.search(rf"(?<![\w.:]){re.escape(address)}(?!\w)", message) is not None

"""The transitions of nodes: what each holds before a change and would hold after it. The check for cut traffic needs them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from controlplane.compiler import audience
from controlplane.compiler.reach import NOTHING_HELD, Claim, Transition
from controlplane.domain.revision import Head
from controlplane.domain.state import State
from controlplane.envoy_types import LISTENER
from controlplane.fleet import Claims, Fleet, Node
from controlplane.observers.audiences import AudienceCounts
from controlplane.snapshot import Audience

# Seconds after a start in which remembered nodes are expected back. An Envoy waits up to 30 s before it connects again.
RETURN_SECONDS = 60.0


class NodeTransitions(AudienceCounts):
    """Finds the transition of each node: its audience before and after a change.

    A control plane that has just started has no connected nodes yet, and must not miss what a change cuts because of that. So
    for RETURN_SECONDS the transitions include the remembered nodes that have not connected yet: they serve what they had.
    """

    def __init__(self, fleet: Fleet, clock: Callable[[], float] = time.time) -> None:
        """Take the nodes of `fleet`. `clock` returns seconds since the epoch."""
        super().__init__(fleet)
        self._clock = clock

    def transitions(self, before: Head, after: State) -> Collection[Transition]:
        """Return the transitions that connected and awaited nodes would make from one state to another."""
        if self._head.number and before.state.gateways == after.gateways:
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
        """Yield each connected and awaited node with its transition from one state to another.

        A node that is held back loses nothing by any change, so it is left out.
        """
        same_gateways = before.state.gateways == after.gateways
        for node in self._fleet.nodes.values():
            if not node.connected or node.id in self._fleet.held_back:
                continue
            if not self._head.number:
                claims = node.claims
                yield node, (NOTHING_HELD if claims is None else _claim(claims), audience(after, node))
                continue
            old = self._audience(node, before.state)
            yield node, (old, old if same_gateways else audience(after, node))
        if self._head.number:
            for node in self._awaited():
                yield node, (_remembered_audience(before.state, node), _remembered_audience(after, node))

    def _awaited(self) -> list[Node]:
        """Return the remembered nodes that are expected back, because the control plane has just started."""
        since, restore_time = self._clock() - RETURN_SECONDS, self._fleet.members.restore_time
        if restore_time is None or restore_time <= since:
            return []
        nodes = self._fleet.nodes.values()
        return [n for n in nodes if n.restored and n.known and n.gone_since is not None and n.gone_since > since]


def _claim(claims: Claims) -> Claim:
    return Claim(claims.listeners, claims.scopes, claims.routes, claims.held_versions)


def _remembered_audience(state: State, node: Node) -> Audience:
    """Return the audience of a node that has not connected since the start. Its metadata is not known."""
    return replace(audience(state, node), client=node.audience.client)


def _is_named(address: str, message: str) -> bool:
    """Return True if a text names an address, and not only a longer one that contains it."""
    return re.search(rf"(?<![\w.:]){re.escape(address)}(?!\w)", message) is not None

"""Connected nodes without a fleet, for tests of the writer and of the API."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from controlplane.compiler import audience
from controlplane.compiler.least_versions import Outdated, new_needs, outdated
from controlplane.compiler.reach import Claim, Transition
from controlplane.domain.revision import Head
from controlplane.domain.state import State
from controlplane.fleet import Node
from controlplane.snapshot import Audience
from controlplane.writer import ConnectedNodes, NoNodes


@dataclass
class CountedNodes(NoNodes):
    """Nodes that are only counted, and that lose nothing by any change."""

    count: Callable[[State], Mapping[Audience, int]]

    def by_audience(self, state: State) -> Mapping[Audience, int]:
        return self.count(state)


@dataclass
class FakeNodes(ConnectedNodes):
    """Nodes of a test. They hold the newest revision, or what `claims` says by the id of the node."""

    nodes: list[Node] = field(default_factory=list)
    claims: dict[str, Claim] = field(default_factory=dict)
    refused: dict[str, list[tuple[int, frozenset[str]]]] = field(default_factory=dict)

    def by_audience(self, state: State) -> Mapping[Audience, int]:
        audiences = [audience(state, node) for node in self.nodes]
        return {a: audiences.count(a) for a in audiences}

    def variants(self) -> Mapping[Audience, Collection[str]]:
        return {}

    def transitions(self, before: Head, after: State) -> Collection[Transition]:
        return {self._transition(node, before, after) for node in self.nodes}

    def nodes_of(self, transitions: Collection[Transition], before: Head, after: State) -> Mapping[Transition, list[str]]:
        ids: dict[Transition, list[str]] = {}
        for node in self.nodes:
            if (transition := self._transition(node, before, after)) in transitions:
                ids.setdefault(transition, []).append(node.id)
        return ids

    def _transition(self, node: Node, before: Head, after: State) -> Transition:
        return self.claims.get(node.id) or audience(before.state, node), audience(after, node)

    def refused_listeners(self) -> Mapping[str, Sequence[tuple[int, frozenset[str]]]]:
        return self.refused

    def outdated(self, before: Head, after: State) -> Sequence[Outdated]:
        return outdated(new_needs(before.state, after), ((node, audience(after, node)) for node in self.nodes))

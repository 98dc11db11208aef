"""Filters: the problems and nodes that a caller asks for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from controlplane.fleet import Fleet, Node, NodeState
from controlplane.problems.nodes import models_of
from controlplane.problems.reasons import About, Problem


@dataclass(frozen=True, slots=True)
class Selection:
    """The filters of one call. An empty part selects everything."""

    models: frozenset[str] = frozenset()  # labels
    states: frozenset[NodeState] = frozenset()
    # In lower case: a part of a problem's text, or of what a node says when it refuses.
    error: str = ""
    ignored_reasons: frozenset[str] = frozenset()

    def problems(self, problems: Iterable[Problem], fleet: Fleet) -> list[Problem]:
        """Return the selected problems, in their order."""
        return [p for p in problems if self._selects(p, fleet)]

    def nodes(self, fleet: Fleet) -> Iterator[Node]:
        """Yield the selected nodes, the worst state first. Those in sync or released must be asked for by their state."""
        states = self.states or frozenset(NodeState) - {NodeState.SYNCED, NodeState.RELEASED}
        for node in fleet.unsynced_first():
            if fleet.state_of(node) in states and self._matches(node):
                yield node

    def _selects(self, problem: Problem, fleet: Fleet) -> bool:
        if problem.reason.name in self.ignored_reasons or self.error not in problem.text.lower():
            return False
        if self.models and problem.reason.about is not About.SERVER and not self.models.intersection(problem.models):
            return False
        known = (fleet.nodes[i] for i in problem.nodes if i in fleet.nodes)
        return not self.states or any(fleet.state_of(node) in self.states for node in known)

    def _matches(self, node: Node) -> bool:
        refusals = node.refusals
        if self.error and not any(self.error in r.message.lower() for r in refusals):
            return False
        return not self.models or any(self.models.intersection(models_of(r.type_url, r.resources)) for r in refusals)

"""Problems of nodes: those that refuse something, are behind, or are gone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from controlplane.compiler.decode import is_gateways_own
from controlplane.compiler.least_versions import needs, older_nodes, outdated
from controlplane.domain.state import State
from controlplane.envoy_types import CLUSTER, ENDPOINTS, ROUTES, short_name
from controlplane.fleet import Fleet, Node, NodeState
from controlplane.fleet.held_back import lost_in_words
from controlplane.problems.reasons import REASONS, Problem

# A node may take this long to ACK a new revision, or everything after it connected, before it counts as behind. Seconds.
PATIENCE = 10.0

# If a node came with versions which this history never made, that is a problem for this time. Seconds.
FOREIGN_SHOWN = 3600.0

# Nodes and resources that a sentence names; the others are counted.
_NAMED = 3
# Characters of a node's id in a sentence. Clients choose their ids.
_ID = 60
# Types whose resources have names that begin with the label of their model.
_BY_MODEL = (CLUSTER, ENDPOINTS, ROUTES)


@dataclass(slots=True)
class _Refused:
    """The nodes that refuse the same resources with the same message."""

    nodes: list[str] = field(default_factory=list)
    newest_revision: int = 0


def node_problems(fleet: Fleet, published: float, now: float) -> Iterator[Problem]:
    """Yield the problems of nodes. `published` is the time of the newest revision. Times are seconds since the epoch."""
    by_state: dict[NodeState, list[Node]] = {state: [] for state in NodeState}
    for node in fleet.nodes.values():
        by_state[fleet.state_of(node)].append(node)
    yield from _refusals(by_state[NodeState.REFUSING])
    behind = by_state[NodeState.BEHIND] if fleet.revision else []
    held_back = fleet.held_back.all()
    behind = [n for n in behind if n.id not in held_back]
    late = [n for n in behind if now - max(published, n.connect_time or 0.0) > PATIENCE]
    if ids := tuple(sorted(n.id for n in late)):
        have, hold = ("has", "holds") if len(ids) == 1 else ("have", "hold")
        oldest = min(n.held_revision for n in late)
        text = f"{named(ids)} {have} not ACKed all of revision {fleet.revision} yet, and {hold} revision {oldest}"
        yield Problem(REASONS["NODES_BEHIND"], text + (" or a newer one" if len(ids) > 1 else ""), nodes=ids)
    if ids := tuple(sorted(n.id for n in by_state[NodeState.GONE])):
        yield Problem(REASONS["NODES_GONE"], f"{named(ids)} {'is' if len(ids) == 1 else 'are'} not connected", nodes=ids)
    yield from _counts(fleet)
    if fleet.revision:
        yield from _noted(n for n in fleet.nodes.values() if n.note and n.connected)
    yield from _held_back(fleet)
    foreign = ((i, time) for i, time in fleet.foreign.items() if i not in held_back)
    if ids := tuple(sorted(i for i, time in foreign if fleet.revision and now - time < FOREIGN_SHOWN)):
        text = f"{named(ids)} came with versions that this history never made, and got revision {fleet.revision} instead"
        yield Problem(REASONS["FOREIGN_VERSIONS"], text, nodes=ids)
    if fleet.revision and not fleet.connected:
        yield Problem(REASONS["NO_NODES"], "no Envoy is connected")


def _held_back(fleet: Fleet) -> Iterator[Problem]:
    """Yield one problem for each set of things that held-back nodes would lose."""
    by_lost: dict[str, list[str]] = {}
    for node_id, event in fleet.held_back.all().items():
        by_lost.setdefault(lost_in_words(event), []).append(node_id)
    for lost, found in sorted(by_lost.items(), key=lambda entry: -len(entry[1])):
        ids = tuple(sorted(found))
        hold, keep, lose = ("holds", "keeps", "It would lose") if len(ids) == 1 else ("hold", "keep", "They would lose")
        text = f"{named(ids)} {hold} configuration of another history, and {keep} it. {lose} with revision {fleet.revision}: "
        yield Problem(REASONS["HELD_BACK"], text + lost, nodes=ids)


def outdated_nodes(fleet: Fleet, state: State) -> Iterator[Problem]:
    """Yield one problem for each feature of `state` that connected nodes are too old for."""
    if nodes := older_nodes(n for n in fleet.nodes.values() if n.connected):
        for found in outdated(needs(state), ((node, node.audience) for node in nodes)):
            yield Problem(REASONS["NODES_OUTDATED"], found.text, models=found.models, nodes=found.nodes)


def _counts(fleet: Fleet) -> Iterator[Problem]:
    """Yield the problems of the number of nodes."""
    for e in fleet.members.expected(fleet.audiences):
        if e.counted < e.expected:
            text = f"gateways/{e.gateway} expects {e.expected:,} nodes, and has {e.counted:,}"
            yield Problem(REASONS["NODES_TOO_FEW"], text)
    if count := fleet.members.not_remembered:
        nodes = "node is not remembered, so no command waits for it once it disconnects"
        if count > 1:
            nodes = "nodes are not remembered, so no command waits for them once they disconnect"
        text = f"{count:,} connected {nodes}"
        yield Problem(REASONS["NODES_NOT_REMEMBERED"], text)


def _noted(nodes: Iterable[Node]) -> Iterator[Problem]:
    """Yield one problem for each note: why a node gets less than it could, or that two nodes share an id."""
    by_note: dict[str, list[str]] = {}
    for node in nodes:
        by_note.setdefault(node.note, []).append(node.id)
    for note, ids in sorted(by_note.items(), key=lambda entry: -len(entry[1])):
        yield Problem(REASONS["NODES_INCOMPLETE"], f"{named(tuple(sorted(ids)))}: {note}", nodes=tuple(sorted(ids)))


def no_revision(fleet: Fleet) -> Problem:
    """Return the problem that there is no revision, with the number of nodes that hold configuration of another history."""
    count = sum((node := fleet.nodes.get(node_id)) is not None and node.connected for node_id in fleet.foreign)
    hold, keep = ("node holds", "keeps") if count == 1 else ("nodes hold", "keep")
    nodes = f"{count:,} {hold} configuration of another history, and {keep} it" if count else "no node gets anything"
    return Problem(REASONS["NO_REVISION"], f"there is no revision yet: {nodes}")


def _refusals(refusing: list[Node]) -> Iterator[Problem]:
    """Yield one problem for each cause, the one with the most nodes first."""
    by_cause: dict[tuple[str, tuple[str, ...], str], _Refused] = {}
    for node in refusing:
        for refusal in node.refusals:
            cause = by_cause.setdefault((refusal.type_url, refusal.resources, refusal.message), _Refused())
            if not cause.nodes or cause.nodes[-1] != node.id:  # a node with several streams may refuse the same twice
                cause.nodes.append(node.id)
            cause.newest_revision = max(cause.newest_revision, refusal.revision)
    for (type_url, resources, message), cause in sorted(by_cause.items(), key=lambda entry: -len(entry[1].nodes)):
        ids = tuple(sorted(cause.nodes))
        verb = "refuses" if len(ids) == 1 else "refuse"
        what = f"{short_name(type_url)} {_listed(resources, len(resources))} of revision {cause.newest_revision}"
        text = f"{named(ids)} {verb} {what}: {message.strip()}"
        yield Problem(REASONS["NODES_REFUSE"], text, models=models_of(type_url, resources), nodes=ids)


def models_of(type_url: str, resources: tuple[str, ...]) -> tuple[str, ...]:
    """Return the labels of the models that resources of a type belong to, sorted; none for types that name no model."""
    if type_url not in _BY_MODEL:
        return ()
    return tuple(sorted({name.partition("/")[0] for name in resources if not is_gateways_own(name)}))


def named(ids: tuple[str, ...]) -> str:
    """Return a few nodes by name, and many as `1,000 nodes (nodes/a, nodes/b, nodes/c and 997 more)`."""
    names = _listed(tuple(f"nodes/{i if len(i) <= _ID else i[:_ID] + '…'}" for i in ids[:_NAMED]), len(ids))
    return names if len(ids) <= _NAMED else f"{len(ids):,} nodes ({names})"


def _listed(names: tuple[str, ...], count: int) -> str:
    """Return the first names, and how many of `count` follow."""
    more = f" and {count - _NAMED:,} more" if count > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more

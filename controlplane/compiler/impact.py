"""The impact of a change: what Envoys and gRPC clients would be sent, before it is committed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from controlplane.compiler.audience import audiences
from controlplane.compiler.response_size import delta_size, sotw_size
from controlplane.domain.cuts import NO_LOSSES, Losses
from controlplane.domain.state import State
from controlplane.envoy_types import ORDER
from controlplane.snapshot import Audience, Client, DiffCache, Snapshot


class CompiledState(Protocol):
    """A state with its snapshots."""

    @property
    def state(self) -> State: ...
    def snapshot(self, audience: Audience) -> Snapshot: ...


@dataclass(frozen=True, slots=True)
class Impact:
    """The effect of a change on the fleet."""

    # (resources that are new or changed, resources that are removed) over all audiences, by type URL in the order of `ORDER`.
    # Types without any are left out.
    types: Mapping[str, tuple[int, int]]
    # Number of connected nodes that are sent anything.
    nodes: int
    # Bytes of the responses that one node is sent, for the node that is sent most. When no node is connected: for the
    # audience that would be sent most.
    bytes_per_node: int
    # Sentences for people about effects that are valid and may not be expected.
    warnings: tuple[str, ...] = ()
    # The losses of connected nodes, the most severe first.
    losses: Losses = field(default_factory=dict)


NO_IMPACT = Impact({}, 0, 0)
NO_VARIANTS: Mapping[Audience, Collection[str]] = {}


def impact_of(
    before: CompiledState,
    after: CompiledState,
    nodes_before: Mapping[Audience, int],
    nodes_after: Mapping[Audience, int],
    diffs: DiffCache,
    variants: Mapping[Audience, Collection[str]] = NO_VARIANTS,
    losses: Losses = NO_LOSSES,
    moves: Iterable[tuple[Audience, Audience]] = (),
) -> Impact:
    """Return the impact of going from one state to another, by which connected nodes have these losses.

    `nodes_before` and `nodes_after` are the numbers of connected nodes by the audience that they have under each state.
    `variants` are those of xDS that the nodes of an audience use; an audience that is not there uses delta. `moves` are the
    old and new audiences of the nodes that change their audience.
    """
    changed: dict[str, set[str]] = {t: set() for t in ORDER}
    removed: dict[str, set[str]] = {t: set() for t in ORDER}
    bytes_sent: dict[Audience, int] = {}
    nodes = 0
    possible = audiences(before.state) | audiences(after.state)
    # Audiences of gRPC clients count only where such clients are connected.
    staying = {a for a in possible if a.client is Client.ENVOY} | nodes_after.keys()
    for old_audience, audience in (*((a, a) for a in staying), *moves):
        old, new = before.snapshot(old_audience).resources, after.snapshot(audience).resources
        differences = {t: diffs.diff(old[t], new[t]) for t in ORDER}
        for type_url, difference in differences.items():
            changed[type_url].update(r.name for r in difference.changed)
            removed[type_url].update(difference.removed)
        used = variants.get(audience, ("delta",))
        delta = delta_size(new, differences) if "delta" in used else 0
        size = max(delta, sotw_size(old, new, differences) if "sotw" in used else 0)
        bytes_sent[audience] = max(bytes_sent.get(audience, 0), size)
        if old_audience is audience:
            node_count = nodes_after.get(audience, 0)
            # A node that moves to this audience is sent the difference from its old one, so it counts in any case.
            moved_nodes = max(0, node_count - nodes_before.get(audience, 0))
            nodes += node_count if any(differences.values()) else moved_nodes
    types = {t: (len(changed[t]), len(removed[t] - changed[t])) for t in ORDER if changed[t] or removed[t]}
    sizes = [bytes_sent[a] for a, count in nodes_after.items() if count] or list(bytes_sent.values())
    return Impact(types, nodes, max(sizes, default=0), losses=losses)

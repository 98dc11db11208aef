"""The impact of a change: what Envoys and gRPC clients would be sent, before it is committed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from controlplane.compiler.audience import audiences
from controlplane.compiler.proxyless import obstacle, unreachable
from controlplane.compiler.response_size import delta_size, sotw_size
from controlplane.domain.state import State
from controlplane.envoy_types import ORDER, ROUTES
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


NO_IMPACT = Impact({}, 0, 0)
NO_VARIANTS: Mapping[Audience, Collection[str]] = {}


def impact_of(
    before: CompiledState,
    after: CompiledState,
    nodes_before: Mapping[Audience, int],
    nodes_after: Mapping[Audience, int],
    diffs: DiffCache,
    variants: Mapping[Audience, Collection[str]] = NO_VARIANTS,
) -> Impact:
    """Return the impact of going from one state to another.

    `nodes_before` and `nodes_after` are the numbers of connected nodes by the audience that they have under each state.
    `variants` are those of xDS that the nodes of an audience use; an audience that is not there uses delta.
    """
    changed: dict[str, set[str]] = {t: set() for t in ORDER}
    removed: dict[str, set[str]] = {t: set() for t in ORDER}
    bytes_sent: dict[Audience, int] = {}
    nodes = 0
    # By model: the number of connected gRPC clients that lose it.
    lost: Counter[str] = Counter()
    possible = audiences(before.state) | audiences(after.state)
    # Audiences of gRPC clients count only where such clients are connected.
    for audience in {a for a in possible if a.client is Client.ENVOY} | nodes_after.keys():
        old, new = before.snapshot(audience).resources, after.snapshot(audience).resources
        differences = {t: diffs.diff(old[t], new[t]) for t in ORDER}
        for type_url, difference in differences.items():
            changed[type_url].update(r.name for r in difference.changed)
            removed[type_url].update(difference.removed)
        node_count = nodes_after.get(audience, 0)
        if audience.client is Client.GRPC:
            lost.update(dict.fromkeys(differences[ROUTES].removed, node_count))
        used = variants.get(audience, ("delta",))
        delta = delta_size(new, differences) if "delta" in used else 0
        bytes_sent[audience] = max(delta, sotw_size(old, new, differences) if "sotw" in used else 0)
        # A node that moves to this audience is sent the difference from its old one, so it counts in any case.
        moved_nodes = max(0, node_count - nodes_before.get(audience, 0))
        nodes += node_count if any(differences.values()) else moved_nodes
    types = {t: (len(changed[t]), len(removed[t] - changed[t])) for t in ORDER if changed[t] or removed[t]}
    sizes = [bytes_sent[a] for a, count in nodes_after.items() if count] or list(bytes_sent.values())
    return Impact(types, nodes, max(sizes, default=0), tuple(_warnings(after.state, lost)))


def _warnings(state: State, lost: Mapping[str, int]) -> Iterator[str]:
    for name, clients in sorted(lost.items()):
        model = state.models.get(name)
        # A model that was deleted, or moved to another gateway, is lost on purpose.
        if clients and model is not None and any(obstacle(v) for v in model.versions if model.split.get(v.name)):
            who = f"{clients:,} connected gRPC clients are" if clients > 1 else "1 connected gRPC client is"
            yield f"{who} no longer given {', '.join(unreachable(model))}"

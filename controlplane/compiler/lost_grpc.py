"""Find the models that lose gRPC because their endpoints lose their gRPC ports."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.compiler.compile import served_gateways
from controlplane.compiler.grpc_ports import has_grpc_name
from controlplane.domain import Model, Protocol
from controlplane.domain.cuts import Loss, LossKind
from controlplane.domain.routing import carries_grpc
from controlplane.domain.state import State
from controlplane.envoy_types import CLUSTER, ROUTES
from controlplane.snapshot import Audience, Client, DiffCache, Snapshot


def gets_grpc(model: str, state: State, audience: Audience) -> bool:
    """Return True if gRPC calls can reach a model through the nodes of an audience, as far as its gateways are concerned."""
    if audience.client is Client.GRPC:
        return True
    return any(carries_grpc(g) for g in served_gateways(state, audience) if g.name in state.models[model].gateways)


def lost_grpc(old: Snapshot, new: Snapshot, before: State, after: State, diffs: DiffCache) -> Iterator[Loss]:
    """Yield the loss of the models that both snapshots have, and that speak gRPC in the old one only.

    `before` and `after` are the desired states of the two. Nothing is compared if no cluster changes, as when traffic moves.
    """
    old_clusters, new_clusters = old.resources[CLUSTER], new.resources[CLUSTER]
    if old_clusters is new_clusters:
        return
    changed = diffs.diff(old_clusters, new_clusters).names
    names = (n for n in changed if n in old_clusters and n not in new_clusters and has_grpc_name(n))
    models = {name.partition("/")[0] for name in names}
    staying = models & old.resources[ROUTES].keys() & new.resources[ROUTES].keys() & after.models.keys()
    silent = (name for name in staying if not _speaks_grpc(after.models[name]))
    if lost := tuple(sorted(name for name in silent if gets_grpc(name, before, old.audience))):
        yield Loss(LossKind.MODEL, "", lost, "gRPC", " by gRPC, because there are no gRPC ports any more,")


def _speaks_grpc(model: Model) -> bool:
    return model.has_grpc_ports or any(v.protocol is Protocol.GRPC and v.endpoints for v in model.versions)

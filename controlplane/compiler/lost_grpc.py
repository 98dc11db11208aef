"""Find the models that lose gRPC because their endpoints lose their gRPC ports."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.compiler.grpc_ports import has_grpc_name
from controlplane.domain import Protocol
from controlplane.domain.cuts import Loss, LossKind
from controlplane.domain.state import State
from controlplane.envoy_types import CLUSTER, ROUTES
from controlplane.snapshot import DiffCache, Snapshot


def lost_grpc(old: Snapshot, new: Snapshot, state: State, diffs: DiffCache) -> Iterator[Loss]:
    """Yield the loss of the models that both snapshots have, and that speak gRPC in the old one only.

    `state` is the desired state of the new one. Nothing is compared if no cluster changes, as when traffic moves.
    """
    before, after = old.resources[CLUSTER], new.resources[CLUSTER]
    if before is after:
        return
    names = (n for n in diffs.diff(before, after).names if n in before and n not in after and has_grpc_name(n))
    models = {name.partition("/")[0] for name in names}
    staying = models & old.resources[ROUTES].keys() & new.resources[ROUTES].keys() & state.models.keys()
    if lost := tuple(sorted(name for name in staying if not _speaks_grpc(state, name))):
        yield Loss(LossKind.MODEL, "", lost, "gRPC", " by gRPC, because there are no gRPC ports any more,")


def _speaks_grpc(state: State, name: str) -> bool:
    model = state.models[name]
    return model.has_grpc_ports or any(v.protocol is Protocol.GRPC and v.endpoints for v in model.versions)

"""The clusters that a change removes. They are the same for every audience of Envoys."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.compiler.clusters import compile_cluster, compile_mirror
from controlplane.compiler.fallback import compile_fallbacks
from controlplane.domain import Mirror, Model, Version
from controlplane.domain.state import State
from controlplane.snapshot import Resource


def removed_clusters(before: State, after: State) -> Iterator[list[Resource]]:
    """Yield, for each model that changes, its clusters that some Envoy had, and then has not, or has with other content.

    They are compiled when the iterator comes to the model. Of a model that leaves a gateway, all clusters count as removed.
    Changes of gateways are not looked at.
    """
    models = after.models
    # With thousands of models of which one changed, this line is most of the cost.
    for old in [m for n, m in before.models.items() if models.get(n) is not m]:
        new = models.get(old.name)
        if new is not None and not set(old.gateways) <= set(new.gateways):
            new = None
        remaining = {} if new is None else {c.name: c.version for c in _clusters(new, old)}
        yield [c for c in _clusters(old, new) if remaining.get(c.name) != c.version]


def _clusters(model: Model, other: Model | None) -> Iterator[Resource]:
    """Yield the clusters of a model, except those that are compiled from the same input for another one."""
    for version in model.versions:
        if other is None or version not in other.versions or model.affinity != other.affinity:
            yield from compile_cluster(model.name, version, model.affinity)
    if other is None or model.versions != other.versions or model.affinity != other.affinity:
        yield from compile_fallbacks(model)
    if other is None or _mirror_source(model) != _mirror_source(other):
        yield from compile_mirror(model)


def _mirror_source(model: Model) -> tuple[Version, Mirror, float] | None:
    """Return what the cluster of a model's mirror is compiled from."""
    mirror = model.mirror
    return None if mirror is None else (model.version(mirror.version), mirror, model.timeouts.request)

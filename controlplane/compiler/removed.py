"""The clusters that a change removes. They are the same for every audience of Envoys."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.compiler.clusters import compile_cluster, compile_mirror
from controlplane.compiler.fallback import compile_fallbacks
from controlplane.compiler.functions import NO_FUNCTIONS, Functions
from controlplane.compiler.patches import is_about_patches
from controlplane.domain import Model
from controlplane.domain.state import State
from controlplane.errors import Error
from controlplane.snapshot import Resource


def removed_clusters(before: State, after: State, functions: Functions = NO_FUNCTIONS) -> Iterator[list[Resource]]:
    """Yield, for each model that changes, its clusters that some Envoy had, and then has not, or has with other content.

    They are compiled when the iterator comes to the model. Of a model that leaves a gateway, all clusters count as removed.
    Changes of gateways are not looked at. A model whose patches fail now, though they did not before, has none.
    """
    models = after.models
    # With thousands of models of which one changed, this line is most of the cost.
    for old in [m for n, m in before.models.items() if models.get(n) is not m]:
        new = models.get(old.name)
        if new is not None and not set(old.gateways) <= set(new.gateways):
            new = None
        try:
            remaining = {} if new is None else {c.name: c.version for c in _clusters(new, old, functions)}
            yield [c for c in _clusters(old, new, functions) if remaining.get(c.name) != c.version]
        except Error as error:
            if not is_about_patches(error):
                raise
            yield []


def _clusters(model: Model, other: Model | None, functions: Functions) -> Iterator[Resource]:
    """Yield the clusters of a model, except those that are compiled from the same input for another one."""
    same_settings = other is not None and _settings(model) == _settings(other)
    for version in model.versions:
        if other is None or not same_settings or version not in other.versions:
            yield from compile_cluster(model.name, version, model.affinity, model.timeouts.request, functions=functions)
    if other is None or not same_settings or model.versions != other.versions:
        yield from compile_fallbacks(model, functions=functions)
    if other is None or _mirror_source(model) != _mirror_source(other):
        yield from compile_mirror(model, functions=functions)


def _settings(model: Model) -> tuple[object, ...]:
    """Return what each cluster of a model is compiled from, besides its version."""
    return (model.affinity, model.timeouts.request)


def _mirror_source(model: Model) -> tuple[object, ...]:
    """Return what the cluster of a model's mirror is compiled from."""
    return () if model.mirror is None else (model.mirror, model.version(model.mirror.version), model.timeouts.request)

"""Compile desired state to snapshots.

The same input gives the same bytes in every process: the result never depends on time, on the order of earlier changes, or on
what was compiled before. Earlier results only make it faster: a switch of one model among thousands compiles that model's
RouteConfiguration, and takes everything else from the previous snapshot.

**The same object means unchanged.** Resources whose input stays equal stay the same `Resource` objects, and a type in which
nothing changed keeps the mapping of the previous snapshot.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from controlplane.compiler.functions import NO_FUNCTIONS, Functions
from controlplane.compiler.resources import CompiledObjects
from controlplane.domain import Gateway, Model
from controlplane.domain.endpoints import Endpoints
from controlplane.domain.revision import ObjectMeta
from controlplane.domain.state import State
from controlplane.envoy_types import CLUSTER, LISTENER, SECRET
from controlplane.snapshot import Audience, Client, Resource, Snapshot, resource_hash, type_version

_MASK = (1 << 128) - 1  # type versions are sums modulo 2**128, see snapshot.py

# Snapshots that are remembered for each audience. There are several, so that a dry run does not push out the live snapshot. At
# the bound the oldest is forgotten. A snapshot that would continue from it is compiled as a whole.
_SNAPSHOTS = 4
# Audiences of which snapshots are remembered. At the bound the one that was compiled longest ago is forgotten.
_AUDIENCES = 10_000
NO_META: Mapping[str, ObjectMeta] = {}


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A snapshot, and the input that it was compiled from."""

    snapshot: Snapshot
    state: State
    endpoints: Endpoints
    meta: Mapping[str, ObjectMeta]


class Compiler:
    """Compiles states to snapshots, and remembers results so that unchanged parts stay the same objects.

    Not for several threads at a time.
    """

    def __init__(self, functions: Functions = NO_FUNCTIONS) -> None:
        """`functions` are those that patches name."""
        self._objects = CompiledObjects(functions)
        # The newest snapshots of each audience, newest last. Audiences are in the order in which they were compiled.
        self._compiled: OrderedDict[Audience, deque[_Compiled]] = OrderedDict()

    def compile(
        self,
        state: State,
        endpoints: Endpoints,
        audience: Audience,
        revision: int,
        previous: Snapshot | None = None,
        meta: Mapping[str, ObjectMeta] = NO_META,
    ) -> Snapshot:
        """Return the snapshot of `audience` at `revision`. Gateways that don't exist add nothing to it.

        `endpoints` are the live endpoints; they change ClusterLoadAssignments only. `previous` is an earlier snapshot of the
        same audience: a type in which nothing changed keeps its mapping. `meta` has the revision in which each object last
        changed, by resource name. A revision that it does not have is not shown to clients.
        """
        for entry in self._compiled.get(audience, ()):
            snapshot = entry.snapshot
            # Each revision is compiled twice with the same input: to check it, and to serve it.
            same_input = entry.state is state and entry.endpoints is endpoints and snapshot.revision == revision
            if same_input and (previous is None or _has_mappings_of(snapshot, previous)):
                return snapshot
        before = self._input_of(previous)
        if before is not None and _same_gateways(before.state, state, audience.gateways):
            snapshot = self._advance(before, state, endpoints, revision, meta)
        else:
            snapshot = self._compile_whole(state, endpoints, audience, revision, meta)
            if previous is not None:
                snapshot = _with_mappings_of(snapshot, previous)
        self._remember(_Compiled(snapshot, state, endpoints, meta))
        return snapshot

    def _compile_whole(
        self, state: State, endpoints: Endpoints, audience: Audience, revision: int, meta: Mapping[str, ObjectMeta]
    ) -> Snapshot:
        self._forget(state)
        served = _served(state, audience)
        resources: list[Resource] = []
        if audience.client is Client.ENVOY:
            for gateway in served.gateways:
                resources += self._objects.listener(state.gateways[gateway])
            resources += self._own(state, served, served.gateways)
        for name in sorted(state.models):
            model = state.models[name]
            resources += self._objects.model(state, endpoints, model, served, _revision(meta, model))
        resources += self._objects.secrets(state, resources)
        return Snapshot.of(revision, audience, resources)

    def _own(self, state: State, served: Audience, gateways: Collection[str]) -> list[Resource]:
        """Return the own routes of these gateways for an audience, of which they are a part."""
        models: dict[str, list[Model]] = {gateway: [] for gateway in gateways}
        for name in sorted(state.models if served.models is None else served.models & state.models.keys()):
            for gateway in state.models[name].gateways:
                if gateway in models:
                    models[gateway].append(state.models[name])
        return [r for g, listed in models.items() for r in self._objects.own(state.gateways[g], listed, served)]

    def _advance(
        self, before: _Compiled, state: State, endpoints: Endpoints, revision: int, meta: Mapping[str, ObjectMeta]
    ) -> Snapshot:
        """Return the earlier snapshot with the changes between the two inputs applied. They have the same gateways."""
        previous = before.snapshot
        removed: list[Resource] = []
        added: list[Resource] = []
        served = _served(state, previous.audience)
        changes = _changed_models(before.state, state, before.endpoints.changed_models(endpoints))
        for old, new in changes:
            if old is not None:
                removed += self._objects.model(before.state, before.endpoints, old, served, _revision(before.meta, old))
            if new is not None:
                added += self._objects.model(state, endpoints, new, served, _revision(meta, new))
        if served.client is Client.ENVOY and (gateways := _with_other_models(changes).intersection(served.gateways)):
            removed += self._own(before.state, served, gateways)
            added += self._own(state, served, gateways)
        resources = dict(previous.resources)
        versions = dict(previous.versions)
        for type_url, held in previous.resources.items():
            old_names = {r.name for r in removed if r.type_url == type_url}
            new_resources = {r.name: r for r in added if r.type_url == type_url}
            changed = {n: r for n, r in new_resources.items() if n not in held or held[n].version != r.version}
            dropped = old_names - new_resources.keys()
            if not changed and not dropped:
                continue
            total = int(versions[type_url], 16)
            total -= sum(resource_hash(held[n]) for n in (*dropped, *changed) if n in held)
            total += sum(resource_hash(r) for r in changed.values())
            versions[type_url] = f"{total & _MASK:032x}"
            mapping = {**held, **changed}
            for n in dropped:
                del mapping[n]
            resources[type_url] = mapping
        if before.state.secrets != state.secrets or any(t == SECRET for r in (*removed, *added) for t, _ in r.refs):
            secrets = self._objects.secrets(state, [*resources[LISTENER].values(), *resources[CLUSTER].values()])
            version = type_version(secrets)
            if version != versions[SECRET]:
                resources[SECRET], versions[SECRET] = {r.name: r for r in secrets}, version
        return Snapshot(revision, previous.audience, resources, versions)

    def _input_of(self, snapshot: Snapshot | None) -> _Compiled | None:
        if snapshot is None:
            return None
        entries = self._compiled.get(snapshot.audience, ())
        return next((entry for entry in entries if entry.snapshot is snapshot), None)

    def _remember(self, entry: _Compiled) -> None:
        audience = entry.snapshot.audience
        self._compiled.setdefault(audience, deque(maxlen=_SNAPSHOTS)).append(entry)
        self._compiled.move_to_end(audience)
        if len(self._compiled) > _AUDIENCES:
            self._compiled.popitem(last=False)

    def _forget(self, state: State) -> None:
        """Drop results of objects that no longer exist."""
        if self._objects.forget(state):
            gone = [a for a in self._compiled if not all(g in state.gateways for g in a.gateways)]
            for audience in gone:
                del self._compiled[audience]


def served_gateways(state: State, audience: Audience) -> list[Gateway]:
    """Return the gateways of an audience that it can get: they exist, and no two share address or scope.

    Two gateways of an audience can share one after their selectors have changed. Then every node that is still in this
    audience leaves it when its audience is next resolved. Until then the node gets the first of the two gateways.
    """
    gateways = [state.gateways[g] for g in audience.gateways if g in state.gateways]
    if audience.client is Client.ENVOY:
        gateways = list({g.host_port: g for g in reversed(gateways)}.values())[::-1]
        gateways = list({g.scope: g for g in reversed(gateways)}.values())[::-1]
    return gateways


def _served(state: State, audience: Audience) -> Audience:
    """Return the audience with only those of its gateways that it can get."""
    return replace(audience, gateways=tuple(g.name for g in served_gateways(state, audience)))


def _same_gateways(a: State, b: State, names: Iterable[str]) -> bool:
    """Return True if these gateways are the same objects in both states."""
    return all(a.gateways.get(n) is b.gateways.get(n) for n in names)


def _changed_models(a: State, b: State, more: Iterable[str] = ()) -> list[tuple[Model | None, Model | None]]:
    """Return the models that are not the same object in both states, and those of `more`, as (old, new) pairs by name."""
    old, new = a.models, b.models
    # With thousands of models of which one changed, this loop is most of the cost of a switch.
    names = [n for n, m in new.items() if old.get(n) is not m]
    names += [n for n in old if n not in new]
    if more:
        names = list({*names, *more})
    return [(old.get(n), new.get(n)) for n in sorted(names)]


def _with_other_models(changes: Iterable[tuple[Model | None, Model | None]]) -> set[str]:
    """Return the gateways that get a model, lose one, name one by other keys, or limit one in another way.

    `changes` are (old, new) pairs.
    """
    gateways: set[str] = set()
    for old, new in changes:
        if old is None or new is None or _gateways_input(old) != _gateways_input(new):
            gateways.update(*(model.gateways for model in (old, new) if model is not None))
    return gateways


def _gateways_input(model: Model) -> object:
    """Return the part of a model that its gateways' own resources depend on."""
    return model.gateways, model.route_keys, model.rate_limits


def _revision(meta: Mapping[str, ObjectMeta], model: Model) -> int:
    """Return the revision in which a model last changed; 0 if it is not known."""
    known = meta.get(model.resource_name)
    return known.revision if known is not None else 0


def _has_mappings_of(snapshot: Snapshot, previous: Snapshot) -> bool:
    """Return True if types that have the same version have the same mapping object."""
    return all(
        snapshot.resources[t] is previous.resources[t] for t, v in previous.versions.items() if snapshot.versions[t] == v
    )


def _with_mappings_of(snapshot: Snapshot, previous: Snapshot) -> Snapshot:
    """Return the snapshot with the mappings of `previous` for the types that have the same version."""
    resources = {
        t: previous.resources[t] if previous.versions.get(t) == v else snapshot.resources[t]
        for t, v in snapshot.versions.items()
    }
    return Snapshot(snapshot.revision, snapshot.audience, resources, snapshot.versions)

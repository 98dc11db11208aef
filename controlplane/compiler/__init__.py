"""The compiler: desired state in, what an audience should hold out. Pure; it knows nothing of streams.

The same state gives the same bytes in every process: nothing here depends on time, on order of arrival, or on what was
compiled before. What was compiled before only makes it faster: a switch of one model among thousands compiles that model's
RouteConfiguration, and takes the rest from the snapshot before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from controlplane.compiler.audience import audience, audiences
from controlplane.compiler.clusters import cluster_name, compile_cluster, compile_mirror, mirror_name
from controlplane.compiler.endpoints import compile_endpoints
from controlplane.compiler.listeners import compile_listener, listener_name
from controlplane.compiler.proxyless import compile_proxyless
from controlplane.compiler.routes import compile_routes
from controlplane.compiler.scopes import compile_scopes
from controlplane.compiler.secrets import compile_secret
from controlplane.domain import Gateway, Model, Secret, Version
from controlplane.domain.state import State
from controlplane.snapshot import (
    CLUSTER,
    LISTENER,
    SECRET,
    Audience,
    Client,
    Resource,
    Snapshot,
    resource_hash,
    type_version,
)

__all__ = ["Compiler", "audience", "audiences"]

_MASK = (1 << 128) - 1  # type versions are sums modulo 2**128, see snapshot.py


class Compiler:
    """Compiles states, and remembers what it compiled of which object."""

    def __init__(self) -> None:
        # By what was compiled: the object it was compiled of, and the result. Objects are frozen, so the result stays true.
        self._versions: dict[tuple[str, str], tuple[Version, tuple[Resource, ...]]] = {}
        # Of a mirror also the request timeout of its model.
        self._mirrors: dict[str, tuple[tuple[Version, float], tuple[Resource, ...]]] = {}
        self._routes: dict[str, tuple[Model, Resource]] = {}
        self._scopes: dict[tuple[str, str], tuple[Gateway, tuple[str, ...], tuple[Resource, ...]]] = {}
        self._listeners: dict[str, tuple[Gateway, Resource]] = {}
        self._proxyless: dict[str, tuple[Model, list[Resource]]] = {}
        self._secrets: dict[str, tuple[Secret, Resource]] = {}
        # Snapshots made here and the states they are of, newest last; at most 4 an audience, then the oldest is forgotten and
        # what follows on it is compiled whole. More than 1: a change that is only tried must not cost the live one its place.
        self._made: dict[Audience, deque[tuple[Snapshot, State]]] = {}

    def compile(self, state: State, revision: int, audience: Audience, previous: Snapshot | None = None) -> Snapshot:
        """What `audience` should hold as of `revision`. Gateways that don't exist have nothing to hold.

        `previous` is a snapshot of the same audience: of types in which nothing changed the result has the same mapping.
        """
        for made, made_of in self._made.get(audience, ()):
            # Who serves a revision asks for what was compiled before it was made.
            if made_of is state and made.revision == revision and (previous is None or _shares(made, previous)):
                return made
        before = self._state_of(previous)
        if previous is not None and before is not None and _same_gateways(before, state, audience.gateways):
            snapshot = self._advanced(previous, before, state, revision)
        else:
            snapshot = self._whole(state, revision, audience)
            if previous is not None:
                snapshot = _sharing(snapshot, previous)
        self._made.setdefault(audience, deque(maxlen=4)).append((snapshot, state))
        return snapshot

    def _whole(self, state: State, revision: int, audience: Audience) -> Snapshot:
        self._forget(state)
        served = _served(state, audience)
        resources: list[Resource] = []
        if audience.client is Client.ENVOY:
            resources += [self._listener(state.gateways[g]) for g in served.gateways]
        for name in sorted(state.models):
            resources += self._model(state, state.models[name], served)
        resources += self._needed(state, resources)
        return Snapshot.of(revision, audience, resources)

    def _advanced(self, previous: Snapshot, before: State, state: State, revision: int) -> Snapshot:
        """`previous` with what changed between the two states, which have the same gateways."""
        removed: list[Resource] = []
        added: list[Resource] = []
        served = _served(state, previous.audience)
        for old, new in _changed_models(before, state):
            removed += self._model(before, old, served) if old is not None else ()
            added += self._model(state, new, served) if new is not None else ()
        resources = dict(previous.resources)
        versions = dict(previous.versions)
        for type_url, held in previous.resources.items():
            gone = {r.name: r for r in removed if r.type_url == type_url}
            come = {r.name: r for r in added if r.type_url == type_url}
            changed = {n: r for n, r in come.items() if n not in held or held[n].version != r.version}
            dropped = [n for n in gone if n not in come]
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
        if before.secrets != state.secrets or any(t == SECRET for r in (*removed, *added) for t, _ in r.refs):
            secrets = self._needed(state, [*resources[LISTENER].values(), *resources[CLUSTER].values()])
            version = type_version(secrets)
            if version != versions[SECRET]:
                resources[SECRET], versions[SECRET] = {r.name: r for r in secrets}, version
        return Snapshot(revision, previous.audience, resources, versions)

    def _model(self, state: State, model: Model, audience: Audience) -> list[Resource]:
        """All that is compiled of a model for an audience; nothing when it has none of its gateways, or names others."""
        if audience.models is not None and model.name not in audience.models:
            return []
        served = [state.gateways[g] for g in audience.gateways if g in model.gateways]
        if not served:
            return []
        if audience.client is Client.GRPC:
            return self._targets(model)
        resources: list[Resource] = []
        for version in model.versions:
            resources += self._version(model.name, version)
        resources += self._mirror(model)
        resources.append(self._route(model))
        for gateway in served:
            resources += self._scope(gateway, model)
        return resources

    # Each of these looks up, compiles when what it was compiled of is another, and remembers. `is` is the fast way to see that
    # nothing changed; equality finds it in objects that were read anew.

    def _version(self, model: str, version: Version) -> tuple[Resource, ...]:
        key = (model, version.name)
        known = self._versions.get(key)
        if known is None or (known[0] is not version and known[0] != version):
            made = (*compile_cluster(model, version), *compile_endpoints(cluster_name(*key), version))
            known = self._versions[key] = (version, made)
        return known[1]

    def _mirror(self, model: Model) -> tuple[Resource, ...]:
        if model.mirror is None:
            return ()
        version = model.version(model.mirror.version)
        made_of = (version, model.timeouts.request)
        known = self._mirrors.get(model.name)
        if known is None or known[0] != made_of:
            made = (*compile_mirror(model), *compile_endpoints(mirror_name(model.name, version.name), version))
            known = self._mirrors[model.name] = (made_of, made)
        return known[1]

    def _route(self, model: Model) -> Resource:
        known = self._routes.get(model.name)
        if known is None or (known[0] is not model and known[0] != model):
            known = self._routes[model.name] = (model, compile_routes(model))
        return known[1]

    def _scope(self, gateway: Gateway, model: Model) -> tuple[Resource, ...]:
        key = (gateway.name, model.name)
        known = self._scopes.get(key)
        if known is None or known[1] != model.route_keys or (known[0] is not gateway and known[0] != gateway):
            known = self._scopes[key] = (gateway, model.route_keys, tuple(compile_scopes(gateway, model)))
        return known[2]

    def _listener(self, gateway: Gateway) -> Resource:
        known = self._listeners.get(gateway.name)
        if known is None or (known[0] is not gateway and known[0] != gateway):
            known = self._listeners[gateway.name] = (gateway, compile_listener(gateway))
        return known[1]

    def _targets(self, model: Model) -> list[Resource]:
        known = self._proxyless.get(model.name)
        if known is None or (known[0] is not model and known[0] != model):
            known = self._proxyless[model.name] = (model, compile_proxyless(model))
        return known[1]

    def _needed(self, state: State, resources: Iterable[Resource]) -> list[Resource]:
        """The secrets that these name, and no others: a node that does not need one is never sent it."""
        return [self._secret(state.secrets[n]) for n in sorted({n for r in resources for t, n in r.refs if t == SECRET})]

    def _secret(self, secret: Secret) -> Resource:
        known = self._secrets.get(secret.name)
        if known is None or (known[0] is not secret and known[0] != secret):
            known = self._secrets[secret.name] = (secret, compile_secret(secret))
        return known[1]

    def _state_of(self, snapshot: Snapshot | None) -> State | None:
        if snapshot is None:
            return None
        made = self._made.get(snapshot.audience, ())
        return next((state for known, state in made if known is snapshot), None)

    def _forget(self, state: State) -> None:
        """Lets go of what is remembered of objects that are gone, once it is more than there are; of secrets at once."""
        self._secrets = {n: k for n, k in self._secrets.items() if n in state.secrets}
        if max(len(self._routes), len(self._proxyless)) > 2 * len(state.models) + 64:
            self._proxyless = {n: k for n, k in self._proxyless.items() if n in state.models}
            self._routes = {n: k for n, k in self._routes.items() if n in state.models}
            self._versions = {n: k for n, k in self._versions.items() if n[0] in state.models}
            self._mirrors = {n: k for n, k in self._mirrors.items() if n in state.models}
            self._scopes = {n: k for n, k in self._scopes.items() if n[1] in state.models and n[0] in state.gateways}
            self._listeners = {n: k for n, k in self._listeners.items() if n in state.gateways}
            self._made = {a: k for a, k in self._made.items() if all(g in state.gateways for g in a.gateways)}


def _served(state: State, audience: Audience) -> Audience:
    """The audience with those of its gateways that it can be given: they exist, and each has an address of its own.

    Two may want one address once their selectors have changed: then no node is of this audience any more, or will not be when
    it is next looked at, and it gets the first of them.
    """
    gateways = [state.gateways[g] for g in audience.gateways if g in state.gateways]
    if audience.client is Client.ENVOY:
        gateways = list({listener_name(g): g for g in reversed(gateways)}.values())[::-1]
    return replace(audience, gateways=tuple(g.name for g in gateways))


def _same_gateways(a: State, b: State, names: Iterable[str]) -> bool:
    return all(a.gateways.get(n) is b.gateways.get(n) for n in names)


def _changed_models(a: State, b: State) -> list[tuple[Model | None, Model | None]]:
    """Models that are not the same object in both, as (before, after)."""
    old, new = a.models, b.models
    # Thousands of models, of which one changed: this loop is most of a switch's cost.
    names = [n for n, m in new.items() if old.get(n) is not m]
    names += [n for n in old if n not in new]
    return [(old.get(n), new.get(n)) for n in sorted(names)]


def _shares(snapshot: Snapshot, previous: Snapshot) -> bool:
    """Whether types that have the same version have the same mapping."""
    return all(
        snapshot.resources[t] is previous.resources[t] for t, v in previous.versions.items() if snapshot.versions[t] == v
    )


def _sharing(snapshot: Snapshot, previous: Snapshot) -> Snapshot:
    """The snapshot, with the mappings of `previous` for those types that have the same version."""
    resources = {
        t: previous.resources[t] if previous.versions.get(t) == v else snapshot.resources[t]
        for t, v in snapshot.versions.items()
    }
    return Snapshot(snapshot.revision, snapshot.audience, resources, snapshot.versions)

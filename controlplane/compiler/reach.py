"""Compare what connected nodes serve before a change with what they can serve after it.

A request reaches a model through a listener that accepts it, a key in the scope of the listener's gateway, and an endpoint of
a version that has a share. So a node loses

    a listener     if it has the listener before the change and not after it
    access         to a listener that stays, if the requests that matched its TLS and its routing don't match them any more
    a model        or some of its keys, if at a listener that stays these keys lead nowhere or to another model
    gRPC           of a model that stays, if its endpoints lose their gRPC ports, and its gateways take gRPC calls
    endpoints      of a version that has a share, if all of them are replaced or reached otherwise, and none answers
    connections    that are open, if a filter of theirs uses a cluster that is removed

Snapshots are compared, and not fields of gateways and models. If a node gets another audience, the old audience's snapshot is
compared with the new one's. Nodes with the same transition have the same losses, so the cost depends on the number of
transitions, and not of nodes. **The same object means unchanged**: after a change that only moves traffic, the listeners and
scopes of a snapshot are the same objects as before, and nothing is compared.

A control plane without a revision, because its store is new or lost, serves no snapshot. Then the snapshot after the change is
compared with what the node says that it holds (`Claim`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from controlplane.compiler.body_script import NO_MODEL, START
from controlplane.compiler.compile import served_gateways
from controlplane.compiler.decode import decoded, is_gateways_own
from controlplane.compiler.impact import CompiledState
from controlplane.compiler.lost_clients import lost_clients_of
from controlplane.compiler.lost_grpc import gets_grpc, lost_grpc
from controlplane.compiler.patch_rules import names_of
from controlplane.compiler.patches import added_clusters
from controlplane.compiler.proxyless import obstacle
from controlplane.domain import BodyRouting, Gateway, HeaderRouting, HostRouting, Model, Object, PathRouting, Version
from controlplane.domain.cuts import Loss, LossKind
from controlplane.domain.own_paths import OWN_KEYS
from controlplane.domain.routing import scope_keys
from controlplane.domain.state import Changes, State
from controlplane.envoy_types import CLUSTER, LISTENER, ROUTES, SCOPED_ROUTES
from controlplane.errors import abbreviated
from controlplane.snapshot import Audience, Client, DiffCache, Resource, Snapshot


@dataclass(frozen=True, slots=True)
class Claim:
    """The names of the resources that a node says it holds. None: it is not known what the node holds of this type."""

    listeners: frozenset[str] | None = None
    scopes: frozenset[str] | None = None
    routes: frozenset[str] | None = None
    # (type URL, version) of the types of which it is not known what the node holds.
    versions: frozenset[tuple[str, str]] = frozenset()

    def compared_with(self, new: Snapshot) -> Claim:
        """Return the claim with the names of each type of which the node holds exactly what a snapshot has."""

        def known(type_url: str, names: frozenset[str] | None) -> frozenset[str] | None:
            versions = {version for t, version in self.versions if t == type_url}
            is_same = names is None and versions == {new.versions[type_url]}
            return frozenset(new.resources[type_url]) if is_same else names

        return Claim(known(LISTENER, self.listeners), known(SCOPED_ROUTES, self.scopes), known(ROUTES, self.routes))


# The claim of a client that has just started.
NOTHING_HELD = Claim(frozenset(), frozenset(), frozenset())

# One node: its audience (or its claim) before a change, and its audience after it.
Transition = tuple[Audience | Claim, Audience]
# A version, as (model, version).
VersionName = tuple[str, str]

NOTHING_SILENT: Mapping[VersionName, str] = {}


def losses_of(
    before: CompiledState,
    after: CompiledState,
    transitions: Iterable[Transition],
    diffs: DiffCache,
    silent: Mapping[VersionName, str] = NOTHING_SILENT,
) -> dict[Transition, tuple[Loss, ...]]:
    """Return what the nodes of each transition lose. Transitions without a loss are left out.

    `silent` has those of the `replaced_versions` that can't answer: by version, the reason in words.
    """
    losses: dict[Transition, tuple[Loss, ...]] = {}
    for transition in transitions:
        held, audience = transition
        new = after.snapshot(audience)
        lost: Iterable[Loss]
        if isinstance(held, Claim):
            lost = _lost_of_claim(held, new)
        elif audience.client is Client.GRPC:
            lost = _lost_models_of_grpc_client(before.snapshot(held), new, after.state)
        else:
            lost = (
                *_EnvoyLosses(before, after, held, audience, diffs).all(),
                *lost_grpc(before.snapshot(held), new, before.state, after.state, diffs),
            )
        if all_lost := (*lost, *_lost_endpoints(held, before, after, new, silent)):
            losses[transition] = all_lost
    return losses


def replaced_versions(before: State, changes: Changes) -> list[VersionName]:
    """Return the versions that have a share before and after a change, and are reached otherwise after it.

    They lose every endpoint that they have before it or their fallbacks, or have another protocol, TLS or host.
    """
    return [
        (model.name, version.name)
        for model in changes.objects.values()
        if isinstance(model, Model) and (old := before.models.get(model.name)) is not None
        for version in model.versions
        if model.split.get(version.name) and old.split.get(version.name)
        if _are_replaced(old.version(version.name), version) or _are_reached_otherwise(old.version(version.name), version)
    ]


def _are_replaced(old: Version, new: Version) -> bool:
    """Return True if none of a version's addresses stays, or none for gRPC."""
    has_grpc_ports = old.has_grpc_ports and new.has_grpc_ports
    return _have_no_common_address(old, new) or (has_grpc_ports and _grpc_addresses(old).isdisjoint(_grpc_addresses(new)))


def _are_reached_otherwise(old: Version, new: Version) -> bool:
    """Return True if the endpoints that a version keeps may not answer any more, or nothing takes over if they don't."""
    lost_fallbacks = bool(old.fallback) and not new.fallback
    return lost_fallbacks or (old.protocol, old.tls, old.host) != (new.protocol, new.tls, new.host)


def _have_no_common_address(old: Version, new: Version) -> bool:
    return _addresses(old).isdisjoint(_addresses(new))


def opened_addresses(changes: Mapping[str, tuple[Object | None, Object | None]]) -> set[str]:
    """Return the addresses that gateways have since a revision, and that none of its gateways had before.

    `changes` are those of the revision: (old, new) by name.
    """
    pairs = [(old, new) for old, new in changes.values() if isinstance(old or new, Gateway)]
    before = {old.host_port for old, _ in pairs if isinstance(old, Gateway)}
    return {new.host_port for _, new in pairs if isinstance(new, Gateway)} - before


def _addresses(version: Version) -> set[tuple[str, int]]:
    return {(endpoint.host, endpoint.port) for endpoint in version.endpoints}


def _grpc_addresses(version: Version) -> set[tuple[str, int]]:
    return {(endpoint.host, endpoint.grpc_port) for endpoint in version.endpoints}


# ----------------------------------------------------------------------------------------------------------------- Envoys


class _EnvoyLosses:
    """The losses of the Envoys of one transition. `old` and `new` in names mean before and after the change."""

    def __init__(
        self, before: CompiledState, after: CompiledState, held: Audience, audience: Audience, diffs: DiffCache
    ) -> None:
        self._before, self._after = before.state, after.state
        old, new = before.snapshot(held).resources, after.snapshot(audience).resources
        self._old_scopes, self._new_scopes = old[SCOPED_ROUTES], new[SCOPED_ROUTES]
        self._old_listeners, self._new_clusters = old[LISTENER], new[CLUSTER]
        # Hiding the models changes neither listeners nor scopes.
        same = old[LISTENER] is new[LISTENER] and self._old_scopes is self._new_scopes
        self._unchanged = same and not _hidden(after.state) - _hidden(before.state)
        # By the address of the listener.
        self._old = {} if self._unchanged else {g.host_port: g for g in served_gateways(before.state, held)}
        self._new = {} if self._unchanged else {g.host_port: g for g in served_gateways(after.state, audience)}
        self._diffs = diffs

    def all(self) -> Iterator[Loss]:
        """Yield the losses."""
        if self._unchanged:
            return
        for address in sorted(self._old.keys() - self._new.keys()):
            only = "only" if len(self._old) == 1 and not self._new else ""
            yield Loss(LossKind.LISTENER, address, self._models_at(address), only, self._move(address))
        staying = sorted(self._old.keys() & self._new.keys())
        changed_access = {a: access for a in staying if (access := _changed_access(self._old[a], self._new[a])) is not None}
        for address, (old_access, new_access) in changed_access.items():
            if models := self._models_at(address):
                yield Loss(LossKind.ACCESS, address, models, old_access, f", only by {new_access},")
        for address in staying:
            lost_clients = tuple(lost_clients_of(self._old[address], self._new[address]))
            if lost_clients and address not in changed_access and (models := self._models_at(address)):
                yield from (Loss(LossKind.ACCESS, address, models, clients) for clients in lost_clients)
            yield from self._lost_clusters(address)
        yield from self._lost_models([a for a in staying if a not in changed_access])

    def _lost_clusters(self, address: str) -> Iterator[Loss]:
        """Yield a loss if a filter of a listener that stays needs a cluster that goes. Open connections keep the filter."""
        listener = self._old_listeners[address]
        added = {name for type_url, name in listener.refs if type_url == CLUSTER} & set(added_clusters(self._old[address]))
        gone = added - self._new_clusters.keys()
        used = sorted(gone & names_of(decoded(listener)).clusters) if gone else []
        if used and (models := self._models_at(address)):
            note = (
                f" (their filters use {abbreviated(used)}: remove the filters first, and the clusters in a later change, "
                "after the Envoys' drain time)"
            )
            yield Loss(LossKind.ACCESS, address, models, "open connections", note)

    def _models_at(self, address: str) -> tuple[str, ...]:
        """Return the labels of the models that are reached at an address before the change, sorted."""
        return tuple(sorted(self._models_of_scopes.get(self._old[address].scope, ())))

    @cached_property
    def _models_of_scopes(self) -> Mapping[str, set[str]]:
        """The labels of the models in each gateway's scope before the change."""
        models: dict[str, set[str]] = defaultdict(set)
        for name, scoped_routes in self._old_scopes.items():
            if (target := _target(scoped_routes)) and not is_gateways_own(target):
                models[_scope_of(name)].add(target)
        return models

    def _move(self, address: str) -> str:
        """Return the note about a listener whose gateway gets another address."""
        name = self._old[address].name
        return next((f" (gateway {name} moves to {to})" for to, gateway in self._new.items() if gateway.name == name), "")

    def _lost_models(self, addresses: list[str]) -> Iterator[Loss]:
        """Yield the losses of the models that lose keys at listeners that stay. Models with the same loss share one `Loss`."""
        # By address, model, and the other model that now gets the requests ("" for none): the lost keys.
        lost: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        for address in addresses:
            for key in self._changed_keys(address):
                model = _target(self._old_scopes[f"{self._old[address].scope}/{key}"])
                other = self._target_at(address, key)
                # The routes of the gateway itself answer with an error, unless they list the models. They do that always.
                if model != other and not is_gateways_own(model):
                    lost[address, model, other].add(key)
        models: dict[tuple[str, str, str], list[str]] = defaultdict(list)
        for (address, model, other), keys in lost.items():
            models[address, self._part(address, model, keys), other].append(model)
        for (address, part, other), labels in sorted(models.items()):
            note = f" to model {other}" if other else ""
            yield Loss(LossKind.MODEL, address, tuple(sorted(labels)), part, note)

    def _changed_keys(self, address: str) -> Sequence[str]:
        """Return the keys that possibly lead to another model than before, or nowhere, at a listener that stays."""
        scope = self._old[address].scope
        keys = self._changed if self._new[address].scope == scope else self._all_keys
        return keys.get(scope, ())

    @cached_property
    def _changed(self) -> Mapping[str, list[str]]:
        """The keys whose scoped routes are removed or different, by the gateway's scope."""
        difference = self._diffs.diff(self._old_scopes, self._new_scopes)
        return _keys_by_scope(name for name in difference.names if name in self._old_scopes)

    @cached_property
    def _all_keys(self) -> Mapping[str, list[str]]:
        """All keys before the change, by the gateway's scope."""
        return _keys_by_scope(self._old_scopes)

    def _target_at(self, address: str, key: str) -> str:
        """Return the model that a key leads to at a listener after the change; "" for none."""
        resource = self._new_scopes.get(f"{self._new[address].scope}/{key}")
        target = _target(resource) if resource is not None else ""
        return "" if is_gateways_own(target) else target

    def _part(self, address: str, label: str, lost: set[str]) -> str:
        """Return the words for the lost keys of a model: `path` if it keeps no key at the address, else `paths 'a', 'b'`.

        A key with a verb is `KEY:VERB`. If each key loses the same verbs, only the verbs are named.
        """
        if lost == {NO_MODEL}:
            return "requests that name no model"
        noun = _key_noun(self._old[address])
        model = self._after.models.get(label)
        if model is None or all(self._target_at(address, k) != label for k in scope_keys(self._new[address], model)):
            return noun
        # A key that is lost is lost in its encoded form, too.
        lost = {key for key in lost if "%" not in key}
        by_verb = {key: _split_verb(self._old[address], key) for key in lost}
        verbs = sorted({verb for _, verb in by_verb.values()})
        if "" not in verbs and lost == {f"{key}:{verb}" for key in model.route_keys for verb in verbs}:
            noun, keys = "verb", verbs
        else:
            keys = sorted(key for key, (plain, verb) in by_verb.items() if not verb or plain not in lost)
        return f"{noun}{'s' if len(keys) > 1 else ''} {_quoted(keys)}"


def _hidden(state: State) -> set[str]:
    """Return the names of the gateways that don't list their models."""
    return {gateway.name for gateway in state.gateways.values() if gateway.hide_models}


def _split_verb(gateway: Gateway, key: str) -> tuple[str, str]:
    """Return a key at a gateway without its verb, and the verb; "" if it has none. A key itself may have a colon."""
    plain, _, verb = key.rpartition(":")
    return (plain, verb) if isinstance(gateway.routing, PathRouting) and verb in gateway.routing.verbs else (key, "")


def _keys_by_scope(names: Iterable[str]) -> Mapping[str, list[str]]:
    """Return the keys in the names of ScopedRouteConfigurations, by the gateway's scope."""
    keys: dict[str, list[str]] = defaultdict(list)
    for name in names:
        scope, _, key = name.partition("/")  # a key may have slashes
        keys[scope].append(key)
    return keys


def _scope_of(name: str) -> str:
    """Return the gateway's scope in the name of a ScopedRouteConfiguration."""
    return name.partition("/")[0]


def _target(scoped_routes: Resource) -> str:
    """Return the label of the model that a ScopedRouteConfiguration leads to."""
    return next(name for type_url, name in scoped_routes.refs if type_url == ROUTES)


def _changed_access(old: Gateway, new: Gateway) -> tuple[str, str] | None:
    """Return how requests reach a listener before and after a change; None if requests match it as before."""
    if old.tls is None or new.tls is None:
        if old.tls is not new.tls:
            return ("plain HTTP", "TLS") if old.tls is None else ("TLS", "plain HTTP")
    elif new.tls.client_ca and not old.tls.client_ca:
        return "TLS without a client's certificate", "TLS with one"
    old_part, new_part = _naming_part(old), _naming_part(new)
    return None if old_part == new_part else (old_part, new_part)


def _naming_part(gateway: Gateway) -> str:
    """Return the part of a request that names its model."""
    match gateway.routing:
        case PathRouting(segment=segment):
            return f"path segment {segment}"
        case HeaderRouting(name=name):
            return f"header {name}"
        case HostRouting():
            return "host"
        case BodyRouting():
            return "field `model` of the body"


def _key_noun(gateway: Gateway) -> str:
    match gateway.routing:
        case PathRouting():
            return "path"
        case HeaderRouting():
            return "header value"
        case HostRouting():
            return "host"
        case BodyRouting():
            return "name"


# ---------------------------------------------------------------------------------------------------------- other clients


def _lost_models_of_grpc_client(old: Snapshot, new: Snapshot, state: State) -> Iterator[Loss]:
    """Yield the models that a gRPC client loses. Its listeners have the names of models."""
    if old.resources[LISTENER] is new.resources[LISTENER]:
        return
    models: dict[str, list[str]] = defaultdict(list)
    for name in sorted(old.resources[LISTENER].keys() - new.resources[LISTENER].keys()):
        models[_obstacle(state.models.get(name))].append(name)
    for note, names in models.items():
        yield Loss(LossKind.MODEL, "", tuple(names), "", note)


def _obstacle(model: Model | None) -> str:
    """Return the reason why gRPC clients can't get a model, as a note; "" if there is none."""
    for version in model.versions if model is not None else ():
        if model is not None and model.split.get(version.name) and (reason := obstacle(version)):
            return f" (its version {version.name} {reason})"
    return ""


def _lost_of_claim(claim: Claim, new: Snapshot) -> Iterator[Loss]:
    """Yield what a node loses of the resources that it says it holds. Only the names of the resources are known."""
    claim = claim.compared_with(new)
    listeners, scopes, routes = (new.resources[t].keys() for t in (LISTENER, SCOPED_ROUTES, ROUTES))
    if claim.listeners is None or claim.scopes is None or claim.routes is None:
        yield Loss(LossKind.UNKNOWN)
        return
    closed = sorted(claim.listeners - listeners)
    if new.audience.client is Client.GRPC:
        if closed:
            yield Loss(LossKind.MODEL, "", tuple(closed))
        return
    for address in closed:
        yield Loss(LossKind.LISTENER, address, (), "only" if len(claim.listeners) == 1 and not listeners else "")
    if models := tuple(sorted(name for name in claim.routes - routes if not is_gateways_own(name))):
        yield Loss(LossKind.MODEL, "", models)
    keys: dict[str, list[str]] = defaultdict(list)
    for name in sorted(claim.scopes - scopes):
        scope, _, key = name.partition("/")  # a key may have slashes
        # If a listener or a model is lost, its keys are not listed, too.
        if scope not in closed and key.partition(":")[0] not in models and key not in {START, NO_MODEL, *OWN_KEYS}:
            keys[scope].append(key)
    for scope, lost in keys.items():
        yield Loss(LossKind.MODEL, scope, (), f"key{'s' if len(lost) > 1 else ''} {_quoted(lost)}")


# -------------------------------------------------------------------------------------------------------------- endpoints


def _lost_endpoints(
    held: Audience | Claim, before: CompiledState, after: CompiledState, new: Snapshot, silent: Mapping[VersionName, str]
) -> Iterator[Loss]:
    """Yield the losses of the `silent` versions whose models a node serves before and after a change.

    If only the gRPC ports of a version are others, nothing is lost where no gRPC call can reach the model.
    """
    if isinstance(held, Claim) or not silent:
        return
    old = before.snapshot(held)
    for (model, name), reason in sorted(silent.items()):
        if model not in old.resources[ROUTES] or model not in new.resources[ROUTES]:
            continue
        versions = [state.models[model].version(name) for state in (before.state, after.state)]
        if _have_no_common_address(*versions) or _are_reached_otherwise(*versions) or gets_grpc(model, before.state, held):
            yield Loss(LossKind.ENDPOINTS, "", (model,), name, f" ({reason})")


def _quoted(keys: Iterable[str]) -> str:
    return abbreviated([f"'{key}'" for key in keys])

"""The rules by which objects fit together. Each rule checks only the objects that a change may have made inconsistent.

| rule | reason of the error | objects that are checked |
|---|---|---|
| no two gateways bind the same socket on one node | ADDRESS_TAKEN | changed gateways |
| every referenced object exists and has the required kind | UNKNOWN_…, WRONG_… | changed objects |
| no request can mean two models | AMBIGUOUS_KEY | models with other keys or gateways; all models of changed gateways |
| each key of a model can match at each of its gateways | IMPOSSIBLE_KEY | the same models; keys that are new at a gateway |
| no model gets what a gateway answers itself, by a new key or health path | RESERVED_KEY, HEALTH_PATH_TAKEN | the same |
| a path can begin with the prefix of a model's rewrite | IMPOSSIBLE_PREFIX | models with another rewrite |
| no secret is one whose private key or value was purged | KEY_PURGED | changed secrets |
| no object in use is deleted or changes its kind | …_IN_USE | deleted objects, secrets that changed their kind |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from controlplane.domain.collections import BY_NAME, Object
from controlplane.domain.gateway import Gateway
from controlplane.domain.matching import key_problem, prefix_problem
from controlplane.domain.model import Model
from controlplane.domain.own_paths import health_path_model, taken_path
from controlplane.domain.references import Reference
from controlplane.domain.routing import scope_keys
from controlplane.domain.secret import Secret
from controlplane.errors import Code, Collector, Error, Violation, abbreviated, failed_precondition


class Objects(Protocol):
    """The part of a `State` that the rules need."""

    @property
    def gateways(self) -> Mapping[str, Gateway]: ...
    @property
    def models(self) -> Mapping[str, Model]: ...
    @property
    def collections(self) -> Mapping[str, Mapping[str, Object]]: ...
    def get(self, resource_name: str) -> Object | None: ...


def check(before: Objects, after: Objects, changes: Mapping[str, Object | None]) -> None:
    """Check that the objects of `after` fit together. `after` is `before` with `changes` made, and `before` is consistent.

    Errors: one FAILED_PRECONDITION that lists all violations. Fields are paths from a resource name:
    `models/iris.gateways[0]`.
    """
    changed = [obj for obj in changes.values() if obj is not None]
    c = Collector()
    _check_addresses(after, [obj for obj in changed if isinstance(obj, Gateway)], c)
    _check_references(after, changed, c)
    models = _models_to_check(before, after, changes)
    _check_keys(after, models, c)
    _check_matching(before, after, models, c)
    _check_own_paths(before, after, models, c)
    _check_rewrites(before, [obj for obj in changed if isinstance(obj, Model)], c)
    _check_rate_limits(after, changed, c)
    _check_purged([obj for obj in changed if isinstance(obj, Secret)], c)
    _check_in_use(before, after, changes, c)
    c.check()


def _check_addresses(state: Objects, changed: list[Gateway], c: Collector) -> None:
    for gateway in changed:
        for other in state.gateways.values():
            if other.name != gateway.name and gateway.shares_address(other):
                with c.within(gateway.resource_name):
                    raise failed_precondition(
                        "ADDRESS_TAKEN",
                        "port",
                        f"{other.resource_name} listens on {other.address}:{other.port} already, on nodes that both select",
                    )


def _check_references(state: Objects, changed: Iterable[Object], c: Collector) -> None:
    for obj in changed:
        for reference in obj.references:
            with c.within(obj.resource_name):
                _check_reference(state, reference)


def _check_rate_limits(state: Objects, changed: Iterable[Object], c: Collector) -> None:
    """Check that the gateways of models with rate limits apply such limits."""
    models = {obj.name for obj in changed if isinstance(obj, Model) and obj.rate_limits}
    gateways = {obj.name for obj in changed if isinstance(obj, Gateway) and obj.rate_limiting is None}
    if gateways:
        models |= {m.name for m in state.models.values() if m.rate_limits and not gateways.isdisjoint(m.gateways)}
    for model in (state.models[name] for name in sorted(models)):
        for i, label in enumerate(model.gateways):
            gateway = state.gateways.get(label)
            if gateway is not None and gateway.rate_limiting is None:
                with c.within(model.resource_name):
                    description = (
                        f"{gateway.resource_name} has no `rate_limiting`, which the model's `rate_limits` need: add it"
                    )
                    raise failed_precondition("NO_RATE_LIMITING", f"{Gateway.collection}[{i}]", description)


def _check_reference(state: Objects, reference: Reference) -> None:
    row = BY_NAME[reference.collection]
    objects = state.collections[reference.collection]
    target = objects.get(reference.label)
    if target is None:
        description = f"{reference.resource_name} does not exist; {row.existing(objects)}"
        raise failed_precondition(f"UNKNOWN_{row.singular.upper()}", reference.field, description)
    if reference.kind and _kind(target) != reference.kind:
        description = f"{reference.resource_name} is of kind {_kind(target)}, but {reference.kind} is needed here"
        raise failed_precondition(f"WRONG_{row.singular.upper()}", reference.field, description)


def _models_to_check(before: Objects, after: Objects, changes: Mapping[str, Object | None]) -> list[Model]:
    """Return the models whose keys may have become ambiguous."""
    # Most changes only move traffic. A model with the same keys and gateways as before can't get a new collision.
    models = [o for o in changes.values() if isinstance(o, Model) and not _same_keys(before.models.get(o.name), o)]
    # If a gateway changes, models that did not change themselves can collide.
    gateways = {obj.name for obj in changes.values() if isinstance(obj, Gateway)}
    if gateways:
        names = {model.name for model in models}
        models += [m for m in after.models.values() if m.name not in names and not gateways.isdisjoint(m.gateways)]
    return models


def _same_keys(old: Model | None, new: Model) -> bool:
    return old is not None and old.gateways == new.gateways and old.route_keys == new.route_keys


def _check_keys(state: Objects, models: list[Model], c: Collector) -> None:
    if not models:
        return
    owners: dict[tuple[str, str], list[str]] = {}
    for model in state.models.values():
        for gateway, key in _keys(state, model):
            owners.setdefault((gateway.name, key), []).append(model.name)
    for model in models:
        with c.within(model.resource_name):
            for gateway, key in _keys(state, model):
                others = [name for name in owners[gateway.name, key] if name != model.name]
                if others:
                    raise failed_precondition(
                        "AMBIGUOUS_KEY",
                        "keys",
                        f"'{key}' means {state.models[others[0]].resource_name} on {gateway.resource_name} already: "
                        "a request with it could mean either model",
                    )


def _keys(state: Objects, model: Model) -> Iterable[tuple[Gateway, str]]:
    for label in model.gateways:
        gateway = state.gateways.get(label)
        if gateway is not None:  # `_check_references` reports a missing gateway
            yield from ((gateway, key) for key in scope_keys(gateway, model))


def _check_matching(before: Objects, after: Objects, models: list[Model], c: Collector) -> None:
    for model in models:
        gateways = [after.gateways[label] for label in model.gateways if label in after.gateways]
        for i, key in enumerate(model.keys):
            for gateway in gateways:
                problem = key_problem(gateway.routing, key)
                # A key that an earlier version of Turnout accepted must not hinder other changes.
                if not problem or _had_key(before, model, gateway, key):
                    continue
                with c.within(model.resource_name):
                    raise failed_precondition(
                        "IMPOSSIBLE_KEY",
                        f"keys[{i}]",
                        f"'{key}' can never match at {gateway.resource_name}: {problem}. Remove the key; if other "
                        "gateways need it, give it to a model of its own there",
                    )


def _check_own_paths(before: Objects, after: Objects, models: list[Model], c: Collector) -> None:
    """Check that models and gateways don't take requests from each other. What an earlier version accepted stays."""
    for model in models:
        for gateway in (after.gateways[label] for label in model.gateways if label in after.gateways):
            old, old_model = before.gateways.get(gateway.name), before.models.get(model.name)
            same_keys = old is not None and _same_keys(old_model, model) and old.routing == gateway.routing
            with c.within(model.resource_name):
                for key in model.route_keys:
                    if (path := taken_path(gateway, key)) and not _had_key(before, model, gateway, key):
                        raise failed_precondition(
                            "RESERVED_KEY",
                            "keys",
                            f"'{key}' is the key of {path}, where {gateway.resource_name} itself answers: choose another key",
                        )
            if health_path_model(gateway, model) and not (
                same_keys and old is not None and old.health_path == gateway.health_path
            ):
                with c.within(gateway.resource_name):
                    raise failed_precondition(
                        "HEALTH_PATH_TAKEN",
                        "health_path",
                        f"{gateway.health_path} is a path of {model.resource_name}, whose requests would get the answer of "
                        "the health check: choose a path that no model has, like /healthz",
                    )


def _had_key(state: Objects, model: Model, gateway: Gateway, key: str) -> bool:
    """Return True if the model had the key at the gateway, and the gateway's routing is the same."""
    old_model, old_gateway = state.models.get(model.name), state.gateways.get(gateway.name)
    if old_model is None or old_gateway is None:
        return False
    return key in old_model.route_keys and gateway.name in old_model.gateways and old_gateway.routing == gateway.routing


def _check_rewrites(before: Objects, models: list[Model], c: Collector) -> None:
    for model in models:
        old = before.models.get(model.name)
        if model.rewrite is None or (old is not None and old.rewrite == model.rewrite):
            continue
        if problem := prefix_problem(model.rewrite.prefix):
            with c.within(model.resource_name):
                description = f"no path begins with '{model.rewrite.prefix[:80]}': {problem}"
                raise failed_precondition("IMPOSSIBLE_PREFIX", "rewrite.prefix", description)


def _check_purged(changed: Iterable[Secret], c: Collector) -> None:
    """Check that the changed secrets have their private keys and values: going back may name one that was purged."""
    for secret in changed:
        if secret.purged:
            with c.within(""):
                name = secret.resource_name
                description = (
                    "the private key or value that it had then was purged, so nobody can go back to it. Set the secret anew: "
                    f"turnout secret set {secret.name}"
                )
                raise failed_precondition("KEY_PURGED", name, description, name=name)


def _check_in_use(before: Objects, after: Objects, changes: Mapping[str, Object | None], c: Collector) -> None:
    """Check that no object of `after` refers to an object that was deleted or that changed its kind."""
    lost = {name for name, new in changes.items() if _is_lost(before.get(name), new)}
    users = _users(after, lost) if lost else {}
    for resource_name, names in users.items():
        refused = "be deleted" if changes[resource_name] is None else "become a secret of another kind"
        description = (
            f"{resource_name} can't {refused} while {abbreviated(sorted(names))} use it: change or delete those first"
        )
        with c.within(""):
            raise Error(
                Code.FAILED_PRECONDITION,
                f"{BY_NAME[resource_name.partition('/')[0]].singular.upper()}_IN_USE",
                description,
                violations=(Violation(resource_name, description),),
                metadata={"name": resource_name},
            )


def _is_lost(old: Object | None, new: Object | None) -> bool:
    """Return True when an object was deleted or changed its kind."""
    return old is not None and (new is None or _kind(old) != _kind(new))


def _users(state: Objects, resource_names: set[str]) -> dict[str, list[str]]:
    """Return the resource names of the objects that refer to each of `resource_names`. Objects without users are left out."""
    users: dict[str, list[str]] = {}
    for objects in state.collections.values():
        for obj in objects.values():
            for resource_name in {reference.resource_name for reference in obj.references} & resource_names:
                users.setdefault(resource_name, []).append(obj.resource_name)
    return users


def _kind(obj: Object) -> str:
    return obj.kind if isinstance(obj, Secret) else ""

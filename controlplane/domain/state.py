"""Desired state as a value: objects that fit together.

A `State` that exists is consistent: every model's gateways exist, every secret that is named exists and is of the right kind,
no two gateways want one socket, and no request could mean two models. Changes make a new `State`, or raise `Error` and make
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from controlplane.domain import SECRET_KINDS, Gateway, HeaderRouting, HostRouting, Model, Object, PathRouting, Secret
from controlplane.errors import Code, Collector, Error, failed, not_found


@dataclass(frozen=True, slots=True)
class Changes:
    """What one revision does, by resource name (`models/iris`): the new object, or None where it is deleted."""

    objects: Mapping[str, Object | None]

    def __bool__(self) -> bool:
        return bool(self.objects)


@dataclass(frozen=True, slots=True)
class State:
    """Desired state as of one revision. Keyed by label (`iris`), in no particular order."""

    gateways: Mapping[str, Gateway] = field(default_factory=dict)
    models: Mapping[str, Model] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)

    def get(self, resource_name: str) -> Object | None:
        """The object of a resource name, or None."""
        collection, _, label = resource_name.partition("/")
        match collection:
            case "gateways":
                return self.gateways.get(label)
            case "models":
                return self.models.get(label)
            case "secrets":
                return self.secrets.get(label)
            case _:
                return None

    def gateway(self, label: str) -> Gateway:
        """The gateway, or NOT_FOUND."""
        if label not in self.gateways:
            raise not_found(f"gateways/{label}", _there_are("gateways", self.gateways))
        return self.gateways[label]

    def model(self, label: str) -> Model:
        """The model, or NOT_FOUND."""
        if label not in self.models:
            raise not_found(f"models/{label}", _there_are("models", self.models))
        return self.models[label]

    def secret(self, label: str) -> Secret:
        """The secret, or NOT_FOUND."""
        if label not in self.secrets:
            raise not_found(f"secrets/{label}", _there_are("secrets", self.secrets))
        return self.secrets[label]

    def objects(self) -> Iterable[Object]:
        """Gateways, then models, then secrets, each by name."""
        yield from (self.gateways[n] for n in sorted(self.gateways))
        yield from (self.models[n] for n in sorted(self.models))
        yield from (self.secrets[n] for n in sorted(self.secrets))

    def changes_to(self, other: State) -> Changes:
        """What makes `other` of this."""
        changed: dict[str, Object | None] = {}
        pairs: tuple[tuple[Mapping[str, Object], Mapping[str, Object]], ...]
        pairs = ((self.gateways, other.gateways), (self.models, other.models), (self.secrets, other.secrets))
        for mine, theirs in pairs:
            for label in sorted(mine.keys() | theirs.keys()):
                old, new = mine.get(label), theirs.get(label)
                if old is not new and old != new:
                    present = new or old
                    assert present is not None
                    changed[present.resource_name] = new
        return Changes(changed)

    def applied(self, changes: Changes) -> State:
        """This state with `changes` made. Errors: the objects don't fit together; every misfit is named."""
        new = self.replayed(changes)
        touched = [o for o in changes.objects.values() if o is not None]
        c = Collector()
        new._check_gateways([o for o in touched if isinstance(o, Gateway)], c)
        # A gateway's change can make models collide that did not change themselves.
        gateways = {n.partition("/")[2] for n in changes.objects if n.startswith("gateways/")}
        # Of a model that asks for what it asked for before nothing new can be wrong: most changes only move traffic.
        models = [o for o in touched if isinstance(o, Model) and not _same_claims(self.models.get(o.name), o)]
        if gateways:
            named = {m.name for m in models}
            models += [m for m in new.models.values() if m.name not in named and not gateways.isdisjoint(m.gateways)]
        new._check_models(models, c)
        new._check_secrets([o for o in touched if isinstance(o, Gateway | Model)], c)
        self._check_users(new, [n for n in changes.objects if n.startswith("secrets/")], c)
        c.check()
        return new

    def replayed(self, changes: Changes) -> State:
        """This state with `changes` made, unchecked: for history, that was checked when it was made."""
        gateways, models, secrets = dict(self.gateways), dict(self.models), dict(self.secrets)
        for name, obj in changes.objects.items():
            collection, _, label = name.partition("/")
            if isinstance(obj, Gateway):
                gateways[label] = obj
            elif isinstance(obj, Model):
                models[label] = obj
            elif isinstance(obj, Secret):
                secrets[label] = obj
            else:
                gone: Mapping[str, dict[str, Any]] = {"gateways": gateways, "models": models, "secrets": secrets}
                gone[collection].pop(label, None)
        return State(gateways, models, secrets)

    def secret_users(self, label: str) -> list[str]:
        """Resource names of the gateways and models that need a secret."""
        users = [o.resource_name for o in self.gateways.values() if any(name == label for _, name, _ in o.secrets)]
        return sorted(users + [o.resource_name for o in self.models.values() if any(n == label for _, n, _ in o.secrets)])

    def _check_secrets(self, touched: list[Gateway | Model], c: Collector) -> None:
        for obj in touched:
            for at, label, kind in obj.secrets:
                with c.within(obj.resource_name):
                    secret = self.secrets.get(label)
                    if secret is None:
                        there_are = _there_are("secrets", self.secrets)
                        raise failed("UNKNOWN_SECRET", at, f"secrets/{label} does not exist; {there_are}")
                    if not isinstance(secret.content, kind):
                        is_now = SECRET_KINDS[type(secret.content)]
                        raise failed("WRONG_SECRET", at, f"secrets/{label} is {is_now}; {SECRET_KINDS[kind]} is needed here")

    def _check_users(self, new: State, names: list[str], c: Collector) -> None:
        """That no secret is gone, or of another kind, that something in `new` needs."""
        for name in names:
            label = name.partition("/")[2]
            before, after = self.secrets.get(label), new.secrets.get(label)
            if before is None or (after is not None and type(after.content) is type(before.content)):
                continue
            users = new.secret_users(label)
            if users:
                with c.within(name):
                    said = ", ".join(users[:8]) + (f" and {len(users) - 8} more" if len(users) > 8 else "")
                    become = "be deleted" if after is None else "become the other kind"
                    raise failed("SECRET_IN_USE", "", f"{name} can't {become}: {said} need it as it is", name=name)

    def _check_gateways(self, touched: list[Gateway], c: Collector) -> None:
        for gateway in touched:
            for other in self.gateways.values():
                if other.name != gateway.name and gateway.shares_address(other):
                    with c.within(gateway.resource_name):
                        raise failed(
                            "ADDRESS_TAKEN",
                            "port",
                            f"gateways/{other.name} listens on {other.address}:{other.port}, on nodes that both select",
                        )

    def _check_models(self, touched: list[Model], c: Collector) -> None:
        if not touched:
            return
        owner: dict[tuple[str, str], list[str]] = {}
        for model in self.models.values():
            for gateway_name in model.gateways:
                gateway = self.gateways.get(gateway_name)
                for key in scope_keys(gateway, model) if gateway else ():
                    owner.setdefault((gateway_name, key), []).append(model.name)
        for model in touched:
            with c.within(model.resource_name):
                for i, gateway_name in enumerate(model.gateways):
                    gateway = self.gateways.get(gateway_name)
                    if gateway is None:
                        raise failed(
                            "UNKNOWN_GATEWAY",
                            f"gateways[{i}]",
                            f"gateways/{gateway_name} does not exist; {_there_are('gateways', self.gateways)}",
                        )
                    for key in scope_keys(gateway, model):
                        others = [n for n in owner[gateway_name, key] if n != model.name]
                        if others:
                            raise failed(
                                "AMBIGUOUS_KEY",
                                "keys",
                                f"'{key}' means models/{others[0]} on gateways/{gateway_name} already: "
                                "a request could not tell the two apart",
                            )


def scope_keys(gateway: Gateway, model: Model) -> list[str]:
    """Every value that a request to `gateway` can carry that means `model`, in order."""
    match gateway.routing:
        case PathRouting(verbs=verbs):
            return [k for key in model.route_keys for k in (key, *(f"{key}:{verb}" for verb in verbs))]
        case HeaderRouting():
            return list(model.route_keys)
        case HostRouting():
            return list(dict.fromkeys(key.lower() for key in model.route_keys))


def _same_claims(old: Model | None, new: Model) -> bool:
    return old is not None and old.gateways == new.gateways and old.route_keys == new.route_keys


def moves_traffic(old: State, new: State) -> list[str]:
    """Resource names of the models whose live traffic goes elsewhere in `new`: another split, fewer keys or gateways, gone."""
    moved = []
    for model in old.models.values():
        after = new.models.get(model.name)
        if after is model:
            continue
        if (
            after is None
            or after.split != model.split
            or not set(model.route_keys) <= set(after.route_keys)
            or not set(model.gateways) <= set(after.gateways)
        ):
            moved.append(model.resource_name)
    return sorted(moved)


def conflict(expected: int, live: int) -> Error:
    """What a store raises when a commit was based on a revision that is not the newest."""
    return Error(
        Code.ABORTED,
        "CONFLICT",
        f"revision {live} was made in the meantime (the change was based on {expected}); try again",
        metadata={"expected": str(expected), "live": str(live)},
    )


def _there_are(what: str, labels: Iterable[str]) -> str:
    names = sorted(labels)
    if not names:
        return f"there are no {what} yet"
    return f"there are: {', '.join(names[:8])}" + (f" and {len(names) - 8} more" if len(names) > 8 else "")

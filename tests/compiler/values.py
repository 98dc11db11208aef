"""Small values of desired state for the compiler's tests, and functions that look into snapshots."""

from __future__ import annotations

from controlplane.domain import Endpoint, Gateway, Model, Version
from controlplane.domain.state import Changes, State
from controlplane.envoy_types import ORDER
from controlplane.snapshot import Audience, Resource, Snapshot

EDGE = Audience(("edge",))


def a_version(name: str, host: str = "10.0.0.1") -> Version:
    return Version(name, (Endpoint(host, 8000),))


def a_model(name: str = "iris", green: int = 0, gateways: tuple[str, ...] = ("edge",)) -> Model:
    return Model(name, gateways, (a_version("blue"), a_version("green")), {"blue": 10_000 - green, "green": green})


def a_state(models: int = 3, *gateways: Gateway) -> State:
    served = gateways or (Gateway("edge", 8080),)
    new = (a_model(f"model-{i}") for i in range(models))
    return State({g.name: g for g in served}, {m.name: m for m in new})


def with_model(state: State, model: Model) -> State:
    return state.applied(Changes({model.resource_name: model}))


def everything(snapshot: Snapshot) -> list[Resource]:
    """All resources of a snapshot."""
    return [r for t in ORDER for r in snapshot.resources[t].values()]


def shared_types(a: Snapshot, b: Snapshot) -> set[str]:
    """The types of which both snapshots have the same mapping object."""
    return {t for t in ORDER if a.resources[t] is b.resources[t]}

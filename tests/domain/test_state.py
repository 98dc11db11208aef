"""Desired state: objects that fit together."""

from __future__ import annotations

import dataclasses

import pytest

from controlplane.domain import Endpoint, Gateway, HeaderRouting, HostRouting, Model, Object, PathRouting, Version
from controlplane.domain.routing import scope_keys
from controlplane.domain.state import Changes, State
from controlplane.domain.switch import moved_models
from controlplane.errors import Code, Error

VERSIONS = tuple(Version(n, (Endpoint("127.0.0.1", p),)) for n, p in (("blue", 1), ("green", 2)))


def model(name: str, *keys: str, gateways: tuple[str, ...] = ("edge",)) -> Model:
    return Model(name, gateways, VERSIONS, {"blue": 10_000}, keys)


def state(*objects: Object) -> State:
    return State().applied(Changes({o.resource_name: o for o in objects}))


def refused(before: State, *objects: Object) -> Error:
    with pytest.raises(Error) as caught:
        before.applied(Changes({o.resource_name: o for o in objects}))
    assert caught.value.code is Code.FAILED_PRECONDITION
    return caught.value


def test_objects_come_and_go_together() -> None:
    s = state(Gateway("edge", 80), model("iris"))
    assert [o.resource_name for o in s.objects()] == ["gateways/edge", "models/iris"]
    assert s.applied(Changes({"models/iris": None, "gateways/edge": None})) == State()


def test_a_models_gateway_must_exist() -> None:
    error = refused(State(), model("iris"))
    assert error.reason == "UNKNOWN_GATEWAY"
    assert error.violations[0].field == "models/iris.gateways[0]"


def test_a_gateway_that_serves_a_model_stays() -> None:
    s = state(Gateway("edge", 80), model("iris"))
    with pytest.raises(Error) as caught:
        s.applied(Changes({"gateways/edge": None}))
    assert caught.value.reason == "GATEWAY_IN_USE"
    assert caught.value.message == "gateways/edge can't be deleted: models/iris need it as it is"


def test_two_gateways_cannot_share_an_address() -> None:
    assert refused(state(Gateway("edge", 80)), Gateway("inner", 80)).reason == "ADDRESS_TAKEN"


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (model("iris"), model("other", "iris")),
        (model("iris"), model("other", "x", "iris")),
        (model("a", "x"), model("b", "x")),
    ],
)
def test_a_request_must_mean_one_model(a: Model, b: Model) -> None:
    error = refused(state(Gateway("edge", 80), a), b)
    assert error.reason == "AMBIGUOUS_KEY"


def test_the_same_key_on_two_gateways_is_two_things() -> None:
    s = state(Gateway("edge", 80), Gateway("inner", 81))
    s = s.applied(Changes({"models/a": model("a", "x"), "models/b": model("b", "x", gateways=("inner",))}))
    assert len(s.models) == 2


def test_a_gateways_change_can_make_models_collide() -> None:
    edge = Gateway("edge", 80, routing=HeaderRouting("x-model"))
    s = state(edge, model("a", "iris"), model("b", "IRIS"))
    assert refused(s, dataclasses.replace(edge, routing=HostRouting())).reason == "AMBIGUOUS_KEY"


def test_keys_follow_the_gateways_routing() -> None:
    iris = model("iris", "Iris", "iris2")
    assert scope_keys(Gateway("g", 1, routing=PathRouting(verbs=("predict",))), iris) == [
        "Iris",
        "Iris:predict",
        "iris2",
        "iris2:predict",
    ]
    assert scope_keys(Gateway("g", 1, routing=HeaderRouting("x-model")), iris) == ["Iris", "iris2"]
    assert scope_keys(Gateway("g", 1, routing=HostRouting()), iris) == ["iris", "iris2"]


def test_changes_between_states_make_one_of_the_other() -> None:
    a = state(Gateway("edge", 80), model("iris"), model("wine"))
    b = state(Gateway("edge", 81), model("iris"), model("digits"))
    changes = a.changes_to(b)
    assert list(changes.objects) == ["gateways/edge", "models/digits", "models/wine"]
    assert a.applied(changes) == b
    assert not a.changes_to(a)


def test_what_moved_models() -> None:
    before = state(Gateway("edge", 80), Gateway("inner", 81), model("iris", "iris", "alias", gateways=("edge", "inner")))
    iris = before.models["iris"]

    def after(**changes: object) -> list[str]:
        new = dataclasses.replace(iris, **changes)  # type: ignore[arg-type]
        return moved_models(before, before.applied(Changes({"models/iris": new})))

    assert after(split={"green": 10_000}) == ["models/iris"]
    assert after(keys=("iris",)) == ["models/iris"]
    assert after(gateways=("edge",)) == ["models/iris"]
    assert after(preview_header="x-version") == []
    assert after(keys=("iris", "alias", "more")) == []
    assert moved_models(before, before.applied(Changes({"models/iris": None}))) == ["models/iris"]

"""Desired state: objects of all collections, and the changes between two states."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain import Endpoint, Gateway, Model, Object, Version
from controlplane.domain.state import Changes, State
from controlplane.errors import Code, Error
from tests.nouns import gateways, some

VERSIONS = tuple(Version(n, (Endpoint("127.0.0.1", p),)) for n, p in (("blue", 1), ("green", 2)))


def model(name: str, *keys: str, gateways: tuple[str, ...] = ("edge",)) -> Model:
    return Model(name, gateways, VERSIONS, {"blue": 10_000}, keys)


def state(*objects: Object) -> State:
    return State().applied(Changes({o.resource_name: o for o in objects}))


def test_objects_can_be_created_and_deleted_together() -> None:
    s = state(Gateway("edge", 80), model("iris"))
    assert [o.resource_name for o in s.objects()] == ["gateways/edge", "models/iris"]
    assert s.applied(Changes({"models/iris": None, "gateways/edge": None})) == State()


def test_changes_lead_from_one_state_to_the_other() -> None:
    a = state(Gateway("edge", 80), model("iris"), model("wine"))
    b = state(Gateway("edge", 81), model("iris"), model("digits"))
    changes = a.changes_to(b)
    assert list(changes.objects) == ["gateways/edge", "models/digits", "models/wine"]
    assert a.applied(changes) == b
    assert not a.changes_to(a)


def test_a_state_is_made_of_a_mapping_for_each_collection() -> None:
    edge, iris = Gateway("edge", 80), model("iris")
    explicit = State({"edge": edge}, {"iris": iris})
    assert explicit == state(edge, iris)
    assert (explicit.gateways, explicit.models, explicit.secrets) == ({"edge": edge}, {"iris": iris}, {})
    assert explicit.of(Model) is explicit.models
    with pytest.raises(TypeError):
        State({}, {}, {}, {})


def test_objects_are_found_by_name() -> None:
    edge = Gateway("edge", 80)
    s = state(edge)
    assert s.get("gateways/edge") is edge
    assert [s.get(n) for n in ("gateways/other", "models/edge", "nodes/edge", "edge", "gateways/edge/more", "")] == [None] * 6
    assert s.require(Gateway, "edge") is edge


def test_a_missing_object_is_not_found() -> None:
    with pytest.raises(Error, match="gateways/x does not exist; there are: edge") as caught:
        state(Gateway("edge", 80)).require(Gateway, "x")
    assert caught.value.code is Code.NOT_FOUND
    with pytest.raises(Error, match="models/x does not exist; there are no models yet"):
        State().require(Model, "x")


def test_a_state_can_be_pickled() -> None:
    s = state(Gateway("edge", 80), model("iris"))
    assert pickle.loads(pickle.dumps(s)) == s


def test_a_collection_stays_the_same_object_while_nothing_in_it_changes() -> None:
    before = state(Gateway("edge", 80), model("iris"))
    after = before.applied(Changes({"models/wine": model("wine", "wine")}))
    assert after.gateways is before.gateways
    assert after.secrets is before.secrets
    assert after.models is not before.models
    assert "wine" not in before.models


histories = st.lists(st.dictionaries(st.sampled_from(["a", "b", "c"]), gateways | st.none(), max_size=3), max_size=5)


@given(histories)
@some
def test_changes_lead_from_any_state_to_any_other(history: list[dict[str, Gateway | None]]) -> None:
    states = [State()]
    for step in history:
        changes = {
            f"gateways/{name}": dataclasses.replace(gateway, name=name) if gateway else None for name, gateway in step.items()
        }
        states.append(states[-1].replayed(Changes(changes)))
    for a in states:
        for b in states:
            assert a.replayed(a.changes_to(b)) == b

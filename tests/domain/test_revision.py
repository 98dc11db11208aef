"""The next head: the changes in it, and the objects that stay the same."""

from __future__ import annotations

from controlplane.domain import Endpoint, Gateway, Model, Version
from controlplane.domain.revision import Action, Draft, Head, ObjectMeta
from controlplane.domain.state import Changes

EDGE = Gateway("edge", 80)
IRIS = Model("iris", ("edge",), (Version("blue", (Endpoint("10.0.0.1", 80),)),), {"blue": 10_000})
WINE = Model("wine", ("edge",), IRIS.versions, {"blue": 10_000})


def draft(time: float) -> Draft:
    return Draft("ann", "", Action.APPLY, time)


def test_the_next_head_has_the_changes_and_their_times() -> None:
    first = Head().after(Changes({"gateways/edge": EDGE, "models/iris": IRIS}), draft(10.0))
    assert (first.number, first.time) == (1, 10.0)
    assert first.meta == {"gateways/edge": ObjectMeta(1, 10.0, 10.0), "models/iris": ObjectMeta(1, 10.0, 10.0)}
    second = first.after(Changes({"models/wine": WINE, "models/iris": None}), draft(20.0))
    assert (second.number, second.time) == (2, 20.0)
    assert second.meta == {"gateways/edge": ObjectMeta(1, 10.0, 10.0), "models/wine": ObjectMeta(2, 20.0, 20.0)}
    third = second.after(Changes({"models/wine": IRIS, "gateways/edge": EDGE}), draft(30.0))
    assert third.meta["models/wine"] == ObjectMeta(3, 20.0, 30.0), "only the update time changes"
    assert first.meta["models/iris"].revision == 1, "a head never changes"


def test_the_same_input_gives_equal_heads() -> None:
    changes, first = Changes({"gateways/edge": EDGE}), draft(10.0)
    once, again = Head().after(changes, first), Head().after(changes, first)
    assert once == again
    assert once is not again


def test_unchanged_objects_and_collections_stay_the_same_objects() -> None:
    first = Head().after(Changes({"gateways/edge": EDGE, "models/iris": IRIS}), draft(10.0))
    second = first.after(Changes({"models/wine": WINE}), draft(20.0))
    assert second.state.gateways is first.state.gateways
    assert second.state.models["iris"] is IRIS
    assert second.state.models is not first.state.models

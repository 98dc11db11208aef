"""The policy for moving traffic: the table at the head of `switch.py`, for each kind of change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain import FULL_SHARE, Endpoint, Gateway, Model, Version, switch
from controlplane.domain.revision import Action, Draft, Head
from controlplane.domain.state import Changes, State
from controlplane.errors import Code, Error

EDGE, INNER = Gateway("edge", 80), Gateway("inner", 81)
BLUE, GREEN = (Version(n, (Endpoint("10.0.0.1", p),)) for n, p in (("blue", 1), ("green", 2)))
IRIS = Model("iris", ("edge", "inner"), (BLUE, GREEN, Version("idle")), {"blue": FULL_SHARE}, ("iris", "alias"))
HISTORY = "7a0b93c1"
DRAFT = Draft("ann", "", Action.APPLY, 1.0)
# The model is of revision 1, the newest revision is 2.
HEAD = (
    Head(history=HISTORY)
    .after(Changes({"gateways/edge": EDGE, "gateways/inner": INNER, "models/iris": IRIS}), DRAFT)
    .after(Changes({"gateways/edge": replace(EDGE, port=82)}), DRAFT)
)

Call = Callable[[str, bool], object]


def etag_of(revision: int) -> str:
    return f"{HISTORY}-{revision}"


def switched(etag: str, force: bool) -> Model:
    return switch.switch(HEAD, "iris", {"green": FULL_SHARE}, etag, force=force)


def deleted(etag: str, force: bool) -> Changes:
    return switch.delete(HEAD, "iris", etag, force=force)


def restored(etag: str, force: bool) -> Changes:
    return switch.restore(HEAD, State(), etag, force=force)


CALLS = [pytest.param(switched, etag_of(1), id="switch"), pytest.param(deleted, etag_of(1), id="delete")]
RESTORE = pytest.param(restored, etag_of(2), id="restore")


@pytest.mark.parametrize(("call", "live"), [*CALLS, RESTORE])
@pytest.mark.parametrize("force", [True, False])
def test_the_live_etag_permits_the_change(call: Call, live: str, force: bool) -> None:
    assert call(live, force)


@pytest.mark.parametrize(("call", "live"), [*CALLS, RESTORE])
@pytest.mark.parametrize("etag", [etag_of(0), etag_of(3), "ffffffff-1", ""])
def test_force_permits_the_change_whatever_the_etag_of(call: Call, live: str, etag: str) -> None:
    assert call(etag, True)


@pytest.mark.parametrize(("call", "live"), [*CALLS, RESTORE])
def test_a_stale_etag_is_refused(call: Call, live: str) -> None:
    with pytest.raises(Error) as caught:
        call(etag_of(3), False)
    assert (caught.value.code, caught.value.reason) == (Code.ABORTED, "STALE_ETAG")
    assert caught.value.metadata["live"] == live


@pytest.mark.parametrize(("call", "live"), [*CALLS, RESTORE])
def test_a_change_without_etag_and_force_is_refused(call: Call, live: str) -> None:
    with pytest.raises(Error) as caught:
        call("", False)
    assert (caught.value.code, caught.value.reason) == (Code.FAILED_PRECONDITION, "MOVES_TRAFFIC")
    assert [v.field for v in caught.value.violations] == ["etag"]
    assert "or set force" in caught.value.message


def test_a_permitted_change_is_made() -> None:
    assert switched(etag_of(1), False) == replace(IRIS, split={"green": FULL_SHARE})
    assert deleted(etag_of(1), False) == Changes({"models/iris": None})
    assert HEAD.state.applied(restored(etag_of(2), False)) == State()
    assert switch.to_version("green") == {"green": FULL_SHARE}


def test_a_deletion_whose_request_has_no_etag_field_needs_force() -> None:
    with pytest.raises(Error, match="requests for models/iris would be answered 404: set force") as caught:
        switch.delete(HEAD, "iris", None)
    assert caught.value.reason == "MOVES_TRAFFIC"
    assert switch.delete(HEAD, "iris", None, force=True) == Changes({"models/iris": None})


@pytest.mark.parametrize(
    ("label", "split", "reason", "field"),
    [
        ("wine", {"green": FULL_SHARE}, "NOT_FOUND", "model"),
        ("iris", {"red": FULL_SHARE}, "UNKNOWN_VERSION", "split.red"),
        ("iris", {"idle": FULL_SHARE}, "NO_ENDPOINTS", "split.idle"),
        ("iris", {"green": 9_999}, "INVALID_FIELD", "split"),
        ("iris", {"green": FULL_SHARE + 1, "blue": -1}, "INVALID_FIELD", "split.green"),
        ("iris", {}, "INVALID_FIELD", "split"),
    ],
)
def test_an_invalid_split_is_refused_whatever_the_etag_of(label: str, split: dict[str, int], reason: str, field: str) -> None:
    with pytest.raises(Error) as caught:
        switch.switch(HEAD, label, split, etag_of(1), force=True)
    assert (caught.value.reason, caught.value.violations[0].field) == (reason, field)


def test_a_replaced_model_may_change_anything_but_its_split() -> None:
    switch.check_split(None, IRIS, "", "split")
    switch.check_split(IRIS, replace(IRIS, preview_header="x-version"), "", "split")
    other = replace(IRIS, split={"green": FULL_SHARE})
    switch.check_split(IRIS, other, etag_of(1), "split")
    switch.check_split(IRIS, other, "", "split", force=True)
    with pytest.raises(Error, match="the split of models/iris differs from the live split") as caught:
        switch.check_split(IRIS, other, "", "model.etag")
    assert (caught.value.reason, caught.value.violations[0].field) == ("MOVES_TRAFFIC", "model.etag")


@given(st.integers(0, FULL_SHARE), st.booleans(), st.sampled_from(["", etag_of(1), etag_of(2), "ffffffff-1"]))
def test_traffic_moves_only_as_the_table_says(share: int, force: bool, etag: str) -> None:
    split = {"blue": share, "green": FULL_SHARE - share}
    if not force and etag != etag_of(1):
        with pytest.raises(Error) as caught:
            switch.switch(HEAD, "iris", split, etag)
        expected = {"": "MOVES_TRAFFIC", "ffffffff-1": "OTHER_HISTORY"}
        assert caught.value.reason == expected.get(etag, "STALE_ETAG")
        return
    model = switch.switch(HEAD, "iris", split, etag, force=force)
    assert model == replace(IRIS, split=split)
    after = HEAD.state.applied(Changes({"models/iris": model}))
    assert switch.moved_models(HEAD.state, after) == (["models/iris"] if model.split != IRIS.split else [])


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        ({"split": {"green": FULL_SHARE}}, True),
        ({"keys": ("iris",)}, True),
        ({"gateways": ("edge",)}, True),
        ({"preview_header": "x-version"}, False),
        ({"keys": ("iris", "alias", "more")}, False),
    ],
)
def test_a_model_is_moved_by_another_split_or_a_lost_key_or_gateway(changes: dict[str, object], moved: bool) -> None:
    new = replace(IRIS, **changes)  # type: ignore[arg-type]
    after = HEAD.state.applied(Changes({"models/iris": new}))
    assert switch.moved_models(HEAD.state, after) == (["models/iris"] if moved else [])


def test_a_deleted_model_is_moved_and_a_new_one_is_not() -> None:
    assert switch.moved_models(HEAD.state, State()) == ["models/iris"]
    assert switch.moved_models(State(), HEAD.state) == []

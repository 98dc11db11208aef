"""Update masks, as AIP-134 defines them."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api.masks import updated, updated_fields
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1.gateway_pb2 import Gateway
from controlplane.generated.turnout.v1.model_pb2 import Endpoint, Model, Sticky, Timeouts, Version

LIVE = Model(
    name="models/iris",
    gateways=["gateways/edge"],
    keys=["iris", "flowers"],
    versions=[Version(name="blue", endpoints=[Endpoint(host="10.0.0.1", port=80)])],
    split={"blue": 10_000},
    preview_header="x-version",
    sticky=Sticky(header="x-user"),
    etag="7",
)
SETTABLE = [f.name for f in Model.DESCRIPTOR.fields if f.name not in ("name", "etag", "create_time", "update_time")]


def mask(*paths: str) -> FieldMask:
    return FieldMask(paths=paths)


@st.composite
def models(draw: st.DrawFn) -> Any:
    """A model that populates any part of its fields."""
    complete: Any = Model(
        name="models/iris",
        gateways=["gateways/other"],
        keys=["k"],
        versions=[Version(name="green")],
        split={"green": 10_000},
        preview_header="x-try",
        timeouts=Timeouts(),
    )
    complete.sticky.cookie = "user"
    for name in draw(st.sets(st.sampled_from(SETTABLE))):
        complete.ClearField(name)
    return complete


@given(models(), st.lists(st.sampled_from(SETTABLE), min_size=1, unique=True))
def test_a_mask_updates_exactly_the_fields_that_it_names(sent: Any, paths: list[str]) -> None:
    result: Any = updated(LIVE, sent, mask(*paths))
    live: Any = LIVE
    for name in SETTABLE:
        source = sent if name in paths else live
        assert getattr(result, name) == getattr(source, name), name
        if name not in ("gateways", "keys", "versions", "split", "preview_header", "rate_limits", "patches", "labels"):
            assert result.HasField(name) == source.HasField(name), name
    assert (result.name, result.etag) == (LIVE.name, LIVE.etag)


@given(models())
def test_without_a_mask_the_populated_fields_are_updated(sent: Model) -> None:
    populated = [f.name for f, _ in sent.ListFields() if f.name != "name"]
    assert updated_fields(sent, mask()) == populated
    result = updated(LIVE, sent, mask())
    assert result == (updated(LIVE, sent, mask(*populated)) if populated else LIVE)


@given(models())
def test_a_star_replaces_the_object(sent: Model) -> None:
    assert updated(LIVE, sent, mask("*")) is sent
    assert updated_fields(sent, mask("*")) == SETTABLE


@given(models(), st.sampled_from([mask(), mask("keys"), mask("sticky", "split")]))
def test_the_arguments_are_not_changed(sent: Model, paths: FieldMask) -> None:
    live, before = Model(), Model()
    live.CopyFrom(LIVE)
    before.CopyFrom(sent)
    updated(live, sent, paths)
    assert (live, sent) == (LIVE, before)


def test_a_populated_message_is_replaced_and_not_merged() -> None:
    sent = Model(name="models/iris", versions=[Version(name="green")], split={"green": 10_000})
    result = updated(LIVE, sent, mask())
    assert [v.name for v in result.versions] == ["green"]
    assert dict(result.split) == {"green": 10_000}


def test_one_member_of_a_oneof_replaces_another() -> None:
    live, sent = Gateway(port=80), Gateway()
    live.path.segment = 2
    sent.header.name = "x-model"
    assert updated(live, sent, mask()).WhichOneof("routing") == "header"
    assert updated(live, sent, mask("header")).WhichOneof("routing") == "header"


def test_etag_and_times_are_not_taken() -> None:
    sent = Model(name="models/iris", etag="3", keys=["k"])
    sent.update_time.seconds = 1
    result = updated(LIVE, sent, mask())
    assert (result.etag, result.HasField("update_time"), list(result.keys)) == ("7", False, ["k"])


@pytest.mark.parametrize("path", ["colour", "name", "etag", "create_time", "versions.blue", "", "*"])
def test_a_path_that_is_no_settable_field_is_refused(path: str) -> None:
    with pytest.raises(Error) as caught:
        updated(LIVE, Model(), mask("keys", path))
    assert (caught.value.code, caught.value.reason) == (Code.INVALID_ARGUMENT, "UNKNOWN_FIELD")
    assert [v.field for v in caught.value.violations] == ["update_mask.paths[1]"]
    assert "these can be: gateways, keys, versions" in caught.value.message

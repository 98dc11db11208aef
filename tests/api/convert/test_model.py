"""Conversion of models."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api.convert.model import model_from_proto, model_to_proto
from controlplane.domain import Endpoint, Model, Retries, Timeouts, Version
from controlplane.domain.revision import ObjectMeta
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1 import gateway_pb2, model_pb2
from tests.nouns import models, some

BLUE = model_pb2.Version(name="blue", endpoints=[model_pb2.Endpoint(host="10.0.0.1", port=80)])
GREEN = model_pb2.Version(name="green", endpoints=[model_pb2.Endpoint(host="10.0.0.2", port=80)])
META = ObjectMeta(7, 100.5, 200.25, "7a0b93c1")


@some
@given(models())
def test_a_model_survives_both_conversions(model: Model) -> None:
    proto = model_to_proto(model, META)
    back = model_from_proto(model_pb2.Model.FromString(proto.SerializeToString()))
    assert back == model
    assert model_to_proto(back, META) == proto


def test_every_number_that_is_not_required_distinguishes_0_from_unset() -> None:
    def numbers(message: Descriptor) -> Iterator[FieldDescriptor]:
        for field in message.fields:
            if field.message_type is not None and field.message_type.file in (model_pb2.DESCRIPTOR, gateway_pb2.DESCRIPTOR):
                if not field.message_type.GetOptions().map_entry:
                    yield from numbers(field.message_type)
            elif field.cpp_type == FieldDescriptor.CPPTYPE_UINT32:
                yield field

    every_number = [*numbers(model_pb2.Model.DESCRIPTOR), *numbers(gateway_pb2.Gateway.DESCRIPTOR)]
    assert len(every_number) > 10
    # These are required, and can't be 0.
    assert {f.full_name for f in every_number if not f.has_presence} == {
        "turnout.v1.Endpoint.port",
        "turnout.v1.Gateway.port",
        "turnout.v1.GrpcSink.port",
        "turnout.v1.RateLimit.requests",
    }


@pytest.mark.parametrize(
    ("versions", "split"),
    [
        ([BLUE, GREEN], {"blue": 10_000}),
        ([GREEN, BLUE], {"green": 10_000}),
        ([model_pb2.Version(name="blue"), GREEN], {"green": 10_000}),
    ],
)
def test_a_new_model_without_a_split_sends_all_to_its_first_version_with_endpoints(
    versions: list[model_pb2.Version], split: dict[str, int]
) -> None:
    assert model_from_proto(model_pb2.Model(name="m", gateways=["g"], versions=versions)).split == split


@some
@given(models(), st.data())
def test_an_unset_split_is_the_live_one(model: Model, data: st.DataObject) -> None:
    proto = model_to_proto(model)
    proto.ClearField("split")
    assert model_from_proto(proto, model) == model


def test_zero_is_not_unset() -> None:
    zero = model_pb2.Timeouts(idle=Duration())
    model = model_from_proto(
        model_pb2.Model(name="m", gateways=["g"], versions=[BLUE], timeouts=zero, retries=model_pb2.Retries(attempts=0))
    )
    assert (model.timeouts.idle, model.timeouts.request, model.retries.attempts) == (0.0, 0.0, 0)
    assert model_from_proto(model_to_proto(model)) == model


def test_names_are_full_and_defaults_are_left_out() -> None:
    model = Model("m", ("g",), (Version("blue", (Endpoint("10.0.0.1", 80),)),), {"blue": 10_000})
    proto = model_to_proto(model, META)
    for name in ("timeouts", "retries", "sticky", "mirror", "rewrite"):
        assert not proto.HasField(name)
    assert not proto.versions[0].HasField("limits")
    assert (proto.name, list(proto.gateways), proto.etag) == ("models/m", ["gateways/g"], "7a0b93c1-7")
    assert (proto.create_time.seconds, proto.create_time.nanos) == (100, 500_000_000)
    assert not model_to_proto(model).HasField("create_time")


def test_all_errors_are_reported_together() -> None:
    broken = model_pb2.Version(name="B", endpoints=[model_pb2.Endpoint(), model_pb2.Endpoint(host="a", port=1)])
    proto = model_pb2.Model(
        name="gateways/m",
        gateways=["models/g", "ok"],
        versions=[BLUE, broken],
        split={"pink": 10_000},
        sticky=model_pb2.Sticky(),
        keys=["?"],
        retries=model_pb2.Retries(attempts=99),
    )
    with pytest.raises(Error) as caught:
        model_from_proto(proto)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert {v.field for v in caught.value.violations} == {
        "name",
        "gateways[0]",
        "versions[1].endpoints[0].host",
        "versions[1].name",
        "sticky",
        "retries.attempts",
        "keys[0]",
        "split.pink",
    }


def test_no_error_names_a_placeholder() -> None:
    """A version whose endpoint is invalid can have a share; the only error is that of the endpoint."""
    broken = model_pb2.Version(name="green", endpoints=[model_pb2.Endpoint(host="10.0.0.1")])
    with pytest.raises(Error) as caught:
        model_from_proto(model_pb2.Model(name="m", gateways=["g"], versions=[BLUE, broken], split={"green": 10_000}))
    assert [v.field for v in caught.value.violations] == ["versions[1].endpoints[0].port"]


def test_an_unset_field_has_its_default() -> None:
    mirror = model_pb2.Mirror(version="blue")
    model = model_from_proto(model_pb2.Model(name="m", gateways=["g"], versions=[BLUE], mirror=mirror))
    assert model.mirror is not None
    assert model.mirror.basis_points == 10_000
    assert (model.timeouts, model.retries, model.keys) == (Timeouts(), Retries(), ())
    assert (model.sticky, model.rewrite, model.preview_header) == (None, None, "")
    assert model.split == {"blue": 10_000}


@pytest.mark.parametrize(
    ("versions", "reason", "field"),
    [
        ([GREEN], "VERSION_HAS_SHARE", "versions"),
        ([GREEN, model_pb2.Version(name="blue")], "NO_ENDPOINTS", "versions[1].endpoints"),
    ],
)
def test_the_live_split_must_fit_the_versions(versions: list[model_pb2.Version], reason: str, field: str) -> None:
    live = model_from_proto(model_pb2.Model(name="m", gateways=["g"], versions=[BLUE, GREEN]))
    with pytest.raises(Error) as caught:
        model_from_proto(model_pb2.Model(name="m", gateways=["g"], versions=versions), live)
    assert (caught.value.code, caught.value.reason) == (Code.FAILED_PRECONDITION, reason)
    assert [v.field for v in caught.value.violations] == [field]

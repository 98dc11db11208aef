from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api.convert import (
    duration,
    gateway_from_proto,
    gateway_to_proto,
    label,
    model_from_proto,
    model_to_proto,
    seconds,
    timestamp,
)
from controlplane.domain import ConnectionLimits, Endpoint, Gateway, Model, PathRouting, Protocol, Retries, Timeouts, Version
from controlplane.domain.revision import ObjectMeta
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1 import gateway_pb2, model_pb2
from tests.nouns import gateways, models, some

BLUE = model_pb2.Version(name="blue", endpoints=[model_pb2.Endpoint(host="10.0.0.1", port=80)])
GREEN = model_pb2.Version(name="green", endpoints=[model_pb2.Endpoint(host="10.0.0.2", port=80)])
KEPT = ObjectMeta(7, 100.5, 200.25)


@some
@given(gateways)
def test_gateways_come_back_equal(gateway: Gateway) -> None:
    proto = gateway_to_proto(gateway, KEPT)
    assert gateway_from_proto(gateway_pb2.Gateway.FromString(proto.SerializeToString())) == gateway


@some
@given(models())
def test_models_come_back_equal(model: Model) -> None:
    proto = model_to_proto(model, KEPT)
    back = model_from_proto(model_pb2.Model.FromString(proto.SerializeToString()))
    assert back == model
    assert model_to_proto(back, KEPT) == proto


def test_every_number_of_the_nouns_tells_0_from_unset() -> None:
    def numbers(message: Descriptor) -> Iterator[FieldDescriptor]:
        for field in message.fields:
            if field.message_type is not None and field.message_type.file in (model_pb2.DESCRIPTOR, gateway_pb2.DESCRIPTOR):
                if not field.message_type.GetOptions().map_entry:
                    yield from numbers(field.message_type)
            elif field.cpp_type == FieldDescriptor.CPPTYPE_UINT32:
                yield field

    found = [*numbers(model_pb2.Model.DESCRIPTOR), *numbers(gateway_pb2.Gateway.DESCRIPTOR)]
    assert len(found) > 10
    # A port is required, and 0 is none.
    assert {f.full_name for f in found if not f.has_presence} == {
        "turnout.v1.Endpoint.port",
        "turnout.v1.Gateway.port",
    }


def test_no_retries_at_once_is_a_limit_and_is_shown() -> None:
    sent = model_pb2.Version(name="blue", endpoints=BLUE.endpoints, limits=model_pb2.Limits(max_retries=0))
    made = model_from_proto(model_pb2.Model(name="iris", gateways=["edge"], versions=[sent]))
    assert made.versions[0].limits == ConnectionLimits(max_retries=0)
    shown = model_to_proto(made)
    assert shown.versions[0].limits.HasField("max_retries")
    assert model_from_proto(shown) == made


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
def test_a_split_that_is_left_out_is_the_live_one(model: Model, data: st.DataObject) -> None:
    proto = model_to_proto(model)
    proto.ClearField("split")
    assert model_from_proto(proto, model) == model


def test_what_is_unset_takes_its_default() -> None:
    versions = [
        model_pb2.Version(
            name="blue",
            endpoints=BLUE.endpoints,
            health_check=model_pb2.HealthCheck(),
            outlier_detection=model_pb2.OutlierDetection(),
            limits=model_pb2.Limits(max_retries=3),
        )
    ]
    mirror = model_pb2.Mirror(version="blue")
    model = model_from_proto(model_pb2.Model(name="m", gateways=["g"], versions=versions, mirror=mirror))
    version = model.versions[0]
    assert (version.protocol, version.connect_timeout, version.endpoints[0].weight) == (Protocol.HTTP1, 5.0, 1)
    assert version.health_check is not None
    assert version.health_check.path == "/v2/health/ready"
    assert (version.health_check.interval, version.health_check.timeout) == (5.0, 2.0)
    assert version.outlier_detection is not None
    assert version.outlier_detection.ejection_time == 30.0
    assert (version.limits.max_retries, version.limits.max_connections) == (3, 65_536)
    assert model.mirror is not None
    assert model.mirror.basis_points == 10_000
    assert (model.timeouts, model.retries, model.keys) == (Timeouts(), Retries(), ())
    assert model.split == {"blue": 10_000}
    gateway = gateway_from_proto(gateway_pb2.Gateway(name="g", port=1))
    assert (gateway.address, gateway.routing) == ("0.0.0.0", PathRouting())
    assert gateway_from_proto(
        gateway_pb2.Gateway(name="g", port=1, path=gateway_pb2.PathRouting(segment=2))
    ).routing == PathRouting(2)


def test_unset_is_not_zero() -> None:
    zero = model_pb2.Timeouts(idle=Duration())
    model = model_from_proto(
        model_pb2.Model(name="m", gateways=["g"], versions=[BLUE], timeouts=zero, retries=model_pb2.Retries(attempts=0))
    )
    assert (model.timeouts.idle, model.timeouts.request, model.retries.attempts) == (0.0, 0.0, 0)
    assert model_from_proto(model_to_proto(model)) == model


def test_what_is_at_its_default_is_left_out() -> None:
    model = Model("m", ("g",), (Version("blue", (Endpoint("10.0.0.1", 80),)),), {"blue": 10_000})
    proto = model_to_proto(model, KEPT)
    for name in ("timeouts", "retries", "sticky", "mirror", "rewrite"):
        assert not proto.HasField(name)
    assert not proto.versions[0].HasField("limits")
    assert (proto.name, list(proto.gateways), proto.etag) == ("models/m", ["gateways/g"], "7")
    assert (proto.create_time.seconds, proto.create_time.nanos) == (100, 500_000_000)
    assert not model_to_proto(model).HasField("create_time")


@pytest.mark.parametrize("name", ["iris", "models/iris"])
def test_labels(name: str) -> None:
    assert label(name, Model, "f") == "iris"


@pytest.mark.parametrize("name", ["", "gateways/iris", "/iris", "models/x/iris", "model/iris"])
def test_names_of_something_else(name: str) -> None:
    with pytest.raises(Error) as caught:
        label(name, Model, "f")
    assert [v.field for v in caught.value.violations] == ["f"]


@some
@given(st.integers(0, 86_400_000))
def test_times_keep_their_milliseconds(millis: int) -> None:
    assert seconds(duration(millis / 1000)) == millis / 1000
    assert timestamp(millis / 1000).ToNanoseconds() == millis * 1_000_000


def test_everything_wrong_is_said_at_once() -> None:
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


def test_a_stand_in_is_never_spoken_of() -> None:
    """A version with a good name and a bad endpoint may have a share, and nothing more is said of it."""
    broken = model_pb2.Version(name="green", endpoints=[model_pb2.Endpoint(host="10.0.0.1")])
    with pytest.raises(Error) as caught:
        model_from_proto(model_pb2.Model(name="m", gateways=["g"], versions=[BLUE, broken], split={"green": 10_000}))
    assert [v.field for v in caught.value.violations] == ["versions[1].endpoints[0].port"]

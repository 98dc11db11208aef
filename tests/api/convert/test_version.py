"""Conversion of versions."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given

from controlplane.api.convert.version import version_from_proto, version_to_proto
from controlplane.domain import ConnectionLimits, Endpoint, Model, Protocol, UpstreamTls, Version
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1 import model_pb2
from tests.nouns import models, some

ENDPOINTS = [model_pb2.Endpoint(host="10.0.0.1", port=80)]


@some
@given(models())
def test_a_version_survives_both_conversions(model: Model) -> None:
    for version in model.versions:
        message = version_to_proto(version)
        assert version_from_proto(model_pb2.Version.FromString(message.SerializeToString())) == version


def test_an_unset_field_has_its_default() -> None:
    version = version_from_proto(
        model_pb2.Version(
            name="blue",
            endpoints=ENDPOINTS,
            health_check=model_pb2.HealthCheck(),
            outlier_detection=model_pb2.OutlierDetection(),
            limits=model_pb2.Limits(max_retries=3),
        )
    )
    assert (version.protocol, version.connect_timeout, version.endpoints[0].weight) == (Protocol.HTTP1, 5.0, 1)
    assert version.health_check is not None
    assert version.health_check.path == "/v2/health/ready"
    assert (version.health_check.interval, version.health_check.timeout) == (5.0, 2.0)
    assert version.outlier_detection is not None
    assert version.outlier_detection.ejection_time == 30.0
    assert (version.limits.max_retries, version.limits.max_connections) == (3, 65_536)
    assert version_from_proto(model_pb2.Version(name="blue")) == Version("blue")


def test_settings_at_their_defaults_are_left_out() -> None:
    message = version_to_proto(Version("blue", (Endpoint("10.0.0.1", 80),)))
    for name in ("tls", "health_check", "outlier_detection", "limits", "connect_timeout"):
        assert not message.HasField(name), name
    assert not message.endpoints[0].HasField("weight")
    assert message.protocol == model_pb2.PROTOCOL_HTTP1


def test_no_retries_is_a_limit() -> None:
    version = version_from_proto(model_pb2.Version(name="blue", limits=model_pb2.Limits(max_retries=0)))
    assert version.limits == ConnectionLimits(max_retries=0)
    message = version_to_proto(version)
    assert message.limits.HasField("max_retries")
    assert version_from_proto(message) == version


def test_secrets_are_named_in_full() -> None:
    version = Version("blue", tls=UpstreamTls("a.b", ca_certificates="ca", client_certificate="client"))
    message = version_to_proto(version)
    assert (message.tls.ca_certificates, message.tls.client_certificate) == ("secrets/ca", "secrets/client")
    assert version_from_proto(message) == version


def test_all_errors_are_reported_together() -> None:
    message = model_pb2.Version(
        name="B",
        endpoints=[model_pb2.Endpoint(), model_pb2.Endpoint(host="a", port=1)],
        protocol=9,  # type: ignore[arg-type]
        tls=model_pb2.UpstreamTls(),
        health_check=model_pb2.HealthCheck(interval=Duration(nanos=1)),
        outlier_detection=model_pb2.OutlierDetection(consecutive_failures=0),
        limits=model_pb2.Limits(max_requests=0),
    )
    with pytest.raises(Error) as caught:
        version_from_proto(message)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert {v.field for v in caught.value.violations} == {
        "name",
        "endpoints[0].host",
        "protocol",
        "tls.server_name",
        "health_check.interval",
        "outlier_detection.consecutive_failures",
        "limits.max_requests",
    }

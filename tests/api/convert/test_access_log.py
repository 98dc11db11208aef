"""Conversion of access logs."""

from __future__ import annotations

import pytest
from hypothesis import given

from controlplane.api.convert.access_log import access_log_from_proto, access_log_to_proto
from controlplane.domain import AccessLog
from controlplane.errors import Error
from controlplane.generated.turnout.v1 import gateway_pb2
from tests.nouns import access_logs


@given(access_logs)
def test_an_access_log_survives_both_conversions(log: AccessLog) -> None:
    proto = access_log_to_proto(log)
    assert proto.WhichOneof("sink") is not None
    assert access_log_from_proto(gateway_pb2.AccessLog.FromString(proto.SerializeToString())) == log


def test_without_a_sink_it_is_standard_output() -> None:
    assert access_log_from_proto(gateway_pb2.AccessLog()) == AccessLog()


def test_errors_name_the_field_of_the_sink() -> None:
    with pytest.raises(Error) as caught:
        access_log_from_proto(gateway_pb2.AccessLog(grpc=gateway_pb2.GrpcSink()))
    assert [v.field for v in caught.value.violations] == ["grpc.host", "grpc.port"]

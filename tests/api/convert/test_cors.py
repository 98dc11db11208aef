"""Conversion of CORS policies."""

from __future__ import annotations

from hypothesis import given

from controlplane.api.convert.cors import cors_from_proto, cors_to_proto
from controlplane.domain import Cors
from controlplane.generated.turnout.v1 import gateway_pb2
from tests.nouns import cors, some


@some
@given(cors)
def test_a_policy_survives_both_conversions(policy: Cors) -> None:
    assert cors_from_proto(gateway_pb2.Cors.FromString(cors_to_proto(policy).SerializeToString())) == policy


def test_no_time_and_zero_are_different() -> None:
    assert not cors_to_proto(Cors(("*",))).HasField("max_age")
    assert cors_to_proto(Cors(("*",), max_age=0.0)).HasField("max_age")

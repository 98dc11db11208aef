"""Conversion of rate limits."""

from __future__ import annotations

import pytest
from hypothesis import given

from controlplane.api.convert.rate_limit import (
    rate_limit_from_proto,
    rate_limit_to_proto,
    rate_limiting_from_proto,
    rate_limiting_to_proto,
)
from controlplane.domain import RateLimit, RateLimiting
from controlplane.errors import Error
from controlplane.generated.turnout.v1 import gateway_pb2, model_pb2
from tests.nouns import rate_limits, some


@some
@given(rate_limits)
def test_a_rate_limit_survives_both_conversions(limit: RateLimit) -> None:
    assert rate_limit_from_proto(rate_limit_to_proto(limit)) == limit


@pytest.mark.parametrize("limiting", [RateLimiting(), RateLimiting(True, 5)])
def test_the_settings_of_a_gateway_survive_both_conversions(limiting: RateLimiting) -> None:
    assert rate_limiting_from_proto(rate_limiting_to_proto(limiting)) == limiting


def test_unset_fields_have_their_defaults() -> None:
    assert rate_limit_from_proto(model_pb2.RateLimit(requests=3)) == RateLimit(3, 1.0)
    assert not rate_limit_to_proto(RateLimit(3, 1.0)).HasField("per")
    assert rate_limiting_from_proto(gateway_pb2.RateLimiting()).max_users == 10_000


@pytest.mark.parametrize(
    ("proto", "field"),
    [
        (model_pb2.RateLimit(requests=1, client_address=False), "client_address"),
        (model_pb2.RateLimit(requests=1, header=""), "header"),
        (model_pb2.RateLimit(requests=1, cookie=""), "cookie"),
        (model_pb2.RateLimit(), "requests"),
    ],
)
def test_a_user_is_identified_by_something(proto: model_pb2.RateLimit, field: str) -> None:
    with pytest.raises(Error) as caught:
        rate_limit_from_proto(proto)
    assert caught.value.violations[0].field == field

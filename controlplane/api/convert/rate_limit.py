"""Conversion of rate limits to messages and back."""

from __future__ import annotations

from controlplane.api.convert.names import duration, number, seconds
from controlplane.domain import RateLimit, RateLimiting
from controlplane.errors import invalid
from controlplane.generated.turnout.v1 import gateway_pb2, model_pb2

_DEFAULT_PER = 1.0  # seconds


def rate_limit_to_proto(limit: RateLimit) -> model_pb2.RateLimit:
    """Return the message of a model's rate limit."""
    proto = model_pb2.RateLimit(requests=limit.requests)
    if limit.per != _DEFAULT_PER:
        proto.per.CopyFrom(duration(limit.per))
    if limit.header:
        proto.header = limit.header
    elif limit.cookie:
        proto.cookie = limit.cookie
    elif limit.client_address:
        proto.client_address = True
    return proto


def rate_limit_from_proto(proto: model_pb2.RateLimit) -> RateLimit:
    """Return the rate limit of a message. Errors: INVALID_ARGUMENT, by the field's path in the message."""
    user = proto.WhichOneof("user")
    if user is not None and not getattr(proto, user):
        raise invalid(user, "must be true, or left out" if user == "client_address" else "must not be empty")
    per = seconds(proto.per) if proto.HasField("per") else _DEFAULT_PER
    return RateLimit(proto.requests, per, proto.header, proto.client_address, proto.cookie)


def rate_limiting_to_proto(limiting: RateLimiting) -> gateway_pb2.RateLimiting:
    """Return the message of a gateway's settings for rate limits."""
    proto = gateway_pb2.RateLimiting(divide_by_expected_nodes=limiting.divide_by_expected_nodes)
    if limiting.max_users != RateLimiting().max_users:
        proto.max_users = limiting.max_users
    return proto


def rate_limiting_from_proto(proto: gateway_pb2.RateLimiting) -> RateLimiting:
    """Return a gateway's settings for rate limits. Errors: INVALID_ARGUMENT, by the field's path in the message."""
    return RateLimiting(proto.divide_by_expected_nodes, number(proto, "max_users", RateLimiting()))

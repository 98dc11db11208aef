"""Rate limits: token buckets in the listener of a gateway with `rate_limiting`, and a few bytes in the route of each model.

    listener   Envoy's local rate limit filter: a token bucket for each limit of each of the gateway's models, or for each user
    route      descriptors, by which the filter finds the buckets of a request: `generic_key` is MODEL or MODEL/I, with I the
               number of the limit, and then comes what identifies the user. And the seconds after which a request is worth it

The buckets are not in the route: a switch would send them, and it would fill them again. So a model whose limits change
replaces the listener, in place: open connections go on, and are asked to leave while Envoy drains them.

A bucket of a user is made at the user's first request ("dynamic descriptors", a descriptor without a value). It holds
`requests` tokens, and gets as many in the time of `per`, evenly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2

from controlplane.compiler.message import duration, packed
from controlplane.compiler.who import NAMESPACE
from controlplane.domain import Gateway, Model, RateLimit

# The limits of a gateway's models, by the label of the model, in order. Models without limits are left out.
Limits = Sequence[tuple[str, tuple[RateLimit, ...]]]

_FILTER = "envoy.filters.http.local_ratelimit"
_MODEL, _USER, _ADDRESS = "generic_key", "user", "remote_address"
_RETRY_AFTER = "retry_after"


def limits_of(models: Iterable[Model]) -> Limits:
    """Return the limits of these models."""
    return tuple((model.name, model.rate_limits) for model in models if model.rate_limits)


def add_rate_limits(manager: Any, gateway: Gateway, limits: Limits) -> None:
    """Add the filter that applies limits to a connection manager. Do nothing if there are none."""
    limiting = gateway.rate_limiting
    if limiting is None or not limits:
        return
    config = local_rate_limit_pb2.LocalRateLimit(
        stat_prefix="turnout",
        rate_limited_as_resource_exhausted=True,
        max_dynamic_descriptors={"value": limiting.max_users},
    )
    for fraction in (config.filter_enabled, config.filter_enforced):
        fraction.default_value.numerator = 100
    header = config.response_headers_to_add.add(append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD).header
    header.key, header.value = "retry-after", f"%METADATA(VIRTUAL_HOST:{NAMESPACE}:{_RETRY_AFTER})%"
    nodes = gateway.expected_nodes if limiting.divide_by_expected_nodes else 1
    for model, of_model in limits:
        config.descriptors.extend(_bucket(model, i, limit, nodes) for i, limit in enumerate(of_model))
    manager.http_filters.add(name=_FILTER, typed_config=packed(config))


def _bucket(model: str, index: int, limit: RateLimit, nodes: int) -> Any:
    descriptor = ratelimit_pb2.LocalRateLimitDescriptor()
    descriptor.entries.add(key=_MODEL, value=_key(model, index))
    if limit.by_user:
        descriptor.entries.add(key=_ADDRESS if limit.client_address else _USER)  # without a value: each has its own bucket
    tokens = max(1, limit.requests // nodes)
    bucket = descriptor.token_bucket
    bucket.max_tokens = bucket.tokens_per_fill.value = tokens
    # The same rate, also if the limit can't be divided evenly.
    bucket.fill_interval.CopyFrom(duration(limit.per * tokens * nodes / limit.requests))
    return descriptor


def set_rate_limits(host: Any, model: Model) -> None:
    """Set the descriptors of a model's requests in its virtual host."""
    for i, limit in enumerate(model.rate_limits):
        actions = host.rate_limits.add().actions
        actions.add().generic_key.descriptor_value = _key(model.name, i)
        if limit.client_address:
            actions.add().remote_address.SetInParent()
        elif limit.header:
            actions.add(
                request_headers=route_components_pb2.RateLimit.Action.RequestHeaders(
                    header_name=limit.header, descriptor_key=_USER
                )
            )
    if model.rate_limits:
        host.metadata.filter_metadata[NAMESPACE][_RETRY_AFTER] = str(_seconds_to_next(model))


def _key(model: str, index: int) -> str:
    return f"{model}/{index}" if index else model


def _seconds_to_next(model: Model) -> int:
    """Return the seconds in which every limit of a model allows one more request."""
    return -int(-max(limit.per / limit.requests for limit in model.rate_limits) // 1)  # rounded up

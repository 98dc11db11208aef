"""Rate limits: token buckets in the filters of a gateway with `rate_limiting`, and a few bytes in the route of each model.

    listener     names two filters, whose configurations are resources of their own (ECDS)
    extensions   `gateways/NAME/users`: the headers and cookies that identify users. The filter copies their values to
                 metadata of the request.
                 `gateways/NAME/rate-limits`: for each limit of each model, a token bucket for all users or for each user
    route        descriptors, by which the filter finds the buckets of a request: `generic_key` is MODEL, or MODEL/I for the
                 model's further limits. In a limit by user, the user follows.
                 metadata with the value of `retry-after`, in seconds

The buckets are not in the listener: a model whose limits change would drain its connections, and end the streams that last
longer. The buckets are not in the route: each switch would send them, and fill them again. As extensions they are replaced
without an effect on connections, and requests in progress go on. All buckets of the gateway are then full.

A bucket of a user is made at the user's first request ("dynamic descriptors", a descriptor without a value). It holds
`requests` tokens, and gets as many in the time of `per`, evenly. The descriptor takes the user from metadata and not from a
header. Otherwise Envoy could read no cookies, and an empty value would be a user, which it is not for `sticky` either.

Known flaw: Envoy 1.36 to 1.40 log a warning that descriptors in routes "will be ignored in the future". Those in the filter
itself can't depend on the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from envoy.config.core.v3 import extension_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from envoy.extensions.filters.http.header_to_metadata.v3 import header_to_metadata_pb2
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2

from controlplane.compiler.message import duration, over_ads, packed, resource, set_header_option
from controlplane.compiler.who import NAMESPACE
from controlplane.domain import Gateway, Model, RateLimit
from controlplane.envoy_types import EXTENSIONS, url_of
from controlplane.snapshot import Resource

# The limits of a gateway's models, by the label of the model, in order. Models without limits are left out.
Limits = Sequence[tuple[str, tuple[RateLimit, ...]]]

_MODEL, _USER, _ADDRESS = "generic_key", "user", "remote_address"
_RETRY_AFTER = "retry_after"
# The namespace of metadata in which the users of a request are, by header or cookie.
_USERS = f"{NAMESPACE}.user"


def limits_of(models: Iterable[Model]) -> Limits:
    """Return the limits of these models."""
    return tuple((model.name, model.rate_limits) for model in models if model.rate_limits)


def divisor(gateway: Gateway) -> int:
    """Return the number by which a gateway divides limits."""
    limiting = gateway.rate_limiting
    return gateway.expected_nodes if limiting is not None and limiting.divide_by_expected_nodes else 1


def filter_names(gateway: Gateway) -> tuple[str, ...]:
    """Return the names of the filters of a gateway that applies rate limits, in their order; empty if it applies none."""
    if gateway.rate_limiting is None:
        return ()
    return f"{gateway.resource_name}/users", f"{gateway.resource_name}/rate-limits"


def add_rate_limits(manager: Any, gateway: Gateway) -> None:
    """Add the filters that apply limits to a connection manager. Do nothing if the gateway applies none."""
    for name, config in zip(filter_names(gateway), (_users(()), _buckets(gateway, ())), strict=False):
        http_filter = manager.http_filters.add(name=name)
        discovery = http_filter.config_discovery
        discovery.config_source.CopyFrom(over_ads())
        discovery.type_urls.append(url_of(config.DESCRIPTOR.full_name))
        # If the configuration does not come in time, Envoy applies no limits.
        discovery.default_config.CopyFrom(packed(config))


def compile_rate_limits(gateway: Gateway, limits: Limits) -> list[Resource]:
    """Return the configurations of a gateway's filters for the limits of its models; empty if it applies none."""
    return [
        resource(EXTENSIONS, extension_pb2.TypedExtensionConfig(name=name, typed_config=packed(config)))
        for name, config in zip(filter_names(gateway), (_users(limits), _buckets(gateway, limits)), strict=False)
    ]


def _users(limits: Limits) -> Any:
    """Return the filter that reads users from headers and cookies."""
    config = header_to_metadata_pb2.Config()
    for user in sorted({_user(limit) for _, of_model in limits for limit in of_model if limit.header or limit.cookie}):
        kind, _, name = user.partition(":")
        rule = config.request_rules.add(**{kind: name})
        rule.on_header_present.metadata_namespace = _USERS
        rule.on_header_present.key = user
    return config


def _user(limit: RateLimit) -> str:
    return f"header:{limit.header}" if limit.header else f"cookie:{limit.cookie}"


def _buckets(gateway: Gateway, limits: Limits) -> Any:
    """Return the filter that counts requests."""
    config = local_rate_limit_pb2.LocalRateLimit(stat_prefix="turnout", rate_limited_as_resource_exhausted=True)
    if gateway.rate_limiting is not None:
        config.max_dynamic_descriptors.value = gateway.rate_limiting.max_users
    for fraction in (config.filter_enabled, config.filter_enforced):
        fraction.default_value.numerator = 100
    nodes = divisor(gateway)
    retry_after = f"%METADATA(VIRTUAL_HOST:{NAMESPACE}:{_retry_after(nodes)})%"
    set_header_option(config.response_headers_to_add, "retry-after", retry_after)
    for model, of_model in limits:
        config.descriptors.extend(_bucket(model, i, limit, nodes) for i, limit in enumerate(of_model))
    return config


def _bucket(model: str, index: int, limit: RateLimit, nodes: int) -> Any:
    descriptor = ratelimit_pb2.LocalRateLimitDescriptor()
    descriptor.entries.add(key=_MODEL, value=_key(model, index))
    if limit.by_user:
        descriptor.entries.add(key=_ADDRESS if limit.client_address else _USER)  # without a value: each has its own bucket
    tokens = max(1, limit.requests // nodes)
    bucket = descriptor.token_bucket
    bucket.max_tokens = bucket.tokens_per_fill.value = tokens
    # Keeps the rate exact, also if the limit can't be divided evenly.
    bucket.fill_interval.CopyFrom(duration(limit.per * tokens * nodes / limit.requests))
    return descriptor


def set_rate_limits(host: Any, model: Model, divisors: Iterable[int]) -> None:
    """Set the descriptors of a model's requests in its virtual host. `divisors` are those of its gateways."""
    if not model.rate_limits:
        return
    for i, limit in enumerate(model.rate_limits):
        actions = host.rate_limits.add().actions
        actions.add().generic_key.descriptor_value = _key(model.name, i)
        if limit.client_address:
            actions.add().remote_address.SetInParent()
        elif limit.by_user:
            user = route_components_pb2.RateLimit.Action.MetaData(descriptor_key=_USER)
            user.metadata_key.key = _USERS
            user.metadata_key.path.add(key=_user(limit))
            actions.add(metadata=user)
    fields = host.metadata.filter_metadata[NAMESPACE]
    for nodes in sorted(divisors):
        fields[_retry_after(nodes)] = str(_seconds_to_next(model, nodes))


def _key(model: str, index: int) -> str:
    return f"{model}/{index}" if index else model


def _retry_after(nodes: int) -> str:
    return _RETRY_AFTER if nodes == 1 else f"{_RETRY_AFTER}_{nodes}"


def _seconds_to_next(model: Model, nodes: int) -> int:
    """Return the seconds in which every limit of a model, divided by the nodes, allows one more request."""
    return -int(-max(limit.per * nodes / limit.requests for limit in model.rate_limits) // 1)  # rounded up

"""Rate limits: token buckets in the filters of a gateway with `rate_limiting`, and a few bytes in the route of each model.

    route        metadata of the virtual host: the model, its limits by user as a text, and the value of `retry-after`
    listener     a filter that copies the model and that text to the request, between two filters whose configurations are
                 resources of their own (ECDS)
    extensions   `gateways/NAME/users`: the headers and cookies that identify users. The filter copies their values to
                 metadata of the request.
                 `gateways/NAME/rate-limits`: token buckets, and descriptors, by which the filter finds those of a request

The buckets are not in the listener: a model whose limits change would drain its connections, and end the streams that last
longer. The buckets are not in the route: each switch would send them, and fill them again. As extensions they are replaced
without an effect on connections, and requests in progress go on. All buckets of the gateway are then full.

A limit is known by whom it counts: `all`, `address`, `header:NAME` or `cookie:NAME`. A model's further limits of the same kind
have numbers. The descriptors of a request, and the buckets that they find:

    limit=all          model=MODEL                          a bucket of each model
    limit=header:…     model=MODEL   limits=TEXT   user=…   a bucket for each MODEL and user, made at the first request

The second is one entry of the filter for all models with the same limits by user (a "dynamic descriptor", without values for
the model and the user), because Envoy compares each request with all such entries. A bucket holds `requests` tokens, and gets
as many in the time of `per`, evenly. The descriptor takes the user from metadata and not from a header. Otherwise Envoy could
read no cookies, and an empty value would be a user, which it is not for `sticky` either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from envoy.config.core.v3 import extension_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from envoy.extensions.filters.http.header_to_metadata.v3 import header_to_metadata_pb2
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2
from envoy.extensions.filters.http.set_filter_state.v3 import set_filter_state_pb2
from envoy.extensions.matching.common_inputs.network.v3.network_inputs_pb2 import FilterStateInput

from controlplane.compiler.message import duration, over_ads, packed, resource, set_header_option
from controlplane.compiler.who import NAMESPACE
from controlplane.domain import Gateway, Model, RateLimit
from controlplane.envoy_types import EXTENSIONS, url_of
from controlplane.snapshot import Resource

# The limits of a gateway's models, by the label of the model, in order. Models without limits are left out.
Limits = Sequence[tuple[str, tuple[RateLimit, ...]]]

# Keys of descriptors. `_MODEL` and `_LIMITS` are also the keys of a virtual host's metadata.
_LIMIT, _MODEL, _LIMITS, _USER, _ADDRESS = "limit", "model", "limits", "user", "remote_address"
_RETRY_AFTER = "retry_after"
# The namespace of metadata in which the users of a request are, by header or cookie.
_USERS = f"{NAMESPACE}.user"
# The most users that are remembered for a limit that several models have, if `max_users` is not more. 80 MB.
_MAX_SHARED_USERS = 100_000


def limits_of(models: Iterable[Model]) -> Limits:
    """Return the limits of these models."""
    return tuple((model.name, model.rate_limits) for model in models if model.rate_limits)


def divisor(gateway: Gateway) -> int:
    """Return the number by which a gateway divides limits."""
    limiting = gateway.rate_limiting
    return gateway.expected_nodes if limiting is not None and limiting.divide_by_expected_nodes else 1


def filter_names(gateway: Gateway) -> tuple[str, ...]:
    """Return the names of the filters that have extensions, in their order; empty if a gateway applies no limits."""
    if gateway.rate_limiting is None:
        return ()
    return f"{gateway.resource_name}/users", f"{gateway.resource_name}/rate-limits"


def add_rate_limits(manager: Any, gateway: Gateway) -> None:
    """Add the filters that apply limits to a connection manager. Do nothing if the gateway applies none."""
    if gateway.rate_limiting is None:
        return
    users, counts = filter_names(gateway)
    _add_extension(manager, users, _users(()))
    # After the filter of users, which makes Envoy choose the route again: at a body gateway the model was unknown before.
    manager.http_filters.add(name="turnout.limits", typed_config=packed(_copy_from_route()))
    _add_extension(manager, counts, _buckets(gateway, ()))


def _add_extension(manager: Any, name: str, without_limits: Any) -> None:
    """Add a filter whose configuration is a resource of its own, of the same type as `without_limits`."""
    discovery = manager.http_filters.add(name=name).config_discovery
    discovery.config_source.CopyFrom(over_ads())
    discovery.type_urls.append(url_of(without_limits.DESCRIPTOR.full_name))
    # If the configuration does not come in time, Envoy applies no limits.
    discovery.default_config.CopyFrom(packed(without_limits))


def _copy_from_route() -> Any:
    """Return the filter that copies the model and its limits from metadata of the virtual host to state of the request.

    Descriptors can read metadata of a route, but not of a virtual host. The routes of a model would have it many times.
    """
    config = set_filter_state_pb2.Config()
    for key in (_MODEL, _LIMITS):
        value = config.on_request_headers.add(object_key=_state(key), factory_key="envoy.string", skip_if_empty=True)
        value.format_string.text_format_source.inline_string = f"%METADATA(VIRTUAL_HOST:{NAMESPACE}:{key})%"
        value.format_string.omit_empty_values = True
    return config


def _state(key: str) -> str:
    return f"{NAMESPACE}.{key}"


def compile_rate_limits(gateway: Gateway, limits: Limits) -> list[Resource]:
    """Return the configurations of a gateway's filters for the limits of its models; empty if it applies none."""
    return [
        resource(EXTENSIONS, extension_pb2.TypedExtensionConfig(name=name, typed_config=packed(config)))
        for name, config in zip(filter_names(gateway), (_users(limits), _buckets(gateway, limits)), strict=False)
    ]


def _users(limits: Limits) -> Any:
    """Return the filter that reads users from headers and cookies."""
    config = header_to_metadata_pb2.Config()
    for user in sorted({_who(limit) for _, of_model in limits for limit in of_model if limit.header or limit.cookie}):
        kind, _, name = user.partition(":")
        rule = config.request_rules.add(**{kind: name})
        rule.on_header_present.metadata_namespace = _USERS
        rule.on_header_present.key = user
    return config


def _who(limit: RateLimit) -> str:
    """Return whose requests a limit counts."""
    if limit.client_address:
        return "address"
    if limit.header:
        return f"header:{limit.header}"
    return f"cookie:{limit.cookie}" if limit.cookie else "all"


def _named(limits: Iterable[RateLimit]) -> Iterator[tuple[str, RateLimit]]:
    """Yield the limits of a model, each with its name in descriptors."""
    counts: Counter[str] = Counter()
    for limit in limits:
        who = _who(limit)
        yield (f"{who} {counts[who]}" if counts[who] else who), limit
        counts[who] += 1


def _by_user(limits: Iterable[RateLimit]) -> str:
    """Return the limits by user of a model as a text, like `10/60.0 header:x-user`; "" if it has none."""
    return ", ".join(f"{limit.requests}/{limit.per} {_who(limit)}" for limit in limits if limit.by_user)


def _buckets(gateway: Gateway, limits: Limits) -> Any:
    """Return the filter that counts requests."""
    config = local_rate_limit_pb2.LocalRateLimit(stat_prefix="turnout", rate_limited_as_resource_exhausted=True)
    if gateway.rate_limiting is not None:
        config.max_dynamic_descriptors.value = _remembered_users(gateway.rate_limiting.max_users, limits)
    for fraction in (config.filter_enabled, config.filter_enforced):
        fraction.default_value.numerator = 100
    nodes = divisor(gateway)
    retry_after = f"%METADATA(VIRTUAL_HOST:{NAMESPACE}:{_retry_after(nodes)})%"
    set_header_option(config.response_headers_to_add, "retry-after", retry_after)
    names: dict[str, RateLimit] = {}
    buckets: dict[tuple[str, str], Any] = {}
    for model, of_model in limits:
        for name, limit in _named(of_model):
            names.setdefault(name, limit)
            # Limits by user are the same for all models with this text.
            key = (name, _by_user(of_model) if limit.by_user else model)
            if key not in buckets:
                buckets[key] = _bucket(name, limit, key[1], nodes)
    config.descriptors.extend(buckets.values())
    for name in sorted(names):
        config.rate_limits.add(actions=_actions(name, names[name]))
    return config


def _remembered_users(max_users: int, limits: Limits) -> int:
    """Return the number of pairs of a model and a user that are remembered for the same limits of several models."""
    sharing = Counter(text for _, of_model in limits if (text := _by_user(of_model)))
    return max(max_users, min(max_users * max(sharing.values(), default=1), _MAX_SHARED_USERS))


def _bucket(name: str, limit: RateLimit, whose: str, nodes: int) -> Any:
    """Return the bucket of a limit. `whose` is the model, or the text of a model's limits by user."""
    descriptor = ratelimit_pb2.LocalRateLimitDescriptor()
    descriptor.entries.add(key=_LIMIT, value=name)
    if limit.by_user:
        # Entries without a value: each model and each user has a bucket of its own.
        descriptor.entries.add(key=_MODEL)
        descriptor.entries.add(key=_LIMITS, value=whose)
        descriptor.entries.add(key=_ADDRESS if limit.client_address else _USER)
    else:
        descriptor.entries.add(key=_MODEL, value=whose)
    tokens = max(1, limit.requests // nodes)
    bucket = descriptor.token_bucket
    bucket.max_tokens = bucket.tokens_per_fill.value = tokens
    # Keeps the rate exact, also if the limit can't be divided evenly.
    bucket.fill_interval.CopyFrom(duration(limit.per * tokens * nodes / limit.requests))
    return descriptor


def _actions(name: str, limit: RateLimit) -> list[Any]:
    """Return what makes the descriptor of a request for a limit. Without a model or a user there is none."""
    action = route_components_pb2.RateLimit.Action
    actions = [action(generic_key=action.GenericKey(descriptor_key=_LIMIT, descriptor_value=name)), _from_state(_MODEL)]
    if limit.by_user:
        actions.append(_from_state(_LIMITS))
    if limit.client_address:
        actions.append(action(remote_address=action.RemoteAddress()))
    elif limit.by_user:
        user = action.MetaData(descriptor_key=_USER)
        user.metadata_key.key = _USERS
        user.metadata_key.path.add(key=_who(limit))
        actions.append(action(metadata=user))
    return actions


def _from_state(key: str) -> Any:
    """Return the action that makes an entry of what `_copy_from_route` copied."""
    extension = extension_pb2.TypedExtensionConfig(name=key, typed_config=packed(FilterStateInput(key=_state(key))))
    return route_components_pb2.RateLimit.Action(extension=extension)


def set_rate_limits(host: Any, model: Model, divisors: Iterable[int]) -> None:
    """Set what the filters need to know of a model in its virtual host. `divisors` are those of its gateways."""
    if not model.rate_limits:
        return
    fields = host.metadata.filter_metadata[NAMESPACE]
    fields[_MODEL] = model.name
    if by_user := _by_user(model.rate_limits):
        fields[_LIMITS] = by_user
    for nodes in sorted(divisors):
        fields[_retry_after(nodes)] = str(_seconds_to_next(model, nodes))


def _retry_after(nodes: int) -> str:
    return _RETRY_AFTER if nodes == 1 else f"{_RETRY_AFTER}_{nodes}"


def _seconds_to_next(model: Model, nodes: int) -> int:
    """Return the seconds in which every limit of a model, divided by the nodes, allows one more request."""
    return -int(-max(limit.per * nodes / limit.requests for limit in model.rate_limits) // 1)  # rounded up

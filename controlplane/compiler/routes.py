"""Routes: one small RouteConfiguration for each model, so that a switch sends a few hundred bytes, however many models exist.

How a request gets its version: clusters are in a fixed order, the newest version first, with weights in basis points of a
fixed total. Envoy draws a number below the total. The weights, laid end to end, divide the numbers into one interval for each
cluster, and the number's interval decides. With a sticky key the number is the key's hash. While green's share grows, its
interval grows at its far end only, so a user in it stays in it. Each user moves once, and no state per user exists anywhere.

`validate_clusters` stays off, as is RDS's default. The server sends clusters before the routes that name them, but separate
streams keep no order between types. A route that Envoy refused because a cluster was missing is not sent again until it
changes, while a route that Envoy accepted early works as soon as the cluster comes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2 import PreviousHostsPredicate
from google.protobuf import wrappers_pb2

from controlplane.compiler.clusters import cluster_name, mirror_name
from controlplane.compiler.fallback import retry_at_next_level, routed_name
from controlplane.compiler.functions import NO_FUNCTIONS, Functions
from controlplane.compiler.grpc_ports import add_grpc_routes
from controlplane.compiler.listeners import SCOPE_HEADER
from controlplane.compiler.message import duration, packed, resource
from controlplane.compiler.mirrors import add_policies, split_order
from controlplane.compiler.patches import patched_routes
from controlplane.compiler.rate_limits import set_rate_limits
from controlplane.compiler.rewrites import regex_rewrite
from controlplane.compiler.who import set_revision
from controlplane.domain import FULL_SHARE, Model, Version
from controlplane.envoy_types import CLUSTER, ROUTES
from controlplane.snapshot import Resource

# Failures after which the upstream can't have acted on the request: the connection failed, HTTP/2 says so (RFC 9113, section
# 8.7), or the request's headers had not been sent.
SAFE_RETRIES = "connect-failure,refused-stream,reset-before-request"
# Also failures after which it may have: for idempotent calls only.
UNSAFE_RETRIES = f"{SAFE_RETRIES},reset,gateway-error"
# How often Envoy draws again if it drew an endpoint that has already failed the request. Then it uses the drawn one.
_REDRAWS = 16
# An empty header, once or several times.
_EMPTY = ",*"


def compile_routes(
    model: Model, revision: int = 0, divisors: Iterable[int] = (1,), functions: Functions = NO_FUNCTIONS
) -> Resource:
    """Return the RouteConfiguration of a model. With a `revision` it says in which one the model last changed.

    `divisors` are those by which its gateways divide rate limits.
    """
    config = _configuration(model, revision, divisors)
    if model.patches:
        widest = _configuration(replace(model, split=_widest_split(model)), revision, divisors)
        config = patched_routes(model, config, widest, functions)
    return resource(ROUTES, config, [(CLUSTER, name) for name in _clusters(config)])


def _widest_split(model: Model) -> dict[str, int]:
    """Return the split with the largest routes: every version with endpoints has a share."""
    names = [version.name for version in model.versions if version.endpoints]
    share, more = divmod(FULL_SHARE, len(names))
    return {name: share + (more if i == 0 else 0) for i, name in enumerate(names)}


def _configuration(model: Model, revision: int, divisors: Iterable[int]) -> Any:
    config = route_pb2.RouteConfiguration(name=model.name, request_headers_to_remove=[SCOPE_HEADER])
    host = config.virtual_hosts.add(name="*", domains=["*"])
    if revision:
        set_revision(host.metadata, revision)
    set_rate_limits(host, model, divisors)
    if policy := _retry_policy(model):
        host.retry_policy.CopyFrom(policy)
    if policy or any(version.upstream_model for version in model.versions):
        # Bodies above the listener's buffer are not retried otherwise. A body in which the name of the model is replaced is
        # buffered, too (`upstream_lua.py`).
        host.request_body_buffer_limit.value = model.retries.request_body_buffer_limit
    if model.preview_header:
        for version in model.versions:
            if version.endpoints:
                route = _route(host, model)
                route.route.cluster = cluster_name(model.name, version.name)
                _rewrite_host(route.route, version)
                route.match.headers.add(name=model.preview_header).string_match.exact = version.name
    if model.sticky is not None and model.sticky.header:
        # An empty header identifies nobody. Its hash would make one user of all who send it.
        route = _route(host, model)
        route.match.headers.add(name=model.sticky.header).string_match.safe_regex.regex = _EMPTY
        _set_weights(route.route, model, sticky=False)
    _set_weights(_route(host, model).route, model)
    if model.mirror is not None:
        mirrored = model.version(model.mirror.version)
        own = (cluster_name(model.name, mirrored.name), routed_name(model.name, mirrored))
        for policy in add_policies(host, model, mirror_name(model.name, mirrored.name), own):
            _rewrite_host(policy, mirrored)
    add_grpc_routes(host, model)
    return config


def _route(host: Any, model: Model) -> Any:
    """Add a route for every path with the model's settings for requests. The caller sets its cluster or clusters."""
    route = host.routes.add()
    route.match.prefix = "/"
    action = route.route
    # It begins when the request is complete. The cluster ends uploads. 0 is no limit; left out it would be 15 s.
    action.timeout.CopyFrom(duration(model.timeouts.request))
    action.idle_timeout.CopyFrom(duration(model.timeouts.idle))
    if model.rewrite is not None:
        action.regex_rewrite.CopyFrom(regex_rewrite(model.rewrite))
    return route


def _set_weights(action: Any, model: Model, *, sticky: bool = True) -> None:
    weighted = action.weighted_clusters
    for version in split_order(model):
        if share := model.split.get(version.name):
            weight = wrappers_pb2.UInt32Value(value=share)
            entry = weighted.clusters.add(name=routed_name(model.name, version), weight=weight)
            _rewrite_host(entry, version)
    if model.sticky is not None and sticky:
        weighted.use_hash_policy.value = True
        policy = action.hash_policy.add()
        if model.sticky.header:
            policy.header.header_name = model.sticky.header
        else:
            # Without a TTL Envoy sets no cookie. A request without the cookie is drawn at random.
            policy.cookie.name = model.sticky.cookie


def _rewrite_host(target: Any, version: Version) -> None:
    """Set a version's own Host header in a route, a weighted cluster or a mirror policy."""
    if version.host:
        target.host_rewrite_literal = version.host


def _retry_policy(model: Model) -> Any:
    """Return the retry policy of a model; None if nothing is retried."""
    retries = model.retries
    policy = route_components_pb2.RetryPolicy(
        retry_on=UNSAFE_RETRIES if retries.unsafe else SAFE_RETRIES,
        num_retries=wrappers_pb2.UInt32Value(value=retries.attempts),
        host_selection_retry_max_attempts=_REDRAWS,
    )
    policy.retry_host_predicate.add(name="previous_hosts", typed_config=packed(PreviousHostsPredicate()))
    if retries.per_try_timeout:
        policy.per_try_timeout.CopyFrom(duration(retries.per_try_timeout))
    retry_at_next_level(policy, model)
    return policy if policy.num_retries.value else None


def _clusters(config: Any) -> set[str]:
    """Return every cluster that the routes name."""
    names: set[str] = set()
    for host in config.virtual_hosts:
        names.update(p.cluster for p in host.request_mirror_policies)
        for route in host.routes:
            names.update(c.name for c in route.route.weighted_clusters.clusters)
            names.update(p.cluster for p in route.route.request_mirror_policies)
            if route.route.cluster:
                names.add(route.route.cluster)
    return names

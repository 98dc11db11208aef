"""Mirrors: the copies of requests that a second version of a model gets. Live traffic never waits for a copy.

Nobody waits for the answers to copies, so nobody would notice a server that accepts them and never answers, or reads slowly.
So the copies have a cluster of their own, `MODEL/VERSION/mirror`, with low limits. They never use up those of live requests.

Envoy pauses a request while a copy of it can't be written. So the cluster of the copies has the buffer filter. It holds a copy
until the request is complete, and from then on Envoy does not pause the request. A copy that is larger than the filter's limit
ends there, and its request goes on.

A version gets no copy of a request that it answers itself. The policy for copies belongs to the whole virtual host, not to one
of the clusters that its routes name. But a copy inherits the metadata match of the cluster that was chosen for its request. So
the routes ask, at the clusters of the mirror's version, for metadata that no endpoint of the copies' cluster has. A copy of
such a request finds no endpoint. If the routes name no other clusters, there is no policy.

Envoy adds its own address to the header `x-forwarded-for` of a copy. So the policy puts the request's value into a second
header, and the cluster of the copies puts it back.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.filters.http.buffer.v3 import buffer_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf import wrappers_pb2

from controlplane.compiler.message import set_header
from controlplane.compiler.upstream_filters import http_filter
from controlplane.domain import FULL_SHARE, ConnectionLimits, Mirror, Model, Version

# The duration of a copy, unless the mirror or the model limits it. Seconds.
_TIMEOUT = 60.0

# The header that brings the value of `x-forwarded-for` from the policy for copies to the cluster of the copies.
_FORWARDED_FOR = "x-turnout-forwarded-for"

# The namespace of the metadata by which the load balancer chooses endpoints, and a key in it that no endpoint has.
_LB, _COPY = "envoy.lb", "copy"


def copy_limits(mirror: Mirror) -> ConnectionLimits:
    """Return the limits of the cluster of the copies. Requests beyond them are not copied."""
    return ConnectionLimits(mirror.max_requests, mirror.max_requests, mirror.max_requests, max_retries=1)


def copy_timeout(model: Model, mirror: Mirror) -> float:
    """Return the maximum duration of a copy, in seconds."""
    return mirror.timeout or model.timeouts.request or _TIMEOUT


def refuse_own_copies(cluster: Any) -> None:
    """Make the cluster of the copies refuse copies of requests that the mirror's version answers itself."""
    subsets = cluster.lb_subset_config
    subsets.fallback_policy = cluster_pb2.Cluster.LbSubsetConfig.ANY_ENDPOINT
    subsets.subset_selectors.add(keys=[_COPY], fallback_policy=cluster_pb2.Cluster.LbSubsetConfig.LbSubsetSelector.NO_FALLBACK)


def copy_filters(mirror: Mirror) -> list[Any]:
    """Return the upstream HTTP filters of the cluster of the copies that come before those of the version."""
    buffer = buffer_pb2.Buffer(max_request_bytes=wrappers_pb2.UInt32Value(value=mirror.max_request_bytes))
    headers = header_mutation_pb2.HeaderMutation()
    set_header(headers.mutations.request_mutations, "x-forwarded-for", f"%REQ({_FORWARDED_FOR})%")
    for name in (_FORWARDED_FOR, "x-envoy-internal"):
        headers.mutations.request_mutations.add(remove=name)
    return [
        http_filter("buffer", buffer),
        http_filter("header_mutation", headers),
    ]


def add_policies(host: Any, model: Model, cluster: str, own: Collection[str]) -> list[Any]:
    """Add the policies for copies to the virtual host of a model. Return them; none if no request is to be copied.

    `cluster` is the one of the copies, and `own` are those that routes name for the mirror's version. Call it when all routes
    are complete; the last one is that of the split.
    """
    mirror = model.mirror
    if mirror is None:
        return []
    actions = [route.route for route in host.routes]
    targets = [(a.cluster, a) for a in actions if a.cluster]
    targets += [(weighted.name, weighted) for a in actions for weighted in a.weighted_clusters.clusters]
    if all(name in own for name, _ in targets):
        return []
    for name, target in targets:
        if name in own:
            target.metadata_match.filter_metadata[_LB].update({_COPY: "no"})
    policies = [_policy(host, cluster)]
    share = model.split.get(mirror.version, 0)
    if mirror.basis_points < FULL_SHARE:
        fraction = policies[0].runtime_fraction.default_value
        if share and model.sticky is not None:
            # For a request without the key, Envoy takes the cluster and the fraction from one random number. A finer fraction
            # makes the two almost independent.
            fraction.numerator = mirror.basis_points * 100
            fraction.denominator = percent_pb2.FractionalPercent.MILLION
        else:
            fraction.numerator = mirror.basis_points
            fraction.denominator = percent_pb2.FractionalPercent.TEN_THOUSAND
        if 0 < share < FULL_SHARE and model.sticky is None:
            # From one random number, too: the requests of other versions have the lowest numbers (`split_order`).
            policies.append(_policy(actions[-1], cluster))
            fraction = policies[1].runtime_fraction.default_value
            fraction.numerator = max(1, round(mirror.basis_points * (FULL_SHARE - share) / FULL_SHARE))
            fraction.denominator = percent_pb2.FractionalPercent.TEN_THOUSAND
    return policies


def _policy(target: Any, cluster: str) -> Any:
    """Add a policy for copies to a virtual host or a route. The one of a route replaces that of its virtual host."""
    policy = target.request_mirror_policies.add(cluster=cluster)
    # The version's host or that of the request, without Envoy's `-shadow` after it.
    policy.disable_shadow_host_suffix_append = True
    set_header(policy.request_headers_mutations, _FORWARDED_FOR, "%REQ(x-forwarded-for)%")
    return policy


def split_order(model: Model) -> list[Version]:
    """Return the versions in the order of their weights: the newest first.

    The order matters for sticky users only. Without them, the mirror's version comes last if a part of the requests is copied.
    Otherwise the part would be mostly that version's own requests, since Envoy draws the version and the part with one number.
    """
    versions = list(reversed(model.versions))
    if model.sticky is None and model.mirror is not None and model.mirror.basis_points < FULL_SHARE:
        versions.sort(key=lambda v: v.name == model.mirror.version)  # type: ignore[union-attr]
    return versions

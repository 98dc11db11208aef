"""Resources for gRPC's own xDS clients. For them a model is a target, `xds:///MODEL`, and there is no proxy.

A client asks for the Listener of its target, then for the RouteConfiguration that the Listener names, then for the clusters of
that and their endpoints, always by name. All have the same names as for Envoys, except for the Listener, which has the model's
name. It listens on no socket, and there are no scopes.

    of a model        gRPC's client
    split             draws by the weights, which must sum to the stated total (gRFC A28)
    sticky            draws at random nevertheless: it does not read `use_hash_policy`
    preview header    reads it, as metadata of the call (A28)
    request timeout   limits the call, unless the caller's own deadline is shorter (A31); it has no idle timeout
    retries           retries by itself a call that no server has seen; `unsafe` adds UNAVAILABLE (A44)
    mirror, rewrite   reads neither
    endpoints, their  uses them in turn: it refuses LEAST_REQUEST, and does not read the weights of addresses
      weights
    limits            reads `max_requests` (A32)
    health checks,    reads neither: it avoids an endpoint that it can't connect to
      outliers
    DNS names         resolves one name for a version (LOGICAL_DNS, A37), not several
    load              reports it to the server of its configuration (A27)
    host, headers,    changes no requests
      credential
    HTTP/1, TLS       speaks HTTP/2 only; certificates would have to come from its own bootstrap (A29)
    gRPC ports        uses them, and no other port

A client does not get a version that it can't reach, and the node's note says so. If such a version has a share, the client
does not get the model at all, since it would fail a part of the model's calls.
"""

from __future__ import annotations

from typing import Any

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2
from envoy.config.listener.v3 import api_listener_pb2, listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from google.protobuf import wrappers_pb2

from controlplane.compiler.clusters import cluster_name
from controlplane.compiler.endpoints import load_assignment
from controlplane.compiler.grpc_ports import names_of
from controlplane.compiler.message import duration, over_ads, packed, resource
from controlplane.domain import FULL_SHARE, Model, Protocol, Version
from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from controlplane.snapshot import Resource


def obstacle(version: Version) -> str:
    """Return the reason why gRPC's client can't reach a version; "" if it can, or if there is nothing to reach."""
    if not version.endpoints:
        return ""
    if version.protocol is Protocol.HTTP1 and not version.has_grpc_ports:
        return "speaks HTTP/1"
    if version.tls is not None:
        return "is reached over TLS"
    if version.has_dns_endpoints and len(version.endpoints) > 1:
        return "has several DNS names"
    if version.changes_requests:
        return "needs changes to its requests"
    return ""


def unreachable(model: Model) -> list[str]:
    """Return the parts of a model that gRPC's clients do not get, each with the reason."""
    blocked = {v.name: reason for v in model.versions if (reason := obstacle(v))}
    with_share = next((name for name in blocked if model.split.get(name)), None)
    if with_share is not None:
        return [f"{model.name} (its version {with_share} {blocked[with_share]})"]
    return [f"{cluster_name(model.name, name)} (it {reason})" for name, reason in blocked.items()]


def served_versions(model: Model) -> list[Version]:
    """Return the versions that gRPC's clients get. Empty if a version that has a share is out of their reach."""
    if any(obstacle(v) for v in model.versions if model.split.get(v.name)):
        return []
    return [v for v in model.versions if v.endpoints and not obstacle(v)]


def grpc_cluster(model: Model, version: Version) -> str:
    """Return the cluster in which gRPC's clients reach a version: that of its gRPC ports if it has some."""
    return names_of(cluster_name(model.name, version.name), version)[-1]


def compile_proxyless(model: Model) -> list[Resource]:
    """Return a model's listener, routes and clusters for gRPC's clients: nothing if it has no `served_versions`.

    The ClusterLoadAssignments of these clusters are the same as for Envoys, and are compiled with them.
    """
    versions = served_versions(model)
    if not versions:
        return []
    return [_listener(model), _routes(model, versions), *(_cluster(model, version) for version in versions)]


def _listener(model: Model) -> Resource:
    manager = hcm_pb2.HttpConnectionManager(stat_prefix=model.name)
    manager.rds.config_source.CopyFrom(over_ads())
    manager.rds.route_config_name = model.name
    # The last filter must be the router, and typed (A39).
    manager.http_filters.add(name="envoy.filters.http.router", typed_config=packed(router_pb2.Router()))
    listener = listener_pb2.Listener(name=model.name, api_listener=api_listener_pb2.ApiListener(api_listener=packed(manager)))
    return resource(LISTENER, listener, [(ROUTES, model.name)])


def _routes(model: Model, versions: list[Version]) -> Resource:
    config = route_pb2.RouteConfiguration(name=model.name)
    # Any authority matches: a call has the target's, unless the caller sets another.
    host = config.virtual_hosts.add(name="*", domains=["*"])
    if model.retries.attempts and model.retries.unsafe:
        # gRPC does not know `gateway-error` and the like. A call without an answer is UNAVAILABLE.
        host.retry_policy.CopyFrom(
            route_components_pb2.RetryPolicy(
                retry_on="unavailable", num_retries=wrappers_pb2.UInt32Value(value=model.retries.attempts)
            )
        )
    if model.preview_header:
        for version in versions:
            route = _route(host, model)
            route.route.cluster = grpc_cluster(model, version)
            route.match.headers.add(name=model.preview_header).string_match.exact = version.name
    weighted = _route(host, model).route.weighted_clusters
    # Some clients refuse weights that don't sum to the total. Its default would be 100.
    weighted.total_weight.value = FULL_SHARE
    for version in reversed(model.versions):
        if share := model.split.get(version.name):
            weighted.clusters.add(name=grpc_cluster(model, version), weight=wrappers_pb2.UInt32Value(value=share))
    names = {c.name for c in weighted.clusters} | {r.route.cluster for r in host.routes if r.route.cluster}
    return resource(ROUTES, config, [(CLUSTER, name) for name in names])


def _route(host: Any, model: Model) -> Any:
    route = host.routes.add()
    route.match.prefix = "/"
    # 0 is no limit, as for Envoys. gRPC does not read `timeout`.
    route.route.max_stream_duration.max_stream_duration.CopyFrom(duration(model.timeouts.request))
    return route


def _cluster(model: Model, version: Version) -> Resource:
    name = grpc_cluster(model, version)
    cluster = cluster_pb2.Cluster(name=name, lb_policy=cluster_pb2.Cluster.ROUND_ROBIN)
    # `self` is the server that sent this cluster. gRPC refuses any other.
    cluster.lrs_server.self.SetInParent()
    limit = wrappers_pb2.UInt32Value(value=version.limits.max_requests)
    cluster.circuit_breakers.CopyFrom(
        circuit_breaker_pb2.CircuitBreakers(thresholds=[circuit_breaker_pb2.CircuitBreakers.Thresholds(max_requests=limit)])
    )
    if version.has_dns_endpoints:
        cluster.type = cluster_pb2.Cluster.LOGICAL_DNS
        cluster.load_assignment.CopyFrom(load_assignment(name, version))
        return resource(CLUSTER, cluster)
    cluster.type = cluster_pb2.Cluster.EDS
    cluster.eds_cluster_config.eds_config.CopyFrom(over_ads())
    return resource(CLUSTER, cluster, [(ENDPOINTS, name)])

"""gRPC ports: one model for the HTTP and the gRPC of its servers, which listen for each on a port of its own.

Each cluster of such a model has a second one, with the same endpoints at their gRPC ports, and HTTP/2:

    MODEL/VERSION              MODEL/VERSION/grpc
    MODEL/VERSION/mirror       MODEL/VERSION/grpc/mirror
    MODEL/VERSION/fallback…    MODEL/VERSION/grpc/fallback…

Each route of the model has a second one before it, which matches gRPC calls and names these clusters with the same weights. A
switch is therefore still one RouteConfiguration. gRPC calls are known by their content type: `application/grpc`, alone or with
more after it. Envoy's own match for gRPC (`match.grpc`) is shorter, but does not match gRPC-Web, whose content type a filter
changes after the route is chosen.

The second routes must be small, because each switch sends them. They repeat the policy for copies, since HTTP and gRPC have
different clusters for these, and Envoy knows such policies by route or for all. So routes with a mirror are the largest.

Why two clusters: a cluster of Envoy speaks one protocol to all its endpoints. It can speak the protocol of the client, but a
client that sends JSON over HTTP/2 would then reach an HTTP/1 server over HTTP/2.

Rewrites of paths, of the model and of its versions, are for HTTP only: the path of a gRPC call is the name of its method.

Health checks of the second cluster ask the main port over HTTP: one answer of the server counts for both, and many servers of
the Open Inference Protocol lack gRPC's health checking protocol. In load reports both clusters are the same version
(`traffic.py`).
"""

from __future__ import annotations

from typing import Any

from controlplane.domain import Model, Version

_GRPC = "grpc"
# In the content type of every gRPC call, and of no other request.
_IN_CONTENT_TYPE = "/grpc"


def grpc_name(cluster: str) -> str:
    """Return the name of the cluster with the gRPC ports of a cluster: `MODEL/VERSION/grpc…` for `MODEL/VERSION…`."""
    model, version, *use = cluster.split("/")
    return "/".join((model, version, _GRPC, *use))


def has_grpc_name(cluster: str) -> bool:
    """Return True for the name of a cluster with gRPC ports."""
    # Labels have no slash, so neither a model nor a version can look like this.
    return cluster.split("/", 3)[2:3] == [_GRPC]


def without_grpc(cluster: str) -> str:
    """Return `MODEL/VERSION…` for `MODEL/VERSION/grpc…`, and every other name as it is."""
    if not has_grpc_name(cluster):
        return cluster
    model, version, _, *use = cluster.split("/")
    return "/".join((model, version, *use))


def names_of(cluster: str, version: Version) -> tuple[str, ...]:
    """Return the names of a cluster of a version's endpoints, and of the one with their gRPC ports if they have some."""
    return (cluster, grpc_name(cluster)) if version.has_grpc_ports else (cluster,)


def add_grpc_routes(host: Any, model: Model) -> None:
    """Add the routes of gRPC calls before those of the virtual host of a model. Call it when those are complete."""
    if not model.has_grpc_ports:
        return
    others = [_copied(route) for route in host.routes]
    for route in others:
        route.match.headers.add(name="content-type").string_match.contains = _IN_CONTENT_TYPE
        action = route.route
        action.ClearField("regex_rewrite")  # it is for paths of HTTP, and the path of a gRPC call is its method
        # The policies of a route replace those of the virtual host. Clusters with metadata get no copies under either.
        if not action.request_mirror_policies and not all(t.HasField("metadata_match") for t in _targets(action)):
            action.request_mirror_policies.extend(host.request_mirror_policies)
        if action.cluster:
            action.cluster = grpc_name(action.cluster)
        for policy in action.request_mirror_policies:
            policy.cluster = grpc_name(policy.cluster)
        for weighted in action.weighted_clusters.clusters:
            weighted.name = grpc_name(weighted.name)
    others.extend(_copied(route) for route in host.routes)
    del host.routes[:]
    host.routes.extend(others)


def _targets(action: Any) -> list[Any]:
    return list(action.weighted_clusters.clusters) or [action]


def _copied(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy

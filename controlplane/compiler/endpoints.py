"""Endpoints: one ClusterLoadAssignment a cluster, where the version's addresses are IP addresses.

A node prefers the endpoints in its own zone, then those in its own region, then all others: they have priorities 0, 1 and 2.
Envoy uses a later priority when less than 72 % of the endpoints of the earlier ones are healthy, and goes back when they are.
So the nodes of each locality get an assignment of their own, if the endpoints of a version are in several localities. With DNS
names the assignment is in the cluster, and so they get a cluster of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from envoy.config.core.v3 import base_pb2, health_check_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from google.protobuf import wrappers_pb2

from controlplane.compiler.grpc_ports import has_grpc_name
from controlplane.compiler.message import resource, socket_address
from controlplane.compiler.who import set_fallback
from controlplane.domain import Endpoint, Locality, Version
from controlplane.domain.endpoints import Health, LiveEndpoint
from controlplane.envoy_types import ENDPOINTS
from controlplane.snapshot import Resource

NOWHERE = Locality()

# Own zone, own region, everywhere else.
_PRIORITIES = 3
# Envoy lets the next priority take a part of the requests when less than 100/140 of the endpoints are healthy. With this
# factor one healthy endpoint of 10,000, the most that a version can have, is enough. Percent.
_TO_THE_LAST = 1_000_000

_HEALTH = {
    Health.UNKNOWN: health_check_pb2.UNKNOWN,
    Health.HEALTHY: health_check_pb2.HEALTHY,
    Health.UNHEALTHY: health_check_pb2.UNHEALTHY,
    Health.DRAINING: health_check_pb2.DRAINING,
}


def compile_endpoints(
    cluster: str,
    version: Version,
    live: tuple[LiveEndpoint, ...] | None = None,
    node: Locality = NOWHERE,
    *,
    to_the_last: bool = False,
) -> list[Resource]:
    """Return the ClusterLoadAssignment of a version: with the `live` endpoints, or those of desired state if `live` is None.

    `node` is the locality of the nodes that get it. `to_the_last` is that of `load_assignment`. Empty if the cluster gets no
    endpoints over EDS: desired state has none, or they are DNS names that Envoy resolves.
    """
    if not version.endpoints or version.has_dns_endpoints:
        return []
    if live is None:
        return [resource(ENDPOINTS, load_assignment(cluster, version, node, to_the_last=to_the_last))]
    return [resource(ENDPOINTS, _marked(_assignment(cluster, live, node, to_the_last), version))]


def load_assignment(cluster: str, version: Version, node: Locality = NOWHERE, *, to_the_last: bool = False) -> Any:
    """Return a ClusterLoadAssignment of the addresses in desired state, in their order, for nodes of a locality.

    With `to_the_last` a priority gets no requests as long as an earlier one has a single healthy endpoint. The name of the
    cluster says whether it gets the gRPC ports.
    """
    if any(e.region or e.zone for e in version.endpoints):
        return _marked(_assignment(cluster, (_placed(e) for e in version.endpoints), node, to_the_last), version)
    group = _locality(NOWHERE, 1)
    for e in version.endpoints:
        _add(group, e, grpc=has_grpc_name(cluster))
    return _marked(_limited(endpoint_pb2.ClusterLoadAssignment(cluster_name=cluster, endpoints=[group]), to_the_last), version)


def _marked(assignment: Any, version: Version) -> Any:
    """Return the assignment. In a fallback's cluster, `MODEL/VERSION/fallback/FALLBACK`, endpoints say their version."""
    if assignment.cluster_name.endswith(f"/fallback/{version.name}"):
        for group in assignment.endpoints:
            for endpoint in group.lb_endpoints:
                set_fallback(endpoint.metadata, version.name)
    return assignment


def spread(version: Version, live: tuple[LiveEndpoint, ...] | None) -> bool:
    """Return True if the endpoints of a version are in several localities, so that some are nearer to a node than others."""
    if live is None:
        return len({(e.region, e.zone) for e in version.endpoints}) > 1
    return len({(e.locality.region, e.locality.zone) for e in live}) > 1


def max_priorities(version: Version) -> int:
    """Return the largest number of priorities that the endpoints of desired state can have for a node."""
    return min(len({(e.region, e.zone) for e in version.endpoints}), _PRIORITIES) or 1


@dataclass(frozen=True, slots=True)
class _Placed:
    """An endpoint of desired state, in the form of a live one; unlike that it may be a DNS name."""

    host: str
    port: int
    weight: int
    locality: Locality
    health: Health = Health.UNKNOWN
    grpc_port: int = 0


def _placed(endpoint: Endpoint) -> _Placed:
    locality = Locality(endpoint.region, endpoint.zone)
    return _Placed(endpoint.host, endpoint.port, endpoint.weight, locality, grpc_port=endpoint.grpc_port)


def _assignment(cluster: str, endpoints: Iterable[LiveEndpoint | _Placed], node: Locality, to_the_last: bool) -> Any:
    """Return a ClusterLoadAssignment with a group for each locality. A locality's weight is the sum of its endpoints'."""
    groups: dict[Locality, Any] = {}
    grpc = has_grpc_name(cluster)
    for e in endpoints:
        if grpc and not e.grpc_port:
            continue
        group = groups.get(e.locality)
        if group is None:
            group = groups[e.locality] = _locality(e.locality, 0)
        group.load_balancing_weight.value += e.weight
        health = _HEALTH[e.health]
        endpoint = _add(group, e, grpc=grpc)
        if health:
            endpoint.health_status = health
    distances = {locality: _distance(node, locality) for locality in groups}
    # Envoy refuses priorities with gaps.
    priorities = {distance: priority for priority, distance in enumerate(sorted(set(distances.values())))}
    for locality, group in groups.items():
        group.priority = priorities[distances[locality]]
    return _limited(endpoint_pb2.ClusterLoadAssignment(cluster_name=cluster, endpoints=groups.values()), to_the_last)


def _distance(node: Locality, locality: Locality) -> int:
    """Return 0 for the node's own zone, 1 for its region, 2 for everywhere else."""
    same_region = bool(node.region) and node.region == locality.region
    if node.zone and node.zone == locality.zone and (same_region or not (node.region and locality.region)):
        return 0
    return 1 if same_region else _PRIORITIES - 1


def _limited(assignment: Any, to_the_last: bool) -> Any:
    if to_the_last:
        assignment.policy.overprovisioning_factor.value = _TO_THE_LAST
    return assignment


def _locality(locality: Locality, weight: int) -> Any:
    # gRPC's client needs a locality with a weight of at least 1; without it calls hang, and no error says why.
    return endpoint_components_pb2.LocalityLbEndpoints(
        locality=base_pb2.Locality(region=locality.region, zone=locality.zone, sub_zone=locality.sub_zone),
        load_balancing_weight=wrappers_pb2.UInt32Value(value=weight),
    )


def _add(group: Any, endpoint: Endpoint | LiveEndpoint | _Placed, *, grpc: bool) -> Any:
    added = group.lb_endpoints.add(load_balancing_weight=wrappers_pb2.UInt32Value(value=endpoint.weight))
    added.endpoint.address.CopyFrom(socket_address(endpoint.host, endpoint.grpc_port if grpc else endpoint.port))
    if grpc and endpoint.grpc_port != endpoint.port:
        added.endpoint.health_check_config.port_value = endpoint.port  # the port that the health check asks
    return added

"""Endpoints: one ClusterLoadAssignment a cluster, where the version's addresses are IP addresses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from envoy.config.core.v3 import base_pb2, health_check_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from google.protobuf import wrappers_pb2

from controlplane.compiler.message import resource, socket_address
from controlplane.domain import Locality, Version
from controlplane.domain.endpoints import Health, LiveEndpoint
from controlplane.envoy_types import ENDPOINTS
from controlplane.snapshot import Resource

_HEALTH = {
    Health.UNKNOWN: health_check_pb2.UNKNOWN,
    Health.HEALTHY: health_check_pb2.HEALTHY,
    Health.UNHEALTHY: health_check_pb2.UNHEALTHY,
    Health.DRAINING: health_check_pb2.DRAINING,
}


def compile_endpoints(cluster: str, version: Version, live: tuple[LiveEndpoint, ...] | None = None) -> list[Resource]:
    """Return the ClusterLoadAssignment of a version: with the `live` endpoints, or those of desired state if `live` is None.

    Empty if the cluster gets no endpoints over EDS: desired state has none, or they are DNS names that Envoy resolves.
    """
    if not version.endpoints or version.has_dns_endpoints:
        return []
    assignment = load_assignment(cluster, version) if live is None else _live_assignment(cluster, live)
    return [resource(ENDPOINTS, assignment)]


def load_assignment(cluster: str, version: Version) -> Any:
    """Return a ClusterLoadAssignment of the addresses in desired state, in their order, all in one locality."""
    locality = _locality(Locality(), 1)
    for e in version.endpoints:
        _add(locality, e.host, e.port, e.weight)
    return endpoint_pb2.ClusterLoadAssignment(cluster_name=cluster, endpoints=[locality])


def _live_assignment(cluster: str, live: Iterable[LiveEndpoint]) -> Any:
    """Return a ClusterLoadAssignment with a group for each locality. A locality's weight is the sum of its endpoints'."""
    groups: dict[Locality, Any] = {}
    for e in live:
        group = groups.get(e.locality)
        if group is None:
            group = groups[e.locality] = _locality(e.locality, 0)
        group.load_balancing_weight.value += e.weight
        _add(group, e.host, e.port, e.weight).health_status = _HEALTH[e.health]
    return endpoint_pb2.ClusterLoadAssignment(cluster_name=cluster, endpoints=groups.values())


def _locality(locality: Locality, weight: int) -> Any:
    # gRPC's client needs a locality with a weight of at least 1; without it calls hang, and no error says why.
    return endpoint_components_pb2.LocalityLbEndpoints(
        locality=base_pb2.Locality(region=locality.region, zone=locality.zone, sub_zone=locality.sub_zone),
        load_balancing_weight=wrappers_pb2.UInt32Value(value=weight),
    )


def _add(group: Any, host: str, port: int, weight: int) -> Any:
    endpoint = group.lb_endpoints.add(load_balancing_weight=wrappers_pb2.UInt32Value(value=weight))
    endpoint.endpoint.address.CopyFrom(socket_address(host, port))
    return endpoint

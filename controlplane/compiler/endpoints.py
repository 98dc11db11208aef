"""Endpoints: one ClusterLoadAssignment a cluster, where the version's addresses are IPs."""

from __future__ import annotations

from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from google.protobuf import wrappers_pb2

from controlplane.compiler.message import resource, socket_address
from controlplane.domain import Version
from controlplane.snapshot import ENDPOINTS, Resource


def compile_endpoints(cluster: str, version: Version) -> list[Resource]:
    """What EDS serves of a version: nothing when Envoy resolves its names itself, or when there are none."""
    if not version.endpoints or version.has_dns_endpoints:
        return []
    return [resource(ENDPOINTS, load_assignment(cluster, version))]


def load_assignment(cluster: str, version: Version) -> Any:
    """The version's addresses in one locality, in their order."""
    # gRPC's client wants a locality, and a weight on it of 1 at least; without it calls hang, and it says nothing.
    locality = endpoint_components_pb2.LocalityLbEndpoints(
        locality=base_pb2.Locality(), load_balancing_weight=wrappers_pb2.UInt32Value(value=1)
    )
    for e in version.endpoints:
        added = locality.lb_endpoints.add(load_balancing_weight=wrappers_pb2.UInt32Value(value=e.weight))
        added.endpoint.address.CopyFrom(socket_address(e.host, e.port))
    return endpoint_pb2.ClusterLoadAssignment(cluster_name=cluster, endpoints=[locality])

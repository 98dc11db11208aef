"""gRPC ports: where the servers of a model listen for gRPC, beside the port for HTTP.

Triton, MLServer and KServe's servers listen for HTTP on one port, and for gRPC on another. A model with gRPC ports has both,
and one split. So all its versions that have endpoints must have them: gRPC calls can't be given to a version that has none.
"""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.domain.version import Version
from controlplane.errors import invalid


def check_grpc_ports(versions: Sequence[Version]) -> None:
    """Check that all versions with endpoints have gRPC ports, or none. Errors: INVALID_ARGUMENT at `versions[I].endpoints`."""
    used = [(i, v) for i, v in enumerate(versions) if v.endpoints]
    with_ports = next((v for _, v in used if v.has_grpc_ports), None)
    for i, version in used:
        if with_ports is not None and not version.has_grpc_ports:
            raise invalid(
                f"versions[{i}].endpoints",
                f"'{with_ports.name}' has gRPC ports, and '{version.name}' has none, so it could not answer gRPC calls: set "
                "grpc_port of all its endpoints",
            )

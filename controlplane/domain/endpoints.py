"""Live endpoints: the addresses that serve a version now.

Live endpoints can change every few seconds, so they are not part of a revision. They are a separate input of the compiler. A
version's entry in `Endpoints.live` decides which endpoints the version has:

    entry of the version    endpoints of the version
    none                    those of its desired state
    some endpoints          exactly these; those of its desired state are ignored
    an empty tuple          none: requests fail until the entry gets endpoints
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from controlplane.domain.checks import check_bounds, check_port, is_ip
from controlplane.domain.gateway import Locality
from controlplane.errors import invalid


class Health(Enum):
    """The health of an endpoint, as the source of endpoints reports it. Envoy's own health checks apply in addition."""

    UNKNOWN = "unknown"  # used as if it were healthy
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"  # gets no requests, unless too few others are left
    DRAINING = "draining"  # gets no new requests


@dataclass(frozen=True, slots=True)
class LiveEndpoint:
    """One address that serves a version now. `host` is always an IP address: the source of endpoints resolves DNS names."""

    host: str
    port: int
    weight: int = 1
    locality: Locality = Locality()
    health: Health = Health.UNKNOWN
    grpc_port: int = 0  # 0: none; a version with gRPC ports gets no gRPC calls at this endpoint

    def __post_init__(self) -> None:
        if not is_ip(self.host):
            raise invalid("host", f"'{self.host[:80]}' is not an IP address")
        check_port(self.port)
        if self.grpc_port:
            check_port(self.grpc_port, "grpc_port")
        check_bounds(self, "weight")


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The live endpoints of all versions that have a source of live endpoints."""

    # By (label of the model, label of the version).
    live: Mapping[tuple[str, str], tuple[LiveEndpoint, ...]] = field(default_factory=dict)

    def of(self, model: str, version: str) -> tuple[LiveEndpoint, ...] | None:
        """Return a version's live endpoints, in order. None means that the version has the endpoints of its desired state."""
        return self.live.get((model, version))

    def changed_models(self, newer: Endpoints) -> set[str]:
        """Return the labels of the models that have a version whose live endpoints differ in `newer`."""
        if newer is self or newer.live is self.live:
            return set()
        keys = self.live.keys() | newer.live.keys()
        return {key[0] for key in keys if self.live.get(key) != newer.live.get(key)}


# Every version has the endpoints of its desired state.
NO_LIVE_ENDPOINTS = Endpoints()

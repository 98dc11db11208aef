"""Live endpoints: the addresses that answer for a version now.

They change in seconds, so they are no part of a revision: the compiler takes them beside the state. For each version one of
three things is the case:

    in `Endpoints.live`    the version has
    no entry               the endpoints of its desired state
    some endpoints         exactly these, whatever its desired state names
    no endpoints           none now: its requests fail until some come
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from controlplane.domain.checks import check_bounds, check_port, is_ip
from controlplane.domain.gateway import Locality
from controlplane.errors import invalid


class Health(Enum):
    """The health of an endpoint, as its source reports it. An Envoy's own health checks count beside it."""

    UNKNOWN = "unknown"  # used as if it were healthy
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"  # gets no requests, unless too few others are left
    DRAINING = "draining"  # gets no new requests


@dataclass(frozen=True, slots=True)
class LiveEndpoint:
    """One address that answers for a version now. Always an IP address: names are resolved where endpoints come from."""

    host: str
    port: int
    weight: int = 1
    locality: Locality = Locality()
    health: Health = Health.UNKNOWN

    def __post_init__(self) -> None:
        if not is_ip(self.host):
            raise invalid("host", f"'{self.host[:80]}' is not an IP address")
        check_port(self.port)
        check_bounds(self, "weight")


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The live endpoints of all versions that have some source for them."""

    # By (model, version), both labels.
    live: Mapping[tuple[str, str], tuple[LiveEndpoint, ...]] = field(default_factory=dict)

    def of(self, model: str, version: str) -> tuple[LiveEndpoint, ...] | None:
        """Return a version's live endpoints, in order. None: it has those of its desired state."""
        return self.live.get((model, version))

    def changed_models(self, newer: Endpoints) -> set[str]:
        """Return the models of which some version has other live endpoints in `newer`."""
        if newer is self or newer.live is self.live:
            return set()
        keys = self.live.keys() | newer.live.keys()
        return {key[0] for key in keys if self.live.get(key) != newer.live.get(key)}


# Every version has the endpoints of its desired state.
NO_LIVE_ENDPOINTS = Endpoints()

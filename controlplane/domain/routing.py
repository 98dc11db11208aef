"""The keys by which a request names its model at a gateway."""

from __future__ import annotations

from controlplane.domain.gateway import BodyRouting, Gateway, HeaderRouting, HostRouting, PathRouting
from controlplane.domain.model import Model


def scope_keys(gateway: Gateway, model: Model) -> list[str]:
    """Return every key by which a request to `gateway` can name `model`, in order."""
    match gateway.routing:
        case PathRouting(verbs=verbs):
            return [k for key in model.route_keys for k in (key, *(f"{key}:{verb}" for verb in verbs))]
        case HeaderRouting() | BodyRouting():
            return list(model.route_keys)
        case HostRouting():
            return list(dict.fromkeys(key.lower() for key in model.route_keys))

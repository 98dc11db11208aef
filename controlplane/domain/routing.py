"""The keys by which a request names its model at a gateway."""

from __future__ import annotations

import re

from controlplane.domain.gateway import BodyRouting, Gateway, HeaderRouting, HostRouting, PathRouting
from controlplane.domain.model import Model

# A key in the path is one segment, without escaped characters. A host has fewer characters still.
_SEGMENT = re.compile(r"[A-Za-z0-9._~-]+")


def scope_keys(gateway: Gateway, model: Model) -> list[str]:
    """Return every key by which a request to `gateway` can name `model`, in order."""
    match gateway.routing:
        case PathRouting(verbs=verbs):
            return [k for key in model.route_keys for k in (key, *(f"{key}:{verb}" for verb in verbs))]
        case HeaderRouting() | BodyRouting():
            return list(model.route_keys)
        case HostRouting():
            return list(dict.fromkeys(key.lower() for key in model.route_keys))


def is_possible(gateway: Gateway, key: str) -> bool:
    """Return True if a request to `gateway` can have a key. Names such as `llama3.1:8b` fit a header or a body only."""
    return isinstance(gateway.routing, HeaderRouting | BodyRouting) or _SEGMENT.fullmatch(key) is not None

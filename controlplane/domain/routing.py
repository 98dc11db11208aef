"""The keys by which a request names its model at a gateway."""

from __future__ import annotations

from controlplane.domain.gateway import BodyRouting, Gateway, HeaderRouting, HostRouting, PathRouting
from controlplane.domain.model import Model

# Characters in keys that some clients encode in a path.
_ENCODED_BY_CLIENTS = {character: f"%{ord(character):02X}" for character in ":@+"}


def scope_keys(gateway: Gateway, model: Model) -> list[str]:
    """Return every key by which a request to `gateway` can name `model`, in order."""
    match gateway.routing:
        case PathRouting(verbs=verbs):
            keys = dict.fromkeys(form for key in model.route_keys for form in (key, encoded(key)))
            return [k for key in keys for k in (key, *(f"{key}:{verb}" for verb in verbs))]
        case HeaderRouting() | BodyRouting():
            return list(model.route_keys)
        case HostRouting():
            return list(dict.fromkeys(key.lower() for key in model.route_keys))


def carries_grpc(gateway: Gateway) -> bool:
    """Return True if gRPC calls can name a model of a gateway. The path of a call is `/SERVICE/METHOD`, and no longer."""
    return not isinstance(gateway.routing, PathRouting) or gateway.routing.segment <= 2


def encoded(key: str) -> str:
    """Return a key as clients write it in a path if they encode it: `llama3.1%3A8b`."""
    return "".join(_ENCODED_BY_CLIENTS.get(character, character) for character in key)

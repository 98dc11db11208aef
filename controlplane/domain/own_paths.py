"""The paths at which a gateway answers itself, and the keys that requests have there.

SDKs ask some paths before they call a model, such as `/v2/health/ready`. On a path gateway, a request there has a key, too:
the segment of the path where the gateway looks for it. A model with this key would get these requests.
"""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.domain.gateway import Gateway, PathRouting
from controlplane.domain.model import Model
from controlplane.domain.routing import scope_keys

# The Open Inference Protocol, its extension for repositories, and version 1 of KServe's protocol.
INDEX = "/v2/repository/index"
MODELS = "/v1/models"
# Liveness of KServe's version 1, of MLflow's scoring server, and of vLLM.
ALIVE = ("/", "/ping", "/health")
OWN_PATHS = ("/v2", "/v2/", "/v2/health/live", "/v2/health/ready", INDEX, MODELS, *ALIVE)

# Every key that a gateway may answer itself.
OWN_KEYS = frozenset(segment for path in OWN_PATHS for segment in path.split("/"))


def path_keys(segment: int) -> Mapping[str, str]:
    """Return the paths at which a path gateway answers itself, by the keys that they have; "" is a path without a key."""
    keys: dict[str, str] = {}
    for path in OWN_PATHS:
        keys.setdefault(_segment(path, segment), path)
    return keys


def health_path_model(gateway: Gateway, model: Model) -> bool:
    """Return True if a request at the health path of a gateway names a model by its path."""
    if not isinstance(gateway.routing, PathRouting) or not gateway.health_path:
        return False
    return _segment(gateway.health_path, gateway.routing.segment) in scope_keys(gateway, model)


def taken_path(gateway: Gateway, key: str) -> str:
    """Return a path at which a gateway answers itself, and which it would leave to a model with a key; "" if there is none."""
    return path_keys(gateway.routing.segment).get(key, "") if isinstance(gateway.routing, PathRouting) else ""


def _segment(path: str, number: int) -> str:
    """Return a segment of a path, counted from 1; "" if there is none."""
    segments = path.split("/")
    return segments[number] if number < len(segments) else ""

"""Default models of body gateways that no model has as its key.

They are no error: a gateway is made before its models, so the model may come in a later change.
"""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.domain.collections import Object
from controlplane.domain.gateway import BodyRouting, Gateway
from controlplane.domain.state import State


def missing_defaults(state: State, changed: Iterable[Object | None]) -> tuple[str, ...]:
    """Return a warning for each changed gateway whose default model does not exist in a state."""
    return tuple(
        f"no model of {gateway.resource_name} has the key '{key}', its default_model: until there is one, requests that name "
        "no model get an error"
        for gateway in changed
        if isinstance(gateway, Gateway) and isinstance(gateway.routing, BodyRouting) and (key := gateway.routing.default_model)
        if not any(gateway.name in model.gateways and key in model.route_keys for model in state.models.values())
    )

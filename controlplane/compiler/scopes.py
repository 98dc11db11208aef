"""Scopes: they map a request to its RouteConfiguration. One ScopedRouteConfiguration for each key of a model on a gateway.

A scope's key has two parts, `[address, key]`, where the address is the listener's name. Envoy subscribes to all scopes by
wildcard, and its listeners share them, so the key alone would let one gateway serve another's models. The address comes from
a header that the listener sets (`listeners.py`).
"""

from __future__ import annotations

from envoy.config.route.v3 import scoped_route_pb2

from controlplane.compiler.listeners import listener_name
from controlplane.compiler.message import resource
from controlplane.domain import Gateway, Model
from controlplane.domain.routing import scope_keys
from controlplane.envoy_types import ROUTES, SCOPED_ROUTES
from controlplane.snapshot import Resource


def compile_scopes(gateway: Gateway, model: Model) -> list[Resource]:
    """Return a scope for each key with which a request to `gateway` names `model`."""
    scope = scoped_route_pb2.ScopedRouteConfiguration
    fragment = scope.Key.Fragment
    listener = listener_name(gateway)
    return [
        resource(
            SCOPED_ROUTES,
            scope(
                name=f"{listener}/{key}",
                route_configuration_name=model.name,
                key=scope.Key(fragments=[fragment(string_key=listener), fragment(string_key=key)]),
            ),
            [(ROUTES, model.name)],
        )
        for key in scope_keys(gateway, model)
    ]

"""Scopes: which RouteConfiguration a request finds. One ScopedRouteConfiguration for each key of a model on a gateway.

A scope's key has two parts, `[address, key]`, where the address is the listener's name. Scopes are
asked for by wildcard and shared by all listeners of an Envoy, so
the key alone would let one gateway serve another's models. The address comes from a header that the listener sets
(`listeners.py`).
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
    """A scope for every value that a request to `gateway` can carry that means `model`."""
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

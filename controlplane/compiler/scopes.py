"""Scopes: they map a request to its RouteConfiguration. One ScopedRouteConfiguration for each key of a model on a gateway.

A scope's key has two parts, `[gateway's scope, key]`. Envoy subscribes to all scopes by wildcard, and its listeners share
them, so the key alone would let one gateway serve another's models. The first part comes from a header that the listener sets
(`listeners.py`). It does not change when the gateway moves, so that open connections keep finding their models
(`domain/scopes.py`).
"""

from __future__ import annotations

from envoy.config.route.v3 import scoped_route_pb2

from controlplane.compiler.message import resource
from controlplane.domain import Gateway, Model
from controlplane.domain.routing import scope_keys
from controlplane.envoy_types import ROUTES, SCOPED_ROUTES
from controlplane.snapshot import Resource


def compile_scopes(gateway: Gateway, model: Model) -> list[Resource]:
    """Return a scope for each key with which a request to `gateway` names `model`."""
    return [compile_scope(gateway, key, model.name) for key in scope_keys(gateway, model)]


def compile_scope(gateway: Gateway, key: str, routes: str) -> Resource:
    """Return the scope that maps a key of a gateway to the RouteConfiguration `routes`."""
    scope = scoped_route_pb2.ScopedRouteConfiguration
    fragment = scope.Key.Fragment
    return resource(
        SCOPED_ROUTES,
        scope(
            name=f"{gateway.scope}/{key}",
            route_configuration_name=routes,
            key=scope.Key(fragments=[fragment(string_key=gateway.scope), fragment(string_key=key)]),
        ),
        [(ROUTES, routes)],
    )

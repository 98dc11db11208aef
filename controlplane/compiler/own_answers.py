"""A gateway's own answers: the paths that SDKs ask before they call a model, such as `/v2/health/ready`.

These requests name no model, so no model server could answer them for the gateway. The gateway has one RouteConfiguration of
its own with an answer for each of these paths. Scopes lead to it. Their keys depend on where the gateway reads a key:

    path      the keys that these paths have at the gateway's segment, like `ready`; "" if the path has no such segment
    header    "" alone, which the listener gives to a request without the header
    host      none, and so no own answers: the host always names a model
    body      `body_routing.py` has the gateway's own routes

A model that has had one of these keys (`ready`) since an earlier version of Turnout keeps it, and answers there. New
models are refused.

The answers are true of the gateway, not of its models. `live` and `ready`: the Envoy has the configuration of a revision. The
index lists the models that the gateway routes to, with the state READY. A switch changes none of this. A model that is created
or deleted does, unless the gateway hides its models.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from envoy.config.route.v3 import route_pb2

from controlplane.compiler.message import resource, set_header_option
from controlplane.compiler.scopes import compile_scope
from controlplane.domain import Gateway, HeaderRouting, Model, PathRouting
from controlplane.domain.own_paths import ALIVE, INDEX, MODELS, path_keys
from controlplane.domain.routing import scope_keys
from controlplane.envoy_types import ROUTES
from controlplane.snapshot import Resource


def own_keys(gateway: Gateway) -> tuple[str, ...]:
    """Return the keys of the requests that a gateway answers itself, in order; "" is a request without a key."""
    match gateway.routing:
        case PathRouting(segment=segment):
            return tuple(path_keys(segment))
        case HeaderRouting():
            return ("",)
        case _:
            return ()


def listed(gateway: Gateway, models: Iterable[Model]) -> tuple[str, ...]:
    """Return the keys of the models that a gateway lists, in the order of the models; none if it hides them."""
    return () if gateway.hide_models else tuple(key for model in models for key in model.route_keys)


def compile_own_answers(gateway: Gateway, models: Sequence[Model]) -> list[Resource]:
    """Return the RouteConfiguration with a gateway's own answers, and the scopes that lead to it.

    `models` are those that the gateway serves, in the order in which it lists them.
    """
    keys = own_keys(gateway)
    if not keys:
        return []
    taken = {key for model in models for key in scope_keys(gateway, model)}
    config = route_pb2.RouteConfiguration(name=gateway.resource_name)
    set_header_option(config.response_headers_to_add, "content-type", "application/json")
    host = config.virtual_hosts.add(name="*", domains=["*"])
    longest = 0
    for path, answer in _answers(gateway, listed(gateway, models)):
        route = host.routes.add()
        route.match.path = path
        route.direct_response.status = 200
        route.direct_response.body.inline_string = text = json.dumps(answer, separators=(",", ":"))
        longest = max(longest, len(text))
    # Envoy's limit for the answers of a RouteConfiguration, which it refuses if one is longer. The default is 4 KiB.
    config.max_direct_response_body_size_bytes.value = longest
    scopes = [compile_scope(gateway, key, gateway.resource_name) for key in keys if key not in taken]
    return [resource(ROUTES, config), *scopes]


def _answers(gateway: Gateway, names: Sequence[str]) -> Iterator[tuple[str, object]]:
    """Yield each path with its answer."""
    # No extension: models can be listed, but not loaded or unloaded.
    server = {"name": gateway.name, "version": "", "extensions": []}
    yield "/v2", server
    yield "/v2/", server
    yield "/v2/health/live", {"live": True}
    yield "/v2/health/ready", {"ready": True}
    for path in ALIVE:
        yield path, {"status": "alive"}
    if not gateway.hide_models:
        yield INDEX, [{"name": name, "state": "READY", "reason": ""} for name in names]
        yield MODELS, {"models": list(names)}

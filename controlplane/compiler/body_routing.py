"""Body gateways: a filter in front of the router finds the model in the body, and then the scope is looked up again.

A request finds its RouteConfiguration by a key of two parts, which both come from the header `x-turnout-scope`. The listener
sets the header to `SCOPE|*` before anything else, and so removes what a client sent. The filter replaces `*`:

    SCOPE|*              as the request comes: the gateway's own routes, which list its models
    SCOPE|NAME           the scope of the model with this key; without such a scope, the local reply for unknown models
    SCOPE|*default       the request names no model: the default model, or the gateway's own routes, which answer with an error
    SCOPE|*impossible    no model can have such a name: no scope, the local reply for unknown models

The gateway's own routes are one RouteConfiguration, `gateways/NAME`. It changes when models or keys are added or removed, and
not at a switch. The listener does not change with models, as for all gateways.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.lua.v3 import lua_pb2

from controlplane.compiler.body_script import LIST, NO_MODEL, START, script
from controlplane.compiler.message import packed, resource, set_header_option
from controlplane.compiler.scopes import compile_scope
from controlplane.domain import BodyRouting, Gateway, Model
from controlplane.domain.routing import scope_keys
from controlplane.envoy_types import ROUTES
from controlplane.snapshot import Resource

# Envoy refuses longer bodies of direct responses, unless the RouteConfiguration names a higher limit.
_DEFAULT_MAX_BODY = 4096

_NO_MODEL_TEXT = "The request names no model. Send the name in the field model of the JSON body."
_UNKNOWN_TEXT = "This gateway has no such model. GET /v1/models lists its models."


def model_filter(manager: Any, header: str) -> None:
    """Add the filter that finds the model to a connection manager. It must be in front of the router."""
    lua = lua_pb2.Lua()
    lua.default_source_code.inline_string = script(header)
    manager.http_filters.add(name="turnout.model", typed_config=packed(lua))


def models_by_key(gateway: Gateway, models: Iterable[Model]) -> Mapping[str, str]:
    """Return the labels of the models by the keys with which requests to `gateway` name them, sorted by key."""
    return dict(sorted((key, m.name) for m in models if gateway.name in m.gateways for key in scope_keys(gateway, m)))


def compile_own_resources(gateway: Gateway, models: Mapping[str, str]) -> list[Resource]:
    """Return the RouteConfiguration of a body gateway and the scopes that lead to it. `models` are labels by key."""
    assert isinstance(gateway.routing, BodyRouting)
    own_routes = gateway.resource_name
    default_routes = models.get(gateway.routing.default_model, own_routes)
    # `hide_models` empties the list only. Requests still reach the models.
    return [
        _routes(own_routes, () if gateway.hide_models else models),
        compile_scope(gateway, START, own_routes),
        compile_scope(gateway, NO_MODEL, default_routes),
    ]


def _routes(name: str, keys: Iterable[str]) -> Resource:
    config = route_pb2.RouteConfiguration(name=name)
    set_header_option(config.response_headers_to_add, "content-type", "application/json")
    host = config.virtual_hosts.add(name="*", domains=["*"])
    # Every request is matched against these routes before the model is found. So the routes of the list come last.
    for prefix in ("/api/", "/"):
        route = _answer(host, 400, _error(prefix, _NO_MODEL_TEXT, None))
        route.match.prefix = prefix
        method = route.match.headers.add(name=":method", invert_match=True).string_match
        method.safe_regex.regex = "GET|HEAD"
    entries = [_list_entry(key) for key in keys]
    _answer(host, 200, {"object": "list", "data": entries}).match.safe_regex.regex = f"(/v1)?{LIST}/?"
    _answer(host, 200, {"models": [{"name": key, "model": key} for key in keys]}).match.path = "/api/tags"
    for key, entry in zip(keys, entries, strict=True):
        slashes = key.replace("/", "%2F")
        for path in dict.fromkeys((key, slashes, slashes.replace(":", "%3A"))):
            _answer(host, 200, entry).match.path = f"/v1{LIST}/{path}"
    _answer(host, 404, _error("/", _UNKNOWN_TEXT, "model_not_found")).match.prefix = f"/v1{LIST}/"
    for prefix in ("/api/", "/"):
        _answer(host, 400, _error(prefix, _NO_MODEL_TEXT, None)).match.prefix = prefix
    longest = max(len(route.direct_response.body.inline_string.encode()) for route in host.routes)
    if longest > _DEFAULT_MAX_BODY:
        config.max_direct_response_body_size_bytes.value = longest
    return resource(ROUTES, config)


def _answer(host: Any, status: int, body: object) -> Any:
    """Add a route with which Envoy itself answers. The caller sets what it matches."""
    route = host.routes.add()
    route.direct_response.status = status
    route.direct_response.body.inline_string = json.dumps(body, separators=(",", ":"))
    return route


def _list_entry(key: str) -> dict[str, object]:
    """Return the model with a key as OpenAI's API lists it; `type` and `display_name` are those of Anthropic's API."""
    return {"id": key, "object": "model", "created": 0, "owned_by": "turnout", "type": "model", "display_name": key}


def _error(path: str, message: str, code: str | None) -> dict[str, object]:
    """Return an error in the form of Ollama's API below `/api/`, and else in that of OpenAI's and Anthropic's."""
    if path == "/api/":
        return {"error": message}
    error = {"type": "invalid_request_error", "code": code, "param": "model", "message": message}
    return {"type": "error", "error": error}

"""CORS as HTTP filters of the listener.

Envoy's own CORS filter takes its policy from the route. Here that would be wrong twice: a route belongs to a model, which
several gateways may serve, and a policy would make a switch larger. And a preflight request can't find its route at a header
gateway, because a browser does not send the header in it. So these filters work without a route:

    response from an allowed origin     header_mutation sets the CORS headers, over those of the model server
    response from another origin        header_mutation removes those of the model server
    preflight request                   header_mutation sets the headers of the answer, and a line of Lua answers with 204

No other built-in filter answers a request without a route, with an empty body, and while Envoy drains.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from envoy.extensions.filters.http.lua.v3 import lua_pb2

from controlplane.compiler.matching import every, filter_if, negated, request_header
from controlplane.compiler.message import set_header
from controlplane.domain import Cors
from controlplane.domain.cors import ANY_ORIGIN

_ANSWER = 'function envoy_on_request(handle) handle:respond({[":status"] = "204"}) end'
# One or more labels of a host, in place of the `*.` of an origin.
_LABELS = r"([a-z0-9_-]+\.)+"


def cors_filters(cors: Cors) -> list[tuple[str, Any]]:
    """Return the filters for a policy as (name, configuration), in order."""
    allowed = request_header("origin", "|".join(map(_origin_regex, cors.allow_origins)))
    has_origin = request_header("origin", ".*")
    preflight = every(
        (has_origin, request_header(":method", "OPTIONS"), request_header("access-control-request-method", ".+"))
    )
    filters = [
        ("turnout.cors", filter_if(allowed, "cors", _varied(_set(_headers(cors))))),
        ("turnout.cors_refused", filter_if(every((has_origin, negated(allowed))), "cors_refused", _remove())),
        (
            "turnout.cors_preflight",
            filter_if(every((preflight, allowed)), "cors_preflight", _set(_preflight_headers(cors))),
        ),
    ]
    answer = lua_pb2.Lua()
    answer.default_source_code.inline_string = _ANSWER
    return [*filters, ("turnout.cors_answer", filter_if(preflight, "cors_answer", answer))]


def _headers(cors: Cors) -> Iterable[tuple[str, str]]:
    """Yield the headers of every response to an allowed origin."""
    yield "access-control-allow-origin", "%REQ(origin)%"
    if cors.allow_credentials:
        yield "access-control-allow-credentials", "true"
    if cors.expose_headers:
        yield "access-control-expose-headers", ",".join(cors.expose_headers)


def _preflight_headers(cors: Cors) -> Iterable[tuple[str, str]]:
    """Yield the headers of the answer to a preflight request of an allowed origin."""
    yield "access-control-allow-methods", ",".join(cors.allow_methods) or "%REQ(access-control-request-method)%"
    yield "access-control-allow-headers", ",".join(cors.allow_headers) or "%REQ(access-control-request-headers)%"
    if cors.max_age is not None:
        yield "access-control-max-age", f"{cors.max_age:.0f}"


def _set(headers: Iterable[tuple[str, str]]) -> Any:
    """Return a filter that sets response headers."""
    config = header_mutation_pb2.HeaderMutation()
    for name, value in headers:
        set_header(config.mutations.response_mutations, name, value)
    return config


def _varied(config: Any) -> Any:
    """Return a filter that also tells caches that the response depends on the origin."""
    append = config.mutations.response_mutations.add().append
    append.header.key, append.header.value = "vary", "origin"
    append.append_action = base_pb2.HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
    return config


def _remove() -> Any:
    config = header_mutation_pb2.HeaderMutation()
    for name in ("access-control-allow-origin", "access-control-allow-credentials"):
        config.mutations.response_mutations.add().remove = name
    return config


def _origin_regex(origin: str) -> str:
    if origin == ANY_ORIGIN:
        return ".*"
    scheme, _, host = origin.partition("://")
    wildcard = host.startswith("*.")
    return re.escape(f"{scheme}://") + (_LABELS if wildcard else "") + re.escape(host[2:] if wildcard else host)

"""The HTTP filters for clients, in front of the one that finds the model: health check, CORS, gRPC-Web, who answered.

A request passes them in this order, a response in the other direction.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.http.grpc_web.v3 import grpc_web_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from envoy.extensions.filters.http.health_check.v3 import health_check_pb2

from controlplane.compiler.cors import cors_filters
from controlplane.compiler.local_replies import GRPC_STATUS_HEADER
from controlplane.compiler.matching import filter_if, request_header, response_header
from controlplane.compiler.message import set_header
from controlplane.compiler.who import MODEL, REVISION, SUFFIX, VERSION
from controlplane.domain import Gateway


def client_filters(gateway: Gateway) -> Iterator[tuple[str, Any]]:
    """Yield the filters of a gateway as (name, configuration)."""
    if gateway.health_path:
        yield "envoy.filters.http.health_check", _health_check(gateway.health_path)
    if gateway.answered_by_header:
        yield "turnout.answered_by", _answered_by(gateway.answered_by_header)
    if gateway.cors is not None:
        yield from cors_filters(gateway.cors)
    yield "turnout.websocket_key", _websocket_key()
    yield "turnout.grpc_status", _grpc_status()
    # This filter changes only requests whose content type is that of gRPC-Web.
    yield "envoy.filters.http.grpc_web", grpc_web_pb2.GrpcWeb()


def _health_check(path: str) -> Any:
    """Return a filter that answers load balancers. They send GET or HEAD; requests with a body at this path name a model."""
    config = health_check_pb2.HealthCheck()
    config.pass_through_mode.value = False
    config.headers.add(name=":path").string_match.exact = path
    method = config.headers.add(name=":method").string_match.safe_regex
    method.regex = "GET|HEAD"
    return config


def _websocket_key() -> Any:
    """Return a filter that gives a WebSocket over HTTP/2 the key that servers of HTTP/1 require.

    Over HTTP/2 there is no key (RFC 8441, section 5), and the client checks no answer to it. So the key need not be random.
    """
    config = header_mutation_pb2.HeaderMutation()
    append = config.mutations.request_mutations.add().append
    append.header.key, append.header.value = "sec-websocket-key", "dHVybm91dHdlYnNvY2tldA=="
    append.append_action = base_pb2.HeaderValueOption.ADD_IF_ABSENT
    return filter_if(request_header("upgrade", "(?i)websocket"), "websocket_key", config)


def _grpc_status() -> Any:
    """Return a filter that gives gRPC-Web clients the status of a local reply. Their filter replaces it by one of HTTP's."""
    config = header_mutation_pb2.HeaderMutation()
    set_header(config.mutations.response_mutations, "grpc-status", f"%RESP({GRPC_STATUS_HEADER})%")
    config.mutations.response_mutations.add(remove=GRPC_STATUS_HEADER)
    return filter_if(response_header(GRPC_STATUS_HEADER, "[0-9]+"), "grpc_status", config)


def _answered_by(name: str) -> Any:
    """Return a filter that sets the header in answers of model servers. Envoy's own answers don't have it."""
    config = header_mutation_pb2.HeaderMutation()
    set_header(config.mutations.response_mutations, name, f"model={MODEL}, version={VERSION}{SUFFIX}, revision={REVISION}")
    # The router sets this header in each response that came from upstream.
    return filter_if(response_header("x-envoy-upstream-service-time", ".+"), "answered_by", config)

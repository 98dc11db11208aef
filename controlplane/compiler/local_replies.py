"""Local replies: the errors with which Envoy itself answers, in the form that the client speaks.

Without this, Envoy answers an unknown model with an empty 404, and names addresses and TLS details when it can't reach a
server. Each row of `_REPLIES` is one kind of failure. It becomes one mapper for gRPC, which sets the status and the message of
the call, and one or two for HTTP, which write JSON in the gateway's form. Envoy uses the first mapper that matches.

A mapper matches by Envoy's response flags, or by the details of the response. So it never matches an answer of a model server,
nor a direct response of a route. The texts are for users of a model: they say what is wrong and what to do, and name nothing
that only the operator knows. The mappers are in the listener, so a switch does not send them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2

from controlplane.compiler.body_script import METADATA
from controlplane.compiler.grpc_models import SERVICE
from controlplane.compiler.message import packed, set_header_option
from controlplane.domain import BodyRouting, ErrorFormat, Gateway, HeaderRouting, HostRouting, PathRouting

# The statuses of gRPC that the replies use (https://grpc.io/docs/guides/status-codes/).
_DEADLINE_EXCEEDED, _NOT_FOUND, _RESOURCE_EXHAUSTED, _UNIMPLEMENTED, _UNAVAILABLE = 4, 5, 8, 12, 14

# The header with the gRPC status of a local reply, for the filter that gives it to gRPC-Web clients (`client_filters.py`).
GRPC_STATUS_HEADER = "x-turnout-grpc-status"

# The bytes of a client's own path or header that a text quotes. More is cut off.
_QUOTED = 200

_INVALID_REQUEST, _SERVER_ERROR = "invalid_request_error", "server_error"


@dataclass(frozen=True, slots=True)
class _Reply:
    """One kind of failure. All conditions that are set must be true."""

    text: str  # a format string: `%` is written `%%`
    grpc_status: int
    type: str  # the `type` and the `code` of the error in OpenAI's form
    code: str
    flags: tuple[str, ...] = ()  # one of these response flags is set
    expression: str = ""  # this expression in CEL is true
    header: str = ""  # the request has this header, and it is not empty
    grpc_text: str = ""  # the text for gRPC; empty: `text`
    status: int = 0  # the status over HTTP; 0 is Envoy's own


_TLS_FAILED = "upstream.transport_failure_reason.startsWith('TLS')"

# The first that matches is used. A request whose tries failed in different ways has the flags of all of them.
_REPLIES = (
    _Reply(
        "The gateway is overloaded. Try again later.",
        _UNAVAILABLE,
        _SERVER_ERROR,
        "gateway_overloaded",
        expression="response.code_details == 'overload'",
    ),
    _Reply(
        "Too many requests at this time. Try again later.",
        _RESOURCE_EXHAUSTED,
        "rate_limit_error",
        "rate_limit_exceeded",
        # A mapper for the flag RL does not match this reply (1.36, 1.40).
        expression="response.code_details == 'local_rate_limited'",
    ),
    _Reply(
        "The request is larger than this gateway accepts.",
        _RESOURCE_EXHAUSTED,
        _INVALID_REQUEST,
        "request_too_large",
        expression="response.code_details == 'request_payload_too_large'",
    ),
    _Reply(
        "The gateway can change to no other protocol than WebSocket.",
        _UNIMPLEMENTED,
        _INVALID_REQUEST,
        "unsupported_upgrade",
        expression="response.code_details == 'upgrade_failed'",
    ),
    _Reply(
        "The gateway has no credential for the model's server yet. Try again in a few seconds.",
        _UNAVAILABLE,
        _SERVER_ERROR,
        "model_unavailable",
        # Envoy's own status is 401, which would mean the client's credential.
        expression="response.code_details == 'failed_to_inject_credential'",
        status=503,
    ),
    _Reply(
        "The model's server could not be reached, and the request is too large to be sent again. Try again later.",
        _UNAVAILABLE,
        _SERVER_ERROR,
        "model_unavailable",
        # Envoy's own status is 507.
        expression="response.code_details == 'request_payload_exceeded_retry_buffer_limit'",
        status=503,
    ),
    _Reply(
        "The request was not complete in time.",
        _DEADLINE_EXCEEDED,
        _INVALID_REQUEST,
        "timeout",
        expression="response.code == 408",
        flags=("UMSDR",),
    ),
    _Reply(
        "The model did not answer in time.",
        _DEADLINE_EXCEEDED,
        _SERVER_ERROR,
        "timeout",
        # Without 504, a try timed out, and a later one failed in another way.
        expression="response.code == 504",
        flags=("UT", "DT", "UMSDR"),
    ),
    _Reply(
        "The request ended because no data was sent for too long.",
        _DEADLINE_EXCEEDED,
        _SERVER_ERROR,
        "timeout",
        flags=("SI",),
    ),
    _Reply(
        "Too many requests for this model are waiting or in progress. Try again later.",
        _UNAVAILABLE,
        _SERVER_ERROR,
        "model_overloaded",
        flags=("UO",),
    ),
    _Reply(
        "The model has no healthy server at this time. Try again later.",
        _UNAVAILABLE,
        _SERVER_ERROR,
        "model_unavailable",
        flags=("UH",),
    ),
    _Reply(
        "The gateway does not know the servers of this model yet. Try again in a few seconds.",
        _UNAVAILABLE,
        _SERVER_ERROR,
        "model_unavailable",
        flags=("NC",),
    ),
    _Reply(
        "The TLS handshake between the gateway and the model's server failed. Tell the operator of the gateway.",
        _UNAVAILABLE,
        _SERVER_ERROR,
        "model_unavailable",
        expression=_TLS_FAILED,
        flags=("UF",),
    ),
    _Reply(
        "The gateway can't connect to the model's server. Try again later.",
        _UNAVAILABLE,
        _SERVER_ERROR,
        "model_unavailable",
        flags=("UF",),
    ),
    _Reply(
        "The model's server ended the connection before it answered. It may have acted on the request.",
        _UNAVAILABLE,
        _SERVER_ERROR,
        "model_unavailable",
        flags=("UC", "UR", "LR", "UPE", "URX"),
    ),
)


# Replies to gRPC calls at body gateways, where a filter reads the model from the first message (`grpc_models.py`).
_GRPC_IN_BODY = (
    _Reply(
        # A gRPC call gets a direct response only from the gateway's own routes, because it names no model.
        f"The call names no model. This gateway reads it from calls to {SERVICE}, and has no default model for others.",
        _NOT_FOUND,
        _INVALID_REQUEST,
        "model_not_found",
        expression="response.code_details == 'direct_response'",
    ),
    _Reply(
        "The first message of the call is larger than this gateway accepts.",
        _RESOURCE_EXHAUSTED,
        _INVALID_REQUEST,
        "request_too_large",
        expression="response.code_details.startsWith('grpc_field_extraction_FAILED_PRECONDITION')",
    ),
)


def set_local_replies(manager: Any, gateway: Gateway) -> None:
    """Set the local replies of a gateway in its connection manager."""
    if isinstance(gateway.routing, BodyRouting):
        manager.local_reply_config.mappers.extend(_grpc(reply) for reply in _GRPC_IN_BODY)
    for reply in (*_unknown_model(gateway), *_REPLIES):
        manager.local_reply_config.mappers.append(_grpc(reply))
        manager.local_reply_config.mappers.extend(_json(reply, gateway.errors))


def _unknown_model(gateway: Gateway) -> Iterator[_Reply]:
    """Yield the replies to a request that finds no model."""
    match gateway.routing:
        case PathRouting(segment=segment):
            path = f"%PATH(NQ:PATH):{_QUOTED}%"
            read = f"No model matches the path '{path}'. This gateway reads the model's name from segment {segment}"
            # The path of a gRPC call is `/SERVICE/METHOD`.
            grpc_text = f"{read} of the path, which gRPC can't set. Call a gateway that reads it from a header."
            yield replace(_no_model(f"{read} of the path. Check the name and the path."), grpc_text=grpc_text)
        case HeaderRouting(name=name):
            # A name with a `%` or with other rare characters can't be used in a format string.
            value = f" '%REQ({name}):{_QUOTED}%'" if re.fullmatch(r"[a-z0-9_.-]+", name) else ""
            shown = name.replace("%", "%%")
            yield _no_model(
                f"There is no model{value}. This gateway reads the model's name from the header {shown}. Check the name.", name
            )
            yield _no_model(f"The request names no model. Send the model's name in the header {shown} (in gRPC: as metadata).")
        case HostRouting():
            yield _no_model(
                f"No model matches the host '%REQ(:AUTHORITY):{_QUOTED}%'. This gateway reads the model's name from the host. "
                "Check the host of the URL."
            )
        case BodyRouting():
            yield _no_model(
                f"There is no model '%DYNAMIC_METADATA({METADATA}:model)%'. GET /v1/models lists the models of this gateway."
            )


def _no_model(text: str, header: str = "") -> _Reply:
    return _Reply(text, _NOT_FOUND, _INVALID_REQUEST, "model_not_found", flags=("NR",), header=header)


def _grpc(reply: _Reply) -> Any:
    """Return the mapper for gRPC: Envoy sends the formatted text as `grpc-message`, and status 200."""
    grpc = accesslog_pb2.AccessLogFilter()
    grpc.header_filter.header.name = "content-type"
    # As Envoy recognises gRPC. `application/grpc-web` is not gRPC.
    grpc.header_filter.header.string_match.safe_regex.regex = r"application/grpc(\+.*)?"
    mapper = hcm_pb2.ResponseMapper(filter=_all([grpc, *_conditions(reply)]))
    for name in ("grpc-status", GRPC_STATUS_HEADER):
        set_header_option(mapper.headers_to_add, name, str(reply.grpc_status))
    if reply.status:
        mapper.status_code.value = reply.status  # gRPC-Web clients get it; gRPC clients get 200
    mapper.body_format_override.text_format_source.inline_string = reply.grpc_text or reply.text
    return mapper


def _json(reply: _Reply, error_format: ErrorFormat) -> Iterator[Any]:
    """Yield the mappers for HTTP."""
    if error_format is ErrorFormat.OPENAI:
        # Ollama's API has errors of its own. Those of Anthropic's API are those of OpenAI's with a type beside them.
        ollama = accesslog_pb2.AccessLogFilter()
        ollama.header_filter.header.name = ":path"
        ollama.header_filter.header.string_match.prefix = "/api/"
        yield _with_body({"error": reply.text}, reply, ollama)
        error = {"message": reply.text, "type": reply.type, "param": None, "code": reply.code}
        yield _with_body({"type": "error", "error": error}, reply)
    else:
        yield _with_body({"error": reply.text}, reply)


def _with_body(body: dict[str, Any], reply: _Reply, *conditions: Any) -> Any:
    mapper = hcm_pb2.ResponseMapper(filter=_all([*conditions, *_conditions(reply)]))
    if reply.status:
        mapper.status_code.value = reply.status
    mapper.body_format_override.json_format.update(body)
    return mapper


def _conditions(reply: _Reply) -> list[Any]:
    conditions = []
    if reply.flags:
        by_flag = accesslog_pb2.AccessLogFilter()
        by_flag.response_flag_filter.flags.extend(reply.flags)
        conditions.append(by_flag)
    if reply.header:
        by_header = accesslog_pb2.AccessLogFilter()
        by_header.header_filter.header.name = reply.header
        by_header.header_filter.header.string_match.safe_regex.regex = ".+"
        conditions.append(by_header)
    if reply.expression:
        by_expression = accesslog_pb2.AccessLogFilter()
        by_expression.extension_filter.name = "envoy.access_loggers.extension_filters.cel"
        by_expression.extension_filter.typed_config.CopyFrom(packed(cel_pb2.ExpressionFilter(expression=reply.expression)))
        conditions.append(by_expression)
    return conditions


def _all(conditions: list[Any]) -> Any:
    """Return a filter that matches if all conditions do."""
    if len(conditions) == 1:
        return conditions[0]
    both = accesslog_pb2.AccessLogFilter()
    both.and_filter.filters.extend(conditions)
    return both

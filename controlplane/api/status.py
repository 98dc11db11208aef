"""Errors as gRPC says them: the one place where `Error` becomes a `google.rpc.Status`.

A status carries exactly one ErrorInfo, and at most one each of BadRequest (INVALID_ARGUMENT, NOT_FOUND), PreconditionFailure
(FAILED_PRECONDITION), ResourceInfo (where the error is about a named resource) and RetryInfo (UNAVAILABLE). It travels in a
trailer, and clients take trailers of 8 KB at most: long lists are cut, and say so.
"""

from __future__ import annotations

import inspect
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from controlplane.errors import Code, Error, Violation

log = structlog.get_logger("api")

DOMAIN = "turnout"

# Bytes of the violations in one status, of one sentence, and of the message. The trailer holds the message twice, once with
# up to three bytes for one, and the details in base64.
_VIOLATIONS = 2_500
_SENTENCE = 600
_MESSAGE = 700

_RETRY_AFTER = 1  # seconds


def to_status(error: Error) -> status_pb2.Status:
    """The error with its details."""
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code.name), message=_cut(error.message, _MESSAGE))
    metadata = {k: _cut(v, 200) for k, v in list(error.metadata.items())[:10]}
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    violations = _few(error.violations)
    if error.code in (Code.INVALID_ARGUMENT, Code.NOT_FOUND) and violations:
        fields = [error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description) for v in violations]
        details.append(error_details_pb2.BadRequest(field_violations=fields))
    elif error.code is Code.FAILED_PRECONDITION and violations:
        failures = [
            error_details_pb2.PreconditionFailure.Violation(type=error.reason, subject=v.field, description=v.description)
            for v in violations
        ]
        details.append(error_details_pb2.PreconditionFailure(violations=failures))
    name = error.metadata.get("name", "")
    if name:
        collection = name.partition("/")[0]
        details.append(error_details_pb2.ResourceInfo(resource_type=collection, resource_name=_cut(name, 200)))
    if error.code is Code.UNAVAILABLE:
        details.append(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=_RETRY_AFTER)))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def unexpected(method: str) -> Error:
    """What a caller is told of an exception that nobody foresaw: an id to find it by in the log, where all of it is."""
    incident = uuid.uuid4().hex[:12]
    log.error("unexpected error", incident=incident, method=method, exc_info=True)
    message = f"something went wrong inside the control plane; its log has the details under {incident}"
    return Error(Code.INTERNAL, "INTERNAL", message, metadata={"incident": incident})


if TYPE_CHECKING:  # generic in its stubs only
    _ServerInterceptor = grpc.aio.ServerInterceptor[Any, Any]
else:
    _ServerInterceptor = grpc.aio.ServerInterceptor


class StatusInterceptor(_ServerInterceptor):
    """Ends every call whose handler raises with a status that says why."""

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        call = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        if inspect.isasyncgenfunction(call):
            wrapped: Any = _streaming(call, handler_call_details.method)
        elif inspect.iscoroutinefunction(call):
            wrapped = _awaited(call, handler_call_details.method)
        else:
            return handler  # a library's, that runs on a thread: it has its own ways
        make = _MAKERS[handler.request_streaming, handler.response_streaming]
        read = handler.request_deserializer if handler.request_streaming else _reading(handler.request_deserializer)
        return make(wrapped, read, handler.response_serializer)


_MAKERS: dict[tuple[bool, bool], Callable[[Any, Any, Any], Any]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


@dataclass(frozen=True, slots=True)
class _Garbage:
    """Stands for a request whose bytes are no message of its type: gRPC itself would say UNKNOWN, and name a class."""

    error: Exception


def _reading(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    if deserialize is None:
        return None

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            return _Garbage(error)

    return read


def _read(request: Any) -> Any:
    if isinstance(request, _Garbage):
        raise Error(Code.INVALID_ARGUMENT, "MALFORMED", f"the request can't be read: {request.error}")
    return request


def _awaited(call: Callable[[Any, Any], Awaitable[Any]], method: str) -> Callable[[Any, Any], Awaitable[Any]]:
    async def wrapped(request: Any, context: Any) -> Any:
        try:
            return await call(_read(request), context)
        except Exception as error:  # noqa: BLE001 - nothing of it may reach a caller
            await _abort(error, context, method)

    return wrapped


def _streaming(call: Callable[[Any, Any], AsyncIterator[Any]], method: str) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def wrapped(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for response in call(_read(request), context):
                yield response
        except Exception as error:  # noqa: BLE001 - nothing of it may reach a caller
            await _abort(error, context, method)

    return wrapped


async def _abort(error: Exception, context: Any, method: str) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    known = error if isinstance(error, Error) else unexpected(method)
    await context.abort_with_status(rpc_status.to_status(to_status(known)))


def _few(violations: tuple[Violation, ...]) -> list[Violation]:
    """As many as fit; the last one says how many don't."""
    few: list[Violation] = []
    room = _VIOLATIONS
    for i, violation in enumerate(violations):
        short = Violation(_cut(violation.field, 200), _cut(violation.description, _SENTENCE))
        room -= len(short.field.encode()) + len(short.description.encode()) + 8
        if room < 0:
            few.append(Violation("", f"and {len(violations) - i} more"))
            break
        few.append(short)
    return few


def _cut(text: str, size: int) -> str:
    """At most `size` bytes of a text in UTF-8."""
    data = text.encode(errors="replace")
    return text if len(data) <= size else data[: size - 4].decode(errors="ignore") + " …"

"""Errors in gRPC: the one place where an `Error` becomes a `google.rpc.Status`.

A status has exactly one ErrorInfo, and at most one each of BadRequest (INVALID_ARGUMENT, NOT_FOUND), PreconditionFailure
(FAILED_PRECONDITION), ResourceInfo (if the error is about a named resource) and RetryInfo (UNAVAILABLE). It is sent in a
trailer, and clients accept trailers of at most 8 KB. So long lists are cut, and their last entry says how many are missing.
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

# Maximum bytes of all violations in one status, of one sentence, and of the message. The trailer contains the message twice,
# once percent-encoded, and the details in base64.
_VIOLATIONS = 2_500
_SENTENCE = 600
_MESSAGE = 700

_RETRY_AFTER = 1  # seconds


def to_status(error: Error) -> status_pb2.Status:
    """Return the status of an error, with its details."""
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code.name), message=_cut(error.message, _MESSAGE))
    metadata = {k: _cut(v, 200) for k, v in list(error.metadata.items())[:10]}
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    violations = _fitting(error.violations)
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
    """Log an unexpected exception under an incident id, and return the error for the caller, which names only the id."""
    incident = uuid.uuid4().hex[:12]
    log.error("unexpected error", incident=incident, method=method, exc_info=True)
    message = f"internal error; the log of the control plane has the details under incident {incident}"
    return Error(Code.INTERNAL, "INTERNAL", message, metadata={"incident": incident})


# Gets the method, the request, the call's context, and the error.
OnError = Callable[[str, Any, Any, Error], None]

if TYPE_CHECKING:  # generic only in its stubs
    _ServerInterceptor = grpc.aio.ServerInterceptor[Any, Any]
else:
    _ServerInterceptor = grpc.aio.ServerInterceptor


class StatusInterceptor(_ServerInterceptor):
    """End a call whose handler raises with the status of the error."""

    def __init__(self, on_error: OnError = lambda method, request, context, error: None) -> None:
        """Call `on_error` with each error before the caller gets it."""
        self._on_error = on_error

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        call = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        if inspect.isasyncgenfunction(call):
            wrapped: Any = _streaming(call, handler_call_details.method, self._on_error)
        elif inspect.iscoroutinefunction(call):
            wrapped = _awaited(call, handler_call_details.method, self._on_error)
        else:
            return handler  # a library's handler, which runs on a thread and reports its errors itself
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
class _Unparsable:
    """A request that can't be parsed. Without it, gRPC would answer UNKNOWN and name a Python class."""

    error: Exception


def _reading(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Return a deserializer that does not raise for bytes that are not a message."""
    if deserialize is None:
        return None

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            return _Unparsable(error)

    return read


def _read(request: Any) -> Any:
    """Return the request. Errors: INVALID_ARGUMENT / MALFORMED."""
    if isinstance(request, _Unparsable):
        raise Error(Code.INVALID_ARGUMENT, "MALFORMED", f"the request is not a valid message: {request.error}")
    return request


def _awaited(
    call: Callable[[Any, Any], Awaitable[Any]], method: str, on_error: OnError
) -> Callable[[Any, Any], Awaitable[Any]]:
    """Return a handler that ends its call with the status of an error."""

    async def wrapped(request: Any, context: Any) -> Any:
        try:
            return await call(_read(request), context)
        except Exception as error:  # noqa: BLE001 - no exception may reach a caller
            await _abort(error, request, context, method, on_error)

    return wrapped


def _streaming(
    call: Callable[[Any, Any], AsyncIterator[Any]], method: str, on_error: OnError
) -> Callable[[Any, Any], AsyncIterator[Any]]:
    """Return a handler that ends its stream with the status of an error."""

    async def wrapped(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for response in call(_read(request), context):
                yield response
        except Exception as error:  # noqa: BLE001 - no exception may reach a caller
            await _abort(error, request, context, method, on_error)

    return wrapped


async def _abort(error: Exception, request: Any, context: Any, method: str, on_error: OnError) -> None:
    """End a call with the status of an error."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    reported = error if isinstance(error, Error) else unexpected(method)
    on_error(method, request, context, reported)
    await context.abort_with_status(rpc_status.to_status(to_status(reported)))


def _fitting(violations: tuple[Violation, ...]) -> list[Violation]:
    """Return as many violations as fit. The last one says how many are missing."""
    result: list[Violation] = []
    room = _VIOLATIONS
    for i, violation in enumerate(violations):
        short = Violation(_cut(violation.field, 200), _cut(violation.description, _SENTENCE))
        room -= len(short.field.encode()) + len(short.description.encode()) + 8
        if room < 0:
            result.append(Violation("", f"and {len(violations) - i} more"))
            break
        result.append(short)
    return result


def _cut(text: str, size: int) -> str:
    """Return a text, cut to at most `size` bytes in UTF-8."""
    data = text.encode(errors="replace")
    return text if len(data) <= size else data[: size - 4].decode(errors="ignore") + " …"

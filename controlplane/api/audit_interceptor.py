"""The interceptors that write the audit log: one before the check of the caller's roles, and one after it.

    StatusInterceptor       an error becomes a status
    AuditOutcome            the outcome of changes, and every refusal
    AccessInterceptor       the caller and its roles
    AuditAttempt            changes that the caller may ask for, before they are made
    the service

| call | entries |
|---|---|
| a change by a caller with a credential, or on a server that asks for none | attempt and call |
| a dry run, or a read, that is done | none |
| a call that the caller's roles refuse | call |
| a change that is refused without a valid credential | stranger, at most 10 in a minute |

No call returns secret material, so no read has an entry. A change is refused if its attempt can't be written.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

import grpc
from google.protobuf.message import Message

from controlplane.access.caller import Credential
from controlplane.api.authorization import authorization
from controlplane.api.caller import caller as address_of
from controlplane.api.drafts import AUTHOR_KEY
from controlplane.api.methods import METHODS, OPEN, VIEW
from controlplane.domain.collections import COLLECTIONS
from controlplane.errors import Code, Error

if TYPE_CHECKING:  # generic only in its stubs
    from collections.abc import Mapping

    _ServerInterceptor = grpc.aio.ServerInterceptor[Any, Any]
else:
    _ServerInterceptor = grpc.aio.ServerInterceptor

# Objects that an entry names, and fields of requests with names of objects.
_MAX_OBJECTS = 50
_NAMES = ("name", "names", "model", "models", "delete_names")

_REFUSALS = (Code.PERMISSION_DENIED, Code.UNAUTHENTICATED)


class Audit(Protocol):
    """The audit log (`audit.log.AuditLog`)."""

    async def require(self, event: str, fields: Mapping[str, Any]) -> None:
        """Write an entry to the disk. Errors: RESOURCE_EXHAUSTED / AUDIT_FULL; FAILED_PRECONDITION / AUDIT_UNWRITABLE."""

    async def note(self, event: str, fields: Mapping[str, Any]) -> None:
        """Write an entry, now or when the log can be written again."""

    async def note_stranger(self, fields: Mapping[str, Any]) -> None:
        """Write an entry of a refused call without a valid credential, or count it."""


class _Interceptor(_ServerInterceptor):
    """Wraps the handlers of all methods that may have entries."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or METHODS.get(method) == OPEN:
            return handler
        call = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        make = _MAKERS[handler.request_streaming, handler.response_streaming]
        wrapped = self._streaming(call, method) if handler.response_streaming else self._awaited(call, method)
        return make(wrapped, handler.request_deserializer, handler.response_serializer)

    def _awaited(self, call: Any, method: str) -> Callable[[Any, Any], Awaitable[Any]]:
        raise NotImplementedError

    def _streaming(self, call: Any, method: str) -> Any:
        """Return the handler of a method that only reads."""
        return call


class AuditAttempt(_Interceptor):
    """Writes an entry of each change before it is made."""

    def _awaited(self, call: Any, method: str) -> Callable[[Any, Any], Awaitable[Any]]:
        async def wrapped(request: Any, context: Any) -> Any:
            if is_change(method, request):
                await self._audit.require("attempt", fields_of(method, request, context))
            return await call(request, context)

        return wrapped


class AuditOutcome(_Interceptor):
    """Writes an entry of the outcome of each change, and of each refusal."""

    def _awaited(self, call: Any, method: str) -> Callable[[Any, Any], Awaitable[Any]]:
        async def wrapped(request: Any, context: Any) -> Any:
            try:
                response = await call(request, context)
            except Error as error:
                await self._note_error(method, request, context, error)
                raise
            except asyncio.CancelledError:
                if is_change(method, request):
                    # The change may be made all the same: the next revision says so.
                    fields = fields_of(method, request, context) | {"code": "CANCELLED"}
                    await asyncio.shield(self._audit.note("call", fields))
                raise
            if is_change(method, request):
                await self._audit.note("call", fields_of(method, request, context) | outcome_of(response))
            return response

        return wrapped

    def _streaming(self, call: Any, method: str) -> Any:
        async def wrapped(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                async for response in call(request, context):
                    yield response
            except Error as error:
                await self._note_error(method, request, context, error)
                raise

        return wrapped

    async def _note_error(self, method: str, request: Any, context: Any, error: Error) -> None:
        if error.code not in _REFUSALS and not is_change(method, request):
            return
        fields = fields_of(method, request, context)
        fields |= {"code": error.code.name, "reason_code": error.reason, "error": error.message}
        if authorization().caller.credential is Credential.NONE:
            await self._audit.note_stranger(fields)
        else:
            await self._audit.note("call", fields)


_MAKERS: dict[tuple[bool, bool], Callable[[Any, Any, Any], Any]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def is_change(method: str, request: Any) -> bool:
    """Return True if a call changes something, so that it is no dry run and no read."""
    return METHODS.get(method, VIEW) not in (VIEW, OPEN) and getattr(request, "validate_only", False) is not True


def fields_of(method: str, request: Any, context: Any) -> dict[str, Any]:
    """Return what entries say about a call. No field has a private key or a value."""
    caller = authorization().caller
    metadata = {key: value for key, value in context.invocation_metadata() or () if key == AUTHOR_KEY}
    names = list(dict.fromkeys(names_in(request))) if isinstance(request, Message) else []
    return {
        "call": method.rpartition(".")[2],
        "identity": caller.identity,
        "from": caller.address or address_of(context),
        "author_note": "".join(c for c in str(metadata.get(AUTHOR_KEY, "")) if c.isprintable()),
        "objects": names[:_MAX_OBJECTS],
        "more_objects": max(0, len(names) - _MAX_OBJECTS),
        "reason": getattr(request, "reason", ""),
        "allow_cut": getattr(request, "allow_cut", False) or None,
        "request_id": getattr(request, "request_id", ""),
    }


def outcome_of(response: Any) -> dict[str, Any]:
    """Return what entries say about the response to a change."""
    revision = getattr(response, "revision", None)
    number = revision if isinstance(revision, int) else getattr(revision, "name", "").rpartition("/")[2]
    return {"code": "OK", "revision": number, "unchanged": getattr(response, "changed", None) is False or None}


def names_in(message: Message) -> Iterable[str]:
    """Yield the names of the objects in a request, in its order: of the request, its objects and their lists."""
    for field, value in message.ListFields():
        if field.name in _NAMES and field.type == field.TYPE_STRING:
            yield from map(str, value) if field.is_repeated else [str(value)]
        elif field.message_type is not None and field.message_type.file.package.startswith("turnout."):
            if field.message_type.GetOptions().map_entry:
                continue
            for item in value if field.is_repeated else [value]:
                yield from _names_of(item)


def _names_of(message: Message) -> Iterable[str]:
    """Yield the names in a part of a request: that of an object, or those of the objects of a file."""
    row = next((row for row in COLLECTIONS if row.singular == message.DESCRIPTOR.name.lower()), None)
    if row is None:
        yield from names_in(message)
    elif name := str(getattr(message, "name", "")):
        # Not further: the names of a model's versions are no objects.
        yield name if "/" in name else f"{row.name}/{name}"

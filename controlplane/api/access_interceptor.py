"""The interceptor that lets no call through without a credential, and none without a role that its method needs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from controlplane.access.caller import Caller
from controlplane.access.roles import Permission
from controlplane.access.rules import Rules
from controlplane.api.authorization import Authorization, authorize
from controlplane.api.caller import caller as address_of
from controlplane.api.methods import METHODS, OPEN, VIEW, named_object
from controlplane.errors import Code, Error

if TYPE_CHECKING:  # generic only in its stubs
    _ServerInterceptor = grpc.aio.ServerInterceptor[Any, Any]
else:
    _ServerInterceptor = grpc.aio.ServerInterceptor

# The field of requests that only try a change, which any role may.
_DRY_RUN = "validate_only"


class Gate(Protocol):
    """Knows callers by their credentials, and has the newest rules."""

    @property
    def rules(self) -> Rules | None:
        """The newest rules; None if everything is allowed."""

    async def caller(self, context: Any, address: str) -> Caller:
        """Return the caller that a call's credential proves. Errors: UNAUTHENTICATED; UNAVAILABLE."""


class AccessInterceptor(_ServerInterceptor):
    """Sets the authorization of each call, or ends the call."""

    def __init__(
        self,
        gate: Gate,
        methods: Mapping[str, tuple[Permission, ...]] = METHODS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._gate = gate
        self._methods = methods
        self._clock = clock

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or self._methods.get(method) == OPEN:
            return handler
        call = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        make = _MAKERS[handler.request_streaming, handler.response_streaming]
        wrapped = self._streaming(call, method) if handler.response_streaming else self._awaited(call, method)
        return make(wrapped, handler.request_deserializer, handler.response_serializer)

    def _awaited(self, call: Any, method: str) -> Callable[[Any, Any], Awaitable[Any]]:
        async def wrapped(request: Any, context: Any) -> Any:
            await self._check(method, request, context)
            return await call(request, context)

        return wrapped

    def _streaming(self, call: Any, method: str) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def wrapped(request: Any, context: Any) -> AsyncIterator[Any]:
            checked = await self._check(method, request, context)
            responses = aiter(call(request, context))
            seconds_left = None if checked.caller.expires is None else max(0.0, checked.caller.expires - self._clock())
            end = None if seconds_left is None else asyncio.get_running_loop().time() + seconds_left
            while True:
                try:
                    # Only while the handler works: a cancellation must not end the writing of a response.
                    async with asyncio.timeout_at(end) as timeout:
                        response = await anext(responses)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    if not timeout.expired():
                        raise
                    message = "the credential has expired: call again with a new one"
                    raise Error(Code.UNAUTHENTICATED, "CREDENTIAL_EXPIRED", message) from None
                if checked.rules is not self._gate.rules:
                    checked = self._authorize(method, request, checked.caller)
                yield response

        return wrapped

    async def _check(self, method: str, request: Any, context: Any) -> Authorization:
        """Set the authorization of a call, and return it. Errors: UNAUTHENTICATED, PERMISSION_DENIED; UNAVAILABLE."""
        if self._gate.rules is None:
            return Authorization()
        authorize(Authorization(rules=self._gate.rules))  # for the log, if the caller stays unknown
        return self._authorize(method, request, await self._gate.caller(context, address_of(context)))

    def _authorize(self, method: str, request: Any, caller: Caller) -> Authorization:
        checked = Authorization(caller, self._gate.rules)
        authorize(checked)  # first, so that a refusal has the caller in the log
        permissions = self._methods.get(method)
        if permissions is None:
            raise Error(Code.PERMISSION_DENIED, "NOT_IN_TABLE", f"nobody may call {method}: it is not in the table of methods")
        needed = VIEW if getattr(request, _DRY_RUN, False) is True else permissions
        checked.require_any(needed, "" if needed == VIEW else named_object(request))
        return checked


_MAKERS: dict[tuple[bool, bool], Callable[[Any, Any, Any], Any]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}

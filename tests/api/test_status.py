"""Errors as statuses of gRPC, and the interceptor that sends them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import structlog
from google.rpc import code_pb2

from controlplane.api.status import StatusInterceptor, to_status
from controlplane.errors import Code, Error, Violation, failed_precondition, invalid, not_found, stale_etag
from tests.api.api import DETAILS, Refusal, read_refusal

MANY = Error(
    Code.INVALID_ARGUMENT, "R", "é" * 9_000, violations=tuple(Violation(f"models[{i}].x", "wrong " * 20) for i in range(2_000))
)


@pytest.mark.parametrize("code", list(Code))
def test_codes_are_those_of_grpc(code: Code) -> None:
    status = to_status(Error(code, "REASON", "a sentence", metadata={"k": "v"}))
    assert code_pb2.Code.Name(status.code) == code.name
    assert status.message == "a sentence"
    info = DETAILS["google.rpc.ErrorInfo"]()
    assert status.details[0].Unpack(info)
    assert info.reason == "REASON"  # type: ignore[attr-defined]
    assert dict(info.metadata) == {"k": "v"}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("error", "names"),
    [
        (invalid("a", "b"), ["ErrorInfo", "BadRequest"]),
        (failed_precondition("R", "a", "b"), ["ErrorInfo", "PreconditionFailure"]),
        (failed_precondition("R", "", "b", name="models/x"), ["ErrorInfo", "ResourceInfo"]),
        (not_found("models/x"), ["ErrorInfo", "ResourceInfo"]),
        (stale_etag("models/x", "1", "2"), ["ErrorInfo", "ResourceInfo"]),
        (Error(Code.UNAVAILABLE, "R", "m"), ["ErrorInfo", "RetryInfo"]),
        (Error(Code.INTERNAL, "R", "m"), ["ErrorInfo"]),
    ],
)
def test_details(error: Error, names: list[str]) -> None:
    assert [d.type_url.rpartition(".")[2] for d in to_status(error).details] == names


def test_a_status_fits_into_a_trailer() -> None:
    status = to_status(MANY)
    assert status.ByteSize() < 4_500
    request: Any = DETAILS["google.rpc.BadRequest"]()
    assert status.details[1].Unpack(request)
    *complete, last = request.field_violations
    assert last.description == f"and {2_000 - len(complete)} more"
    assert len(complete) > 5


class Service(grpc.GenericRpcHandler[Any, Any] if TYPE_CHECKING else grpc.GenericRpcHandler):  # type: ignore[misc]
    """Methods that raise the error that a test sets."""

    def __init__(self) -> None:
        self.error: BaseException = RuntimeError()

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return {
            "/test/Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "/test/Stream": grpc.unary_stream_rpc_method_handler(self.stream),
            "/test/Both": grpc.stream_stream_rpc_method_handler(self.both),
            "/test/Written": grpc.unary_stream_rpc_method_handler(self.written),
            "/test/Abort": grpc.unary_unary_rpc_method_handler(self.abort),
        }.get(details.method)

    async def unary(self, request: bytes, context: Any) -> bytes:
        if request == b"fine":
            return b"fine"
        raise self.error

    async def stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"one"
        raise self.error

    async def both(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request
        raise self.error

    async def written(self, request: bytes, context: Any) -> None:
        await context.write(b"one")
        raise self.error

    async def abort(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.DATA_LOSS, "of the handler")
        return b""


@pytest.fixture
async def service() -> AsyncIterator[tuple[Service, Any]]:
    service = Service()
    server = grpc.aio.server(interceptors=[StatusInterceptor()])
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield service, channel
    await server.stop(None)


async def call(channel: Any, method: str) -> tuple[list[bytes], Refusal]:
    """Return the responses of a method before it failed, and its error."""
    responses: list[bytes] = []

    async def run() -> None:
        if method == "/test/Unary":
            await channel.unary_unary(method)(b"")
            return
        streamed = (
            channel.stream_stream(method)(iter([b"one"])) if method == "/test/Both" else channel.unary_stream(method)(b"")
        )
        async for answer in streamed:
            responses.append(answer)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await run()
    return responses, read_refusal(caught.value)


METHODS = [("/test/Unary", []), ("/test/Stream", [b"one"]), ("/test/Both", [b"one"]), ("/test/Written", [b"one"])]


@pytest.mark.parametrize(("method", "before"), METHODS)
async def test_errors_arrive_with_their_details(service: tuple[Service, Any], method: str, before: list[bytes]) -> None:
    service[0].error = invalid("model.name", "is wrong")
    responses, refusal = await call(service[1], method)
    assert responses == before
    assert (refusal.code, refusal.reason, refusal.fields) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        ["model.name"],
    )
    assert refusal.message == "model.name: is wrong"


async def test_the_longest_error_arrives(service: tuple[Service, Any]) -> None:
    service[0].error = MANY
    _, refusal = await call(service[1], "/test/Unary")
    assert refusal.reason == "R"


@pytest.mark.parametrize(("method", "before"), METHODS)
async def test_an_unexpected_exception_is_logged_and_not_shown(
    service: tuple[Service, Any], method: str, before: list[bytes]
) -> None:
    service[0].error = ZeroDivisionError("secret")
    with structlog.testing.capture_logs() as logs:
        responses, refusal = await call(service[1], method)
    assert responses == before
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "secret" not in refusal.message
    (entry,) = logs
    assert entry["incident"] == refusal.details["ErrorInfo"].metadata["incident"]
    assert entry["incident"] in refusal.message
    assert entry["method"] == method
    assert entry["exc_info"]


async def test_a_call_without_an_error_passes(service: tuple[Service, Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert await service[1].unary_unary("/test/Unary")(b"fine") == b"fine"
    assert not caplog.records


async def test_an_abort_by_the_handler_passes(service: tuple[Service, Any]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service[1].unary_unary("/test/Abort")(b"")
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.DATA_LOSS, "of the handler")


async def test_an_unknown_method(service: tuple[Service, Any]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service[1].unary_unary("/test/Nothing")(b"")
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED

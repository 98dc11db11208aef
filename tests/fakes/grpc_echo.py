"""A small gRPC server that answers every method with fixed bytes, for one message and for streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc


class _AnyMethod(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # not generic at run time
    def __init__(self, answer: Callable[[str], bytes]) -> None:
        self._answer = answer

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        answer = self._answer(handler_call_details.method)

        async def answers(messages: AsyncIterator[bytes], context: object) -> AsyncIterator[bytes]:
            async for _ in messages:
                yield answer

        # A call with one message and one answer looks the same as a stream with one of each.
        return grpc.stream_stream_rpc_method_handler(answers, bytes, bytes)


@asynccontextmanager
async def grpc_echo(answer: bytes | Callable[[str], bytes]) -> AsyncIterator[int]:
    """Run the server, and yield its port. `answer` is the answer, or returns it for the path of a method."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers((_AnyMethod(answer if callable(answer) else lambda method: answer),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)

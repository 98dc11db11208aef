"""A small gRPC server that answers every method with its own name, for one message and for streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc


class _AnyMethod(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # not generic at run time
    def __init__(self, name: bytes) -> None:
        self._name = name

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        # A call with one message and one answer looks the same as a stream with one of each.
        return grpc.stream_stream_rpc_method_handler(self._answers, bytes, bytes)

    async def _answers(self, messages: AsyncIterator[bytes], context: object) -> AsyncIterator[bytes]:
        async for _ in messages:
            yield self._name


@asynccontextmanager
async def grpc_echo(name: bytes) -> AsyncIterator[int]:
    """Run the server, and yield its port. Messages and answers are bytes."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers((_AnyMethod(name),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)

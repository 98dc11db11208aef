"""A small gRPC server that answers every method, for one message and for streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc

# Returns the answer to a message, which comes after the path of the method.
Answer = Callable[[str, bytes], bytes]


class _AnyMethod(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # not generic at run time
    def __init__(self, answer: Answer, ends: int) -> None:
        self._answer = answer
        self._ends = ends

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def answers(messages: AsyncIterator[bytes], context: object) -> AsyncIterator[bytes]:
            count = 0
            async for message in messages:
                count += 1
                yield self._answer(handler_call_details.method, message)
                if count == self._ends:
                    return

        # A call with one message and one answer looks the same as a stream with one of each.
        return grpc.stream_stream_rpc_method_handler(answers, bytes, bytes)


def echo(method: str, message: bytes) -> bytes:
    """Return the message."""
    return message


@asynccontextmanager
async def grpc_echo(answer: bytes | Answer, ends: int = 0) -> AsyncIterator[int]:
    """Run the server, and yield its port. `answer` is the answer to each message, or returns it.

    The server ends a call after `ends` messages, or leaves that to the client if it is 0.
    """
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    handler = _AnyMethod(answer if callable(answer) else lambda method, message: answer, ends)
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)

"""xDS streams over gRPC's own server, `grpc.aio`: the carrier that gRPC makes of HTTP/2.

It costs two tasks a stream. `http2/transport.py` does the same with less.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import unquote

import grpc

from controlplane.errors import Error
from controlplane.http2.handler import StreamHandler
from controlplane.xds_server.discovery import NO_POLLING, SERVICES, Discovery
from controlplane.xds_server.lrs_pump import METHOD, SERVICE
from controlplane.xds_server.variants import DELTA, SOTW, Variant

# Not in the stubs.
_EOF: Any = vars(grpc.aio)["EOF"]


def handlers(discovery: Discovery) -> list[grpc.GenericRpcHandler[Any, Any]]:
    """What a gRPC server serves."""
    reports = grpc.stream_stream_rpc_method_handler(_handler(discovery.open_load))
    return [
        *(_service(discovery, *service) for service in SERVICES),
        grpc.method_handlers_generic_handler(SERVICE, {METHOD: reports}),
    ]


def _service(discovery: Discovery, name: str, stem: str, type_url: str) -> grpc.GenericRpcHandler[Any, Any]:
    methods = {
        f"Delta{stem}": grpc.stream_stream_rpc_method_handler(_stream(discovery, DELTA, type_url)),
        f"Stream{stem}": grpc.stream_stream_rpc_method_handler(_stream(discovery, SOTW, type_url)),
        f"Fetch{stem}": grpc.unary_unary_rpc_method_handler(_polled(stem)),
    }
    return grpc.method_handlers_generic_handler(f"envoy.service.{name}", methods)


def _stream(discovery: Discovery, variant: Variant, type_url: str) -> Callable[[Any, Any], Any]:
    return _handler(lambda peer, call: discovery.open(variant, type_url, peer, call))


def _handler(open_stream: Callable[[str, _Call], StreamHandler]) -> Callable[[Any, Any], Any]:
    async def serve(_: Any, context: Any) -> None:
        try:
            call = _Call(context)
            await call.run(open_stream(peer(context.peer()), call))
        except Error as error:
            await context.abort(grpc.StatusCode[error.code.name], error.message)

    return serve


def _polled(stem: str) -> Callable[[Any, Any], Any]:
    async def refuse(_: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, NO_POLLING.format(stem=stem))

    return refuse


class _Call:
    """A call as the carrier of a stream."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._awake, self._listening = asyncio.Event(), asyncio.Event()
        # Set when the pump has ended, with the error if there was one.
        self._over: asyncio.Future[Error | None] = asyncio.get_running_loop().create_future()

    def notify(self) -> None:
        self._awake.set()

    def resume_reading(self) -> None:
        self._listening.set()

    def end(self, error: Error | None) -> None:
        if not self._over.done():
            self._over.set_result(error)

    async def run(self, pump: StreamHandler) -> None:
        """Serves the stream until it is over. Errors: what was wrong."""
        tasks: list[asyncio.Task[None]] = []
        try:
            # On their own: gRPC takes headers for unsent until the write that they went with is through. A stream that ends
            # before that would send them again with its status, which fails, and the client would not learn of the end.
            await self._until_it_fails(pump, self._context.send_initial_metadata(()))
            if not self._over.done():
                tasks = [
                    asyncio.create_task(self._until_it_fails(pump, work)) for work in (self._read(pump), self._write(pump))
                ]
            error = await self._over
        finally:
            for task in tasks:
                task.cancel()
            try:
                await asyncio.gather(*tasks, return_exceptions=True)
            finally:  # gRPC may cancel this while it waits
                pump.end()
        if error is not None:
            raise error

    async def _read(self, pump: StreamHandler) -> None:
        while (data := await self._context.read()) is not _EOF:
            pump.receive_message(data)
            while not pump.reading:
                self._listening.clear()
                await self._listening.wait()
        pump.half_closed()

    async def _write(self, pump: StreamHandler) -> None:
        while await self._awake.wait():
            self._awake.clear()
            while (message := pump.next_message()) is not None:
                await self._context.write(message)

    async def _until_it_fails(self, pump: StreamHandler, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except grpc.aio.InternalError:
            pump.end()  # gRPC had a message, and the client was gone
        except Exception as error:  # noqa: BLE001  it is logged there
            pump.fail(error)


def peer(said: str) -> str:
    """`127.0.0.1:5000` for gRPC's `ipv4:127.0.0.1:5000`; `[::1]:5000` for its `ipv6:%5B::1%5D:5000`."""
    return unquote(said.partition(":")[2])

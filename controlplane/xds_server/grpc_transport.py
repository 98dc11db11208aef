"""xDS streams over gRPC's own server, `grpc.aio`.

It costs two tasks a stream. `http2/transport.py` does the same without tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any
from urllib.parse import unquote

import grpc
from cryptography import x509

from controlplane.errors import Code, Error
from controlplane.http2.grpc_status import OK, Status
from controlplane.http2.handler import Open, StreamHandler
from controlplane.http2.peer import Credential, Peer
from controlplane.xds_server.discovery import NO_POLLING, SERVICES, Discovery
from controlplane.xds_server.lrs_pump import METHOD, SERVICE
from controlplane.xds_server.status import to_status
from controlplane.xds_server.tls_files import read_certificate
from controlplane.xds_server.variants import DELTA, SOTW

# Missing in gRPC's type stubs.
_EOF: Any = vars(grpc.aio)["EOF"]


def handlers(discovery: Discovery) -> list[grpc.GenericRpcHandler[Any, Any]]:
    """Return the xDS services for a gRPC server."""
    reports = grpc.stream_stream_rpc_method_handler(_handler(discovery.open_load))
    return [
        *(_service(discovery, *service) for service in SERVICES),
        grpc.method_handlers_generic_handler(SERVICE, {METHOD: reports}),
    ]


def _service(discovery: Discovery, name: str, stem: str, type_url: str) -> grpc.GenericRpcHandler[Any, Any]:
    delta, sotw = (_handler(partial(discovery.open, variant, type_url)) for variant in (DELTA, SOTW))
    methods = {
        f"Delta{stem}": grpc.stream_stream_rpc_method_handler(delta),
        f"Stream{stem}": grpc.stream_stream_rpc_method_handler(sotw),
        f"Fetch{stem}": grpc.unary_unary_rpc_method_handler(_fetch(stem)),
    }
    return grpc.method_handlers_generic_handler(f"envoy.service.{name}", methods)


def _handler(open_handler: Open) -> Callable[[Any, Any], Any]:
    async def serve(_: Any, context: Any) -> None:
        call = _Call(context)
        try:
            handler = open_handler(Peer(address(context.peer()), _credential(context)), call)
        except Error as error:
            status = to_status(error)
        else:
            status = await call.run(handler)
        if status is not OK:
            await context.abort(grpc.StatusCode[status.code.name], status.message)

    return serve


def _credential(context: Any) -> Credential | None:
    """Return what the client's certificate says; None without TLS. Errors: PERMISSION_DENIED."""
    found = context.auth_context().get("x509_pem_cert")
    if not found:
        return None
    try:
        return read_certificate(x509.load_pem_x509_certificate(found[0]))
    except ValueError as error:
        raise Error(Code.PERMISSION_DENIED, "NO_IDENTITY", str(error)[:200]) from None


def _fetch(stem: str) -> Callable[[Any, Any], Any]:
    async def refuse(_: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, NO_POLLING.format(stem=stem))

    return refuse


class _Call:
    """A call of gRPC's server, as the transport of a stream."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._has_messages, self._may_read = asyncio.Event(), asyncio.Event()
        # The status that the handler ended with.
        self._end: asyncio.Future[Status] = asyncio.get_running_loop().create_future()

    def notify(self) -> None:
        """Send the handler's messages."""
        self._has_messages.set()

    def resume_reading(self) -> None:
        """Read from the client again."""
        self._may_read.set()

    def later(self, work: Callable[[], None]) -> None:
        """Call `work` in another turn of the event loop."""
        asyncio.get_running_loop().call_soon(work)

    def end(self, status: Status | None) -> None:
        """End the call; None is OK."""
        if not self._end.done():
            self._end.set_result(status or OK)

    async def run(self, handler: StreamHandler) -> Status:
        """Serve the stream until it ends. Return its status."""
        tasks: list[asyncio.Task[None]] = []
        try:
            # Send the headers alone. If they went with the first message, gRPC would count them as unsent until that write is
            # done. A stream that ends before would send them again with its status. That fails, and the client does not see
            # the end.
            await self._guarded(handler, self._context.send_initial_metadata(()))
            if not self._end.done():
                tasks = [
                    asyncio.create_task(self._guarded(handler, work)) for work in (self._read(handler), self._write(handler))
                ]
            return await self._end
        finally:
            for task in tasks:
                task.cancel()
            try:
                await asyncio.gather(*tasks, return_exceptions=True)
            finally:  # gRPC may cancel this while it waits
                handler.end()

    async def _read(self, handler: StreamHandler) -> None:
        while (data := await self._context.read()) is not _EOF:
            handler.receive_message(data)
            while not handler.reading:
                self._may_read.clear()
                await self._may_read.wait()
        handler.half_closed()

    async def _write(self, handler: StreamHandler) -> None:
        while await self._has_messages.wait():
            self._has_messages.clear()
            while (message := handler.next_message()) is not None:
                await self._context.write(message)

    async def _guarded(self, handler: StreamHandler, work: Coroutine[Any, Any, None]) -> None:
        """Await `work`. An exception ends the stream."""
        try:
            await work
        except grpc.aio.InternalError:
            handler.end()  # gRPC could not send a message, because the client is gone
        except Exception as error:  # noqa: BLE001  the handler logs it
            handler.fail(error)


def address(name: str) -> str:
    """Return the address in gRPC's name of a peer: `[::1]:5000` for `ipv6:%5B::1%5D:5000`."""
    return unquote(name.partition(":")[2])

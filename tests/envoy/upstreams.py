"""Model servers and clients for WebSockets, trailers, gRPC-Web and large bodies over HTTP/2."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import h2.config
import h2.connection
import h2.events
from aiohttp import WSMsgType, web
from grpc_health.v1 import health_pb2

from tests.fakes.grpc_echo import grpc_echo

_TIMEOUT = 10


@asynccontextmanager
async def http_server(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[int]:
    """Run a server that answers every request with `answer`. Yield its port."""
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def echo_server(name: str) -> AbstractAsyncContextManager[int]:
    """Run a server that answers each message of a WebSocket with its name and the message. Yield its port."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.headers.get("upgrade", "").lower() != "websocket":
            return web.json_response({"version": name})
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                await ws.send_str(f"{name}: {message.data}")
        return ws

    return http_server(answer)


@asynccontextmanager
async def trailer_server() -> AsyncIterator[int]:
    """Run an HTTP/1 server that answers with the request's trailer `x-sum` in a trailer of its own. Yield its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readuntil(b"\r\n0\r\n")
        trailers = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        sent = next((line.partition(":")[2].strip() for line in trailers.splitlines() if line.startswith("x-sum:")), "none")
        head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(f"{head}2\r\nok\r\n0\r\nx-sum: {sent}\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def exchange_trailers(port: int, path: str) -> str:
    """Send a chunked request with the trailer `x-sum: 42`. Return the raw response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\nte: trailers\r\n"
    writer.write(head.encode() + b"connection: close\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 42\r\n\r\n")
    try:
        async with asyncio.timeout(_TIMEOUT):
            return (await reader.read()).decode()
    finally:
        writer.close()


def health_server() -> AbstractAsyncContextManager[int]:
    """Run a gRPC server that answers checks of its health with SERVING. Yield its port."""
    serving = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
    return grpc_echo(serving.SerializeToString())


def grpc_web_body(message: health_pb2.HealthCheckRequest) -> bytes:
    """Return the body of a gRPC-Web request: one frame."""
    data: bytes = message.SerializeToString()
    return b"\0" + len(data).to_bytes(4, "big") + data


def echo_over_http2(port: int, path: str, text: str) -> tuple[str, str]:
    """Open a WebSocket by extended CONNECT (RFC 8441), and send a short text. Return the status and the answer."""
    config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8", validate_outbound_headers=False)
    connection = h2.connection.H2Connection(config)
    status, received = "", b""
    with socket.create_connection(("127.0.0.1", port), _TIMEOUT) as tcp:
        connection.initiate_connection()
        headers = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", path)]
        connection.send_headers(1, [*headers, (":authority", "a"), ("sec-websocket-version", "13")])
        # A text frame that ends here, masked with zeros.
        connection.send_data(1, bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text.encode())
        tcp.sendall(connection.data_to_send())
        while data := tcp.recv(65_536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    status = next(str(value) for name, value in event.headers if str(name) == ":status")
                elif isinstance(event, h2.events.DataReceived):
                    received += event.data
                elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated | h2.events.StreamEnded):
                    return status, received.decode(errors="replace")
            if len(received) > 2 and len(received) >= 2 + received[1]:
                return status, received[2 : 2 + received[1]].decode()
            tcp.sendall(connection.data_to_send())
    return status, ""


def post_over_http2(port: int, path: str, content: bytes) -> tuple[str, Any]:
    """Send JSON over HTTP/2. Return the status and the parsed answer, also if it comes before everything was sent.

    After such an answer a server resets the stream (RFC 9113, section 8.1). curl 7.88 and httpx may lose the answer then.
    """
    config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
    connection = h2.connection.H2Connection(config)
    status, received, sent, ended = "", b"", 0, False
    with socket.create_connection(("127.0.0.1", port), _TIMEOUT) as tcp:
        connection.initiate_connection()
        fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a")]
        connection.send_headers(1, [*fields, ("content-type", "application/json"), ("content-length", str(len(content)))])
        tcp.sendall(connection.data_to_send())
        while not ended and (data := tcp.recv(65_536)):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    status = next(str(value) for name, value in event.headers if str(name) == ":status")
                elif isinstance(event, h2.events.DataReceived):
                    received += event.data or b""
                elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated | h2.events.StreamEnded):
                    ended = True
            while not ended and sent < len(content) and (window := connection.local_flow_control_window(1)):
                part = content[sent : sent + min(window, connection.max_outbound_frame_size)]
                sent += len(part)
                connection.send_data(1, part, end_stream=sent == len(content))
            tcp.sendall(connection.data_to_send())
    return status, json.loads(received)

"""A small model server of the Open Inference Protocol, over HTTP and gRPC, with a WebSocket. Answers name the version."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.fakes.grpc_echo import grpc_echo


@asynccontextmanager
async def open_inference_server(version: str) -> AsyncIterator[tuple[int, int]]:
    """Run the server of a version. Yield its port for HTTP and its port for gRPC."""

    async def ready(request: web.Request) -> web.Response:
        return web.json_response({"name": request.match_info["name"], "ready": True})

    async def infer(request: web.Request) -> web.Response:
        await request.read()
        output = {"name": "y", "datatype": "FP32", "shape": [1], "data": [1.0]}
        return web.json_response({"model_name": "iris", "model_version": version, "outputs": [output]})

    async def stream(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for _ in socket:
            await socket.send_str(version)
        return socket

    app = web.Application()
    app.router.add_get("/v2/models/{name}/ready", ready)
    app.router.add_post("/v2/models/{name}/infer", infer)
    app.router.add_get("/v2/models/{name}/stream", stream)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port: Any = runner.addresses[0][1]
    try:
        async with grpc_echo(lambda method, message: _message(method.rpartition("/")[2], version)) as grpc_port:
            yield port, grpc_port
    finally:
        await runner.cleanup()


def _message(method: str, version: str) -> bytes:
    """Return the answer of a method: `model_name` and `model_version` are the fields 1 and 2, and `ready` is field 1."""
    if method in ("ServerLive", "ServerReady", "ModelReady"):
        return b"\x08\x01"
    answer = b"\x0a\x04iris\x12" + bytes([len(version)]) + version.encode()
    return b"\x12" + bytes([len(answer)]) + answer if method == "ModelStreamInfer" else answer

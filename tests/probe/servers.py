"""Servers on loopback that answer health checks, well or badly."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from controlplane.demo.ports import free_port
from controlplane.domain import Endpoint, HealthCheck, Protocol, UpstreamTls, Version
from controlplane.probe import Target

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve `handler` on a port of loopback until the block ends."""
    running = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=context)
    try:
        yield running.sockets[0].getsockname()[1]
    finally:
        running.close()


def answer(text: bytes) -> Handler:
    """Return a handler that reads a request, answers `text`, and keeps the connection open."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text)
        await reader.read()
        writer.close()

    return handler


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept a connection, and never answer."""
    await reader.read()
    writer.close()


def closed_port() -> int:
    """Return a port that nothing listens on, in no process of the suite."""
    return free_port()


def target(
    *ports: int,
    host: str = "127.0.0.1",
    path: str = "",
    timeout: float = 2.0,
    protocol: Protocol = Protocol.HTTP1,
    tls: UpstreamTls | None = None,
    authorities: str = "",
) -> Target:
    """Return version green of iris with an endpoint for each port; with a `path`, it has a health check."""
    check = HealthCheck(path=path, timeout=timeout) if path else None
    endpoints = tuple(Endpoint(host, port) for port in ports)
    return Target("iris", Version("green", endpoints, protocol, tls=tls, health_check=check), authorities)

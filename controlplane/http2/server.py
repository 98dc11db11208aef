"""The server of xDS over HTTP/2: listens, and sees to its connections (`http2/transport.py`) together."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from controlplane.http2.handler import Open
from controlplane.http2.limits import ConnectionLimits
from controlplane.http2.logger import Logger, StandardLogger
from controlplane.http2.transport import SocketTransport

# How often it is looked after who is silent, seconds.
_SWEEP = 2.5

# While every client is sent something new, what they say to that waits, so that the last does not wait for the ACKs of the
# others: for so long at most. What waited is seen to for so long at a time. Seconds.
_PATIENCE, _SLICE = 0.25, 0.005


class Server:
    """Listens, and keeps the connections."""

    def __init__(
        self,
        methods: Mapping[str, Open],
        limits: ConnectionLimits,
        *,
        busy: Callable[[], bool] = lambda: False,
        unknown_method: Callable[[str], str] = lambda path: f"unknown method {path[:200]}",
        log: Logger | None = None,
    ) -> None:
        """Serve `methods`, by path: `/SERVICE/METHOD`. While the server is `busy`, reading from clients is deferred."""
        self.unknown_method = unknown_method
        self.log = log or StandardLogger()
        self.methods = methods
        self.busy = busy
        self.limits = limits
        self.connections: set[SocketTransport] = set()
        self.stopping = False
        self.port = 0
        self._listening: list[asyncio.Server] = []
        self._sweep: asyncio.TimerHandle | None = None
        # Connections that have something to write at the end of this turn.
        self._dirty: list[SocketTransport] = []
        # Connections that have said something that waits; and since when the first of them does.
        self._deferred: dict[SocketTransport, None] = {}
        self._deferred_since = 0.0
        self._empty = asyncio.Event()

    async def start(self, sockets: Sequence[socket.socket], context: ssl.SSLContext | None = None) -> None:
        """Serves on bound sockets, which are its own from now on; over TLS with `context`, which `tls` makes ready."""
        loop = asyncio.get_running_loop()
        self.port = sockets[0].getsockname()[1]
        for sock in sockets:
            sock.setblocking(False)
            tls: dict[str, Any] = {}
            if context is not None:
                tls = {
                    "ssl": context,
                    "ssl_handshake_timeout": self.limits.preface_timeout,
                    "ssl_shutdown_timeout": self.limits.close_timeout,
                }
            self._listening.append(await loop.create_server(lambda: SocketTransport(self), sock=sock, backlog=4096, **tls))
        self._sweep = loop.call_later(_SWEEP, self._look_after)

    async def stop(self, grace: float) -> None:
        """Takes no more connections, asks the clients to leave, and after `grace` seconds leaves those that have not."""
        self.stopping = True
        for server in self._listening:
            server.close()
        for connection in list(self.connections):
            connection.drain()
        self._emptied()
        try:
            async with asyncio.timeout(grace):
                await self._empty.wait()
        except TimeoutError:
            pass
        for connection in list(self.connections):
            connection.abort()
        if self._sweep is not None:
            self._sweep.cancel()
        for server in self._listening:
            await server.wait_closed()

    def dirty(self, connection: SocketTransport) -> None:
        """Something is to be written to a connection."""
        if not self._dirty:
            asyncio.get_running_loop().call_soon(self.flush)
        self._dirty.append(connection)

    def flush(self) -> None:
        """Writes what is to be written."""
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            try:
                connection.flush()
            except Exception as error:  # noqa: BLE001  it is logged there
                self._failed(connection, error)

    def defer(self, connection: SocketTransport) -> bool:
        """Whether what a connection says may wait; then it is asked to `catch_up`."""
        loop = asyncio.get_running_loop()
        if not self._deferred:
            self._deferred_since = loop.time()
            loop.call_soon(self._catch_up)
        elif loop.time() - self._deferred_since > _PATIENCE:
            return False
        self._deferred[connection] = None
        return True

    def _catch_up(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not self.busy() or now - self._deferred_since > _PATIENCE:
            while self._deferred and loop.time() - now < _SLICE:
                connection = next(iter(self._deferred))
                del self._deferred[connection]
                try:
                    connection.catch_up()
                except Exception as error:  # noqa: BLE001  it is logged there
                    self._failed(connection, error)
        if self._deferred:
            loop.call_soon(self._catch_up)

    def left(self, connection: SocketTransport) -> None:
        """A connection is closed."""
        self.connections.discard(connection)
        self._emptied()

    def _emptied(self) -> None:
        if self.stopping and not self.connections:
            self._empty.set()

    def _failed(self, connection: SocketTransport, error: Exception) -> None:
        """Whatever went wrong inside of a connection ends it, and nothing else."""
        self.log.error("connection failed", peer=connection.peer.address, exc_info=error)
        connection.abort()

    def _look_after(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweep = loop.call_later(_SWEEP, self._look_after)
        now = loop.time()
        for connection in list(self.connections):
            connection.look_after(now)


def tls(context: ssl.SSLContext) -> ssl.SSLContext:
    """Lets `context` speak HTTP/2."""
    context.set_alpn_protocols(["h2"])
    return context

"""The server: listens, holds the connections, and batches their writes, deferred reads and keepalive checks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence

from controlplane.http2.accounts import Account, Accounts, ClientLimits
from controlplane.http2.deferred import DeferredReads
from controlplane.http2.fair_queue import FairQueue
from controlplane.http2.handler import Open
from controlplane.http2.limits import ConnectionLimits
from controlplane.http2.logger import Logger, StandardLogger
from controlplane.http2.refusals import LogLines, Refusals, Report
from controlplane.http2.tls import Certificates, Handshakes, TlsSocket
from controlplane.http2.transport import SocketTransport


class Server:
    """A gRPC server for streaming calls over HTTP/2."""

    def __init__(
        self,
        methods: Mapping[str, Open],
        limits: ConnectionLimits,
        *,
        busy: Callable[[], bool] = lambda: False,
        unknown_method: Callable[[str], str] = lambda path: f"unknown method {path[:200]}",
        log: Logger | None = None,
        clients: ClientLimits | None = None,
        report: Report | None = None,
    ) -> None:
        """Serve `methods`, by path: `/SERVICE/METHOD`. While the server is `busy`, reading from clients is deferred.

        `report` is called for each connection that is closed because of its client; without it, there is a log line for a few.
        """
        self.methods = methods
        self.limits = limits
        self.busy = busy
        self.unknown_method = unknown_method
        self.log = log or StandardLogger()
        self.connections: set[SocketTransport] = set()
        self.stopping = False
        # The port on which the server listens; 0 before `start`.
        self.port = 0
        self._listening: list[asyncio.Server] = []
        self._keepalive: asyncio.TimerHandle | None = None
        # Connections that are flushed at the end of this turn of the event loop.
        self._to_flush: list[SocketTransport] = []
        self.accounts = Accounts(clients or ClientLimits())
        self.refusals = Refusals(report or LogLines(self.log))
        # Connections that have used their share.
        self._turns: FairQueue[SocketTransport] = FairQueue(self._have_turn, lambda: self.busy())
        self._deferred: DeferredReads[SocketTransport] = DeferredReads(lambda: self.busy(), self._catch_up)
        self._all_closed = asyncio.Event()
        self._handshakes = Handshakes(self.accounts)

    async def start(self, sockets: Sequence[socket.socket], certificates: Certificates | None = None) -> None:
        """Serve on bound sockets, which the server closes when it stops; over TLS with `certificates`."""
        loop = asyncio.get_running_loop()
        self.port = sockets[0].getsockname()[1]
        for sock in sockets:
            sock.setblocking(False)
            server = await loop.create_server(lambda: self._accept(certificates), sock=sock, backlog=4096)
            self._listening.append(server)
        self._keepalive = loop.call_later(self.limits.keepalive_sweep, self._check_alive)

    async def stop(self, grace: float) -> None:
        """Refuse new connections, ask clients to leave, and disconnect the remaining ones after `grace` seconds."""
        self.stopping = True
        for server in self._listening:
            server.close()
        self._handshakes.abort()
        for connection in list(self.connections):
            connection.grpc.drain()
        self._check_all_closed()
        try:
            async with asyncio.timeout(grace):
                await self._all_closed.wait()
        except TimeoutError:
            pass
        for connection in list(self.connections):
            connection.abort()
        if self._keepalive is not None:
            self._keepalive.cancel()
        for server in self._listening:
            await server.wait_closed()

    def flush(self) -> None:
        """Write the output of all connections now."""
        to_flush, self._to_flush = self._to_flush, []
        for connection in to_flush:
            try:
                connection.flush()
            except Exception as error:  # noqa: BLE001  it is logged
                self._failed(connection, error)

    # ---------------------------------------------------------------------------------------------- called by connections

    def opened(self, connection: SocketTransport) -> None:
        """Add a connection."""
        self.connections.add(connection)

    def closed(self, connection: SocketTransport) -> None:
        """Remove a connection."""
        self.connections.discard(connection)
        self._check_all_closed()

    def flush_soon(self, connection: SocketTransport) -> None:
        """Flush a connection at the end of this turn of the event loop."""
        if not self._to_flush:
            asyncio.get_running_loop().call_soon(self.flush)
        self._to_flush.append(connection)

    def defer(self, connection: SocketTransport) -> bool:
        """Call a connection's `catch_up` later. Return False if it must read now."""
        return self._deferred.add(connection)

    def queue(self, connection: SocketTransport, account: Account, *, heavy: bool) -> None:
        """Call a connection's `catch_up` when it is its turn."""
        self._turns.add(connection, account, heavy=heavy)

    def refused(self, connection: SocketTransport, reason: str, error: str) -> None:
        """Count and log a connection that is closed because of what its client did."""
        self.refusals.add(reason, connection.peer.address, error)

    # ----------------------------------------------------------------------------------------------------------- private

    def _accept(self, certificates: Certificates | None) -> asyncio.Protocol:
        """Return the protocol of a new socket."""
        connection = SocketTransport(self)
        if certificates is None:
            return connection
        return TlsSocket(certificates, self._handshakes, self.limits.preface_timeout, connection, self._handshake_failed)

    def _handshake_failed(self, address: str, error: str) -> None:
        self.refusals.add("handshake", address, error)

    def _have_turn(self, connection: SocketTransport, deadline: float) -> None:
        try:
            connection.catch_up(deadline)
        except Exception as error:  # noqa: BLE001  it is logged
            self._failed(connection, error)

    def _catch_up(self, connection: SocketTransport) -> None:
        try:
            connection.catch_up()
        except Exception as error:  # noqa: BLE001  it is logged
            self._failed(connection, error)

    def _failed(self, connection: SocketTransport, error: Exception) -> None:
        """Close a connection after an unexpected exception. The others go on."""
        self.log.error("connection failed", peer=connection.peer.address, exc_info=error)
        connection.abort()

    def _check_all_closed(self) -> None:
        if self.stopping and not self.connections:
            self._all_closed.set()

    def _check_alive(self) -> None:
        loop = asyncio.get_running_loop()
        self._keepalive = loop.call_later(self.limits.keepalive_sweep, self._check_alive)
        now = loop.time()
        for connection in list(self.connections):
            connection.check_alive(now)
        self.accounts.sweep(now)

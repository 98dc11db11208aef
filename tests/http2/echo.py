"""A gRPC service that sends each message back: the smallest use of the package."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from controlplane.http2.accounts import ClientLimits
from controlplane.http2.grpc_status import Status, StatusCode, StatusError
from controlplane.http2.handler import GuardedHandler, Transport
from controlplane.http2.limits import ConnectionLimits
from controlplane.http2.peer import Peer
from controlplane.http2.server import Server
from controlplane.http2.transport import SocketTransport
from tests.http2.raw import ECHO

BROKEN, REFUSED = "/test.Echo/Broken", "/test.Echo/Refused"

# A message that ends the call with OK, after the messages before it.
END = b"end"


class Echo(GuardedHandler):
    """Sends each message back. It reads while fewer than `bound` messages wait to be sent."""

    def __init__(self, peer: Peer, transport: Transport, bound: int = 8) -> None:
        super().__init__()
        self.reading = True
        self.peer = peer
        self.received: list[bytes] = []
        self._transport = transport
        self._unsent: deque[bytes] = deque()
        self._bound = bound
        self._no_more = False

    def half_closed(self) -> None:
        self._no_more = True
        self._transport.notify()

    def next_message(self) -> bytes | None:
        if not self._unsent:
            if self._no_more:
                self.end()
            return None
        message = self._unsent.popleft()
        if not self.reading and not self.ended and len(self._unsent) < self._bound:
            self.reading = True
            asyncio.get_running_loop().call_soon(self._transport.resume_reading)
        return message

    def end(self, status: Status | None = None) -> None:
        if self.ended:
            return
        self.ended, self.reading = True, False
        self._transport.end(status)

    def send(self, message: bytes) -> None:
        """Send a message that the client did not ask for."""
        self._unsent.append(message)
        self._transport.notify()

    def pause(self) -> None:
        """Stop reading."""
        self.reading = False

    def resume(self) -> None:
        """Read again."""
        self.reading = True
        self._transport.resume_reading()

    def _receive(self, data: bytes) -> None:
        self.received.append(data)
        if data == END:
            self._no_more = True
        else:
            self._unsent.append(data)
        self.reading = len(self._unsent) < self._bound
        self._transport.notify()


class Broken(Echo):
    """Fails at each message."""

    def _receive(self, data: bytes) -> None:
        raise RuntimeError("a secret")


class EchoServer:
    """A server of the service, and the handlers of its calls."""

    def __init__(self, limits: ConnectionLimits, busy: Callable[[], bool], clients: ClientLimits | None) -> None:
        self.handlers: list[Echo] = []
        self.server = Server({ECHO: self._echo, BROKEN: Broken, REFUSED: self._refuse}, limits, busy=busy, clients=clients)

    def _echo(self, peer: Peer, transport: Transport) -> Echo:
        self.handlers.append(Echo(peer, transport))
        return self.handlers[-1]

    def _refuse(self, peer: Peer, transport: Transport) -> Echo:
        raise StatusError(StatusCode.PERMISSION_DENIED, "not for you")

    @property
    def port(self) -> int:
        """Return the port on which the server listens."""
        return self.server.port

    @property
    def connection(self) -> SocketTransport:
        """Return the server's side of its only connection."""
        (connection,) = self.server.connections
        return connection

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds."""
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110  there is no event for it
                await asyncio.sleep(0.002)


@asynccontextmanager
async def serving(
    limits: ConnectionLimits | None = None,
    *,
    busy: Callable[[], bool] = lambda: False,
    clients: ClientLimits | None = None,
) -> AsyncIterator[EchoServer]:
    """Serve on a free port of this machine, and stop at the end."""
    echo = EchoServer(limits or ConnectionLimits(), busy, clients)
    await echo.server.start([socket.create_server(("127.0.0.1", 0))])
    try:
        yield echo
    finally:
        await echo.server.stop(0)

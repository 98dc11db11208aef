"""What carries xDS streams: one of two transports around the same pumps.

http2    HTTP/2 on the event loop, our own (`http2/server.py`): the default, since it costs about a third as much
grpc     gRPC's own server (`grpc_transport.py`)
"""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Protocol

import grpc

from controlplane.http2.server import Server
from controlplane.xds_server.discovery import Discovery
from controlplane.xds_server.grpc_transport import handlers
from controlplane.xds_server.limits import StreamLimits, server_options


class Serving(Protocol):
    """A server of xDS that serves."""

    port: int

    async def stop(self, grace: float) -> None:
        """Takes nothing new, and ends what is open within `grace` seconds."""


async def serve(
    discovery: Discovery,
    host: str,
    port: int,
    limits: StreamLimits,
    *,
    transport: str = "http2",
    share: bool = False,
    context: ssl.SSLContext | None = None,
) -> Serving:
    """Serves xDS on a port; 0 takes a free one. `share`: other processes listen there, too. `context`: TLS, `http2` only.

    Errors: OSError when it can't listen.
    """
    if transport == "http2":
        sockets = listening(host, port, share=share)
        server = Server(discovery.methods(), limits, lambda: discovery.offering)
        discovery.flush = server.flush
        await server.start(sockets, context)
        return server
    assert context is None
    options = [*(o for o in server_options(limits) if o[0] != "grpc.so_reuseport"), ("grpc.so_reuseport", int(share))]
    served = grpc.aio.server(options=options, handlers=handlers(discovery))
    try:
        chosen = served.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except RuntimeError:
        raise OSError(errno.EADDRINUSE, "address already in use") from None
    await served.start()
    return _Grpc(served, chosen)


class _Grpc:
    """gRPC's server."""

    def __init__(self, server: grpc.aio.Server, port: int) -> None:
        self.port = port
        self._server = server

    async def stop(self, grace: float) -> None:
        await self._server.stop(grace)


def listening(host: str, port: int, *, share: bool = False) -> list[socket.socket]:
    """Sockets bound to every address of `host`, on the same port. Errors: OSError."""
    wild = {"0.0.0.0": socket.AF_INET, "::": socket.AF_INET6}.get(host)
    sockets: list[socket.socket] = []
    try:
        if wild is not None and socket.has_dualstack_ipv6():
            # Every interface, in both kinds of addresses; as gRPC understands it, too.
            return [socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, reuse_port=share)]
        for family, _, _, _, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            sockets.append(socket.create_server((str(where[0]), port), family=family, reuse_port=share))
            port = sockets[0].getsockname()[1]
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets

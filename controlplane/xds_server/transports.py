"""The two transports of xDS streams, around the same pumps.

http2    our own HTTP/2 on the event loop (`http2/server.py`): the default, since it costs about a third as much
grpc     gRPC's own server (`grpc_transport.py`)
"""

from __future__ import annotations

import errno
import socket
from typing import Any, Protocol

import grpc
import structlog

from controlplane.errors import Error
from controlplane.http2.grpc_status import StatusError
from controlplane.http2.handler import Open, StreamHandler, Transport
from controlplane.http2.peer import Peer
from controlplane.http2.server import Server
from controlplane.xds_server.discovery import NO_POLLING, Discovery
from controlplane.xds_server.grpc_transport import handlers
from controlplane.xds_server.limits import StreamLimits, client_limits, connection_limits, server_options
from controlplane.xds_server.status import to_status
from controlplane.xds_server.tls_files import TlsFiles

# gRPC's server can't close the connection of one client. With TLS, connections of this age take no new streams, so that a
# stream that ended with its certificate comes back on a connection with a new one.
_TLS_CONNECTION_AGE_MS = 600_000


class Serving(Protocol):
    """A running xDS server."""

    port: int

    async def stop(self, grace: float) -> None:
        """Accept nothing new, and end open streams within `grace` seconds."""


async def serve(
    discovery: Discovery,
    host: str,
    port: int,
    limits: StreamLimits,
    *,
    transport: str = "http2",
    share: bool = False,
    tls: TlsFiles | None = None,
) -> Serving:
    """Serve xDS on a port; 0 takes a free one. `share`: other processes listen on it, too. `tls`: with mutual TLS.

    Errors: OSError when it can't listen.
    """
    if transport == "http2":
        sockets = listening(host, port, share=share)
        server = http2_server(discovery, limits)
        discovery.pusher.flush = server.flush
        await server.start(sockets, tls)
        return server
    options = [*(o for o in server_options(limits) if o[0] != "grpc.so_reuseport"), ("grpc.so_reuseport", int(share))]
    if tls is not None and not limits.max_connection_age:
        options.append(("grpc.max_connection_age_ms", _TLS_CONNECTION_AGE_MS))
    grpc_server = grpc.aio.server(options=options, handlers=handlers(discovery))
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if tls is None:
            bound_port = grpc_server.add_insecure_port(address)
        else:
            bound_port = grpc_server.add_secure_port(address, _grpc_credentials(tls))
    except RuntimeError:
        raise OSError(errno.EADDRINUSE, "address already in use") from None
    await grpc_server.start()
    return _Grpc(grpc_server, bound_port)


def http2_server(discovery: Discovery, limits: StreamLimits) -> Server:
    """Return a server of the xDS services over our own HTTP/2, not yet listening."""
    return Server(
        {path: _open(method) for path, method in discovery.methods().items()},
        connection_limits(limits),
        busy=lambda: discovery.pusher.pushing,
        unknown_method=unknown_method,
        log=structlog.get_logger("xds"),
        clients=client_limits(),
        report=discovery.connection_refused,
    )


def _open(method: Open) -> Open:
    """Return `method`, raising StatusError instead of `Error`."""

    def open_handler(peer: Peer, transport: Transport) -> StreamHandler:
        try:
            return method(peer, transport)
        except Error as error:
            status = to_status(error)
            raise StatusError(status.code, status.message) from None

    return open_handler


def unknown_method(path: str) -> str:
    """Return the error text for a method that is not served."""
    service, _, method = path.lstrip("/").partition("/")
    if service.endswith("ClientStatusDiscoveryService"):
        return "client status is served on the operators' port: --api"
    if service.endswith("DiscoveryService") and method.startswith("Fetch"):
        return NO_POLLING.format(stem=method.removeprefix("Fetch")[:100])
    if service.startswith("turnout."):
        return "this is the xDS port; the operator API is served on another one: --api"
    return f"unknown method {path[:200]}"


def _grpc_credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    """Return credentials of gRPC's server that follow the files."""
    used = [tls.generation]

    def configuration() -> Any:
        loaded = tls.loaded
        return grpc.ssl_server_certificate_configuration([(loaded.key, loaded.chain)], loaded.authorities)

    def fetch() -> Any:
        # gRPC calls this from its own threads at each handshake. It crashes unless it gets None while nothing has changed.
        if used[0] == tls.generation:
            return None
        used[0] = tls.generation
        return configuration()

    return grpc.dynamic_ssl_server_credentials(configuration(), fetch, require_client_authentication=True)


class _Grpc:
    """gRPC's server, as `Serving`."""

    def __init__(self, server: grpc.aio.Server, port: int) -> None:
        self.port = port
        self._server = server

    async def stop(self, grace: float) -> None:
        """Accept nothing new, and end open streams within `grace` seconds."""
        await self._server.stop(grace)


def listening(host: str, port: int, *, share: bool = False) -> list[socket.socket]:
    """Return sockets bound to every address of `host`, on the same port. Errors: OSError."""
    wildcard = {"0.0.0.0": socket.AF_INET, "::": socket.AF_INET6}.get(host)
    sockets: list[socket.socket] = []
    try:
        if wildcard is not None and socket.has_dualstack_ipv6():
            # Every interface, IPv4 and IPv6; gRPC's server does the same.
            return [socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, reuse_port=share)]
        for family, _, _, _, sockaddr in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            sockets.append(socket.create_server((str(sockaddr[0]), port), family=family, reuse_port=share))
            port = sockets[0].getsockname()[1]
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets

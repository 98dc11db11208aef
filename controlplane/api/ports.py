"""The server's ports. They are bound when it starts, and errors name the port and the reason.

Errors of every function here: UNAVAILABLE / PORT_TAKEN when another program listens on the address; INVALID_ARGUMENT when the
address is not one of this machine's, or its name is unknown. `name` is the setting that the errors name.
"""

from __future__ import annotations

import errno
import socket

import grpc

from controlplane.config import Address
from controlplane.errors import Code, Error, invalid


def listen(server: grpc.aio.Server, address: Address, name: str, credentials: grpc.ServerCredentials | None = None) -> int:
    """Add a port to a gRPC server, with TLS if there are credentials, and return its number."""
    try:
        # Checked first, since gRPC doesn't say why it can't listen, and writes to standard error.
        check_free(address, name)
        if credentials is not None:
            return server.add_secure_port(str(address), credentials)
        return server.add_insecure_port(str(address))
    except RuntimeError:
        raise port_taken(address, name) from None


def reserve(address: Address, name: str) -> tuple[int, list[socket.socket]]:
    """Reserve a port on which several processes will listen, and return its number and the sockets that reserve it.

    There is one socket for each IP address of the host. They are bound with SO_REUSEPORT and do not listen.
    """
    # Checked first, without SO_REUSEPORT: another program may listen with it, and then binding would succeed.
    check_free(address, name)
    sockets: list[socket.socket] = []
    port = address.port
    try:
        for family, kind, protocol, _, ip_address in socket.getaddrinfo(address.host, port, type=socket.SOCK_STREAM):
            sock = socket.socket(family, kind, protocol)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((ip_address[0], port, *ip_address[2:]))
            port = sock.getsockname()[1]
    except OSError:
        for sock in sockets:
            sock.close()
        raise port_taken(address, name) from None
    return port, sockets


def check_free(address: Address, name: str) -> None:
    """Check that this process can listen on an address."""
    try:
        for family, kind, protocol, _, ip_address in socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind(ip_address)
    except socket.gaierror:
        raise invalid(name, f"'{address.host}' is not the name of a machine") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise port_taken(address, name) from None
        raise invalid(name, f"can't listen on {address}: {(error.strerror or str(error)).lower()}", "CANNOT_LISTEN") from None


def port_taken(address: Address, name: str) -> Error:
    """Return the error for an address on which another program listens."""
    message = (
        f"{address} is taken: another program listens there, maybe a control plane that runs already; "
        f"give the setting `{name}` another address{' or set it to off' if name == 'metrics' else ''}"
    )
    return Error(Code.UNAVAILABLE, "PORT_TAKEN", message, metadata={"address": str(address)})

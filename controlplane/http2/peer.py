"""The client at the other end of a connection."""

from __future__ import annotations

from typing import Any, NamedTuple


class Peer(NamedTuple):
    """The client of a connection. Every call on the connection has the same one."""

    # The address of its socket, like `127.0.0.1:5000` or `[::1]:5000`; "" when the socket has none.
    address: str
    # The identity that its credential proves; None while nothing reads one.
    identity: str | None = None


def address(name: Any) -> str:
    """Return a socket's name as text: `127.0.0.1:5000`, `[::1]:5000`; an IPv4 address in IPv6 form becomes IPv4."""
    if not isinstance(name, tuple):
        return str(name or "")
    host, port = str(name[0]).removeprefix("::ffff:"), name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

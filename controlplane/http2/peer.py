"""The client at the other end of a connection."""

from __future__ import annotations

from typing import Any, NamedTuple


class Credential(NamedTuple):
    """The client's verified certificate."""

    # The name that the certificate proves.
    identity: str
    # When it expires, in seconds since the epoch.
    expires: float
    # Its number and its authority, which may revoke it.
    serial: str = ""


class Peer(NamedTuple):
    """The client of a connection. Every call on the connection has the same one."""

    # The address of its socket, like `127.0.0.1:5000` or `[::1]:5000`; "" when the socket has none.
    address: str
    # What its certificate proves; None without TLS.
    credential: Credential | None = None

    @property
    def identity(self) -> str | None:
        """Return the identity that the certificate proves; None without TLS."""
        return None if self.credential is None else self.credential.identity


def address(name: Any) -> str:
    """Return a socket's name as text: `127.0.0.1:5000`, `[::1]:5000`; an IPv4 address in IPv6 form becomes IPv4."""
    if not isinstance(name, tuple):
        return str(name or "")
    host, port = str(name[0]).removeprefix("::ffff:"), name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

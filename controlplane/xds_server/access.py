"""The check of who may open a stream, and as which node, by certificates, rules and blocks. Without TLS, only blocks count."""

from __future__ import annotations

import time
from typing import Any

from controlplane.errors import Code, Error
from controlplane.http2.grpc_status import Status, StatusCode
from controlplane.http2.peer import Credential, Peer
from controlplane.xds.events import Authenticated, Identified
from controlplane.xds.node import identified
from controlplane.xds_server.tls_files import TlsFiles


class Access:
    """The checks of one server."""

    def __init__(self, tls: TlsFiles | None = None, blocked: frozenset[str] = frozenset()) -> None:
        self.tls = tls
        # Node ids and identities that may not connect.
        self.blocked = blocked

    def check_open(self, peer: Peer) -> None:
        """Check that a client may open a stream. Errors: PERMISSION_DENIED / NO_IDENTITY, BLOCKED."""
        if self.tls is not None and (problem := self._problem(peer.credential)):
            raise Error(Code.PERMISSION_DENIED, "NO_IDENTITY", problem)
        if self.blocked:
            self._check_block(peer.identity)

    def check_node(self, credential: Credential | None, node: Any) -> Authenticated | None:
        """Check that a client may claim to be this `core.v3.Node`. Return its identity; None without TLS.

        Errors: PERMISSION_DENIED / NOT_YOUR_CLAIM, BLOCKED.
        """
        if self.blocked:
            self._check_block(node.id)
        return None if self.tls is None else self._check(credential, identified(node))

    def check_client(self, peer: Peer, client: Identified | None) -> None:
        """Check an open stream again, after the files or the blocks have changed. Errors: PERMISSION_DENIED."""
        self.check_open(peer)
        if client is not None:
            if self.blocked:
                self._check_block(client.id)
            if self.tls is not None:
                self._check(peer.credential, client)

    def _check_block(self, name: str | None) -> None:
        if name in self.blocked:
            raise Error(Code.PERMISSION_DENIED, "BLOCKED", f"{name[:300] if name else ''} is blocked by an operator")

    def _check(self, credential: Credential | None, client: Identified) -> Authenticated:
        assert self.tls is not None
        identity = "" if credential is None else credential.identity
        return Authenticated(identity, self.tls.loaded.rules.check(identity, client).shared)

    def _problem(self, credential: Credential | None) -> str:
        """Return why a certificate is not accepted; "" if it is."""
        assert self.tls is not None
        if credential is None:
            return "the client has no certificate"
        if credential.serial in self.tls.loaded.revoked:
            return f"{credential.identity[:300]}: the certificate is revoked"
        if credential.expires <= time.time():
            return f"{credential.identity[:300]}: {EXPIRED}"
        return ""


EXPIRED = "the certificate has expired; connect again with a new one"

# The status of a stream that ends with its certificate.
EXPIRED_STATUS = Status(StatusCode.PERMISSION_DENIED, EXPIRED)


def seconds_left(credential: Credential) -> float:
    """Return for how many seconds a certificate is valid."""
    return max(0.0, credential.expires - time.time())

"""The check of who may open a stream, and as which node, by certificates and rules. Without TLS, everybody may."""

from __future__ import annotations

import time
from typing import Any

from controlplane.errors import Code, Error
from controlplane.http2.grpc_status import Status, StatusCode
from controlplane.http2.peer import Peer
from controlplane.http2.tls import Credential
from controlplane.xds.events import Identified
from controlplane.xds.identity_rules import claimed
from controlplane.xds_server.tls_files import TlsFiles


class Access:
    """The checks of one server."""

    def __init__(self, tls: TlsFiles | None = None) -> None:
        self._tls = tls

    def check_open(self, peer: Peer) -> None:
        """Check that a client may open a stream. Errors: PERMISSION_DENIED."""
        if self._tls is not None and (problem := self._problem(peer.credential)):
            raise Error(Code.PERMISSION_DENIED, "NO_IDENTITY", problem)

    def check_node(self, credential: Credential | None, node: Any) -> None:
        """Check that a client may claim to be this `core.v3.Node`. Errors: PERMISSION_DENIED / NOT_YOUR_CLAIM."""
        if self._tls is not None:
            self._check(credential, claimed(node))

    def check_client(self, credential: Credential | None, client: Identified | None) -> None:
        """Check an open stream again, after the files have changed. Errors: PERMISSION_DENIED."""
        if self._tls is None:
            return
        if problem := self._problem(credential):
            raise Error(Code.PERMISSION_DENIED, "NO_IDENTITY", problem)
        if client is not None:
            self._check(credential, client)

    def _check(self, credential: Credential | None, client: Identified) -> None:
        assert self._tls is not None
        identity = "" if credential is None else credential.identity
        self._tls.loaded.rules.check(identity, client)

    def _problem(self, credential: Credential | None) -> str:
        """Return why a certificate is not accepted; "" if it is."""
        assert self._tls is not None
        if credential is None:
            return "the client has no certificate"
        if credential.serial in self._tls.loaded.revoked:
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

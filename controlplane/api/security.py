"""The security of the API's port, from the settings: TLS, and the gate with its interceptor. Without them, all are None."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

import grpc

from controlplane.access.document import OidcSettings
from controlplane.api.access_interceptor import AccessInterceptor
from controlplane.api.gate import AccessGate, Verifier
from controlplane.api.tls import ApiTlsPaths, api_tls, server_credentials
from controlplane.config import Config
from controlplane.errors import invalid


class ApiSecurity:
    """TLS and access of one server. The files are read when it is made, and followed by `watches`."""

    def __init__(self, config: Config) -> None:
        """Read the files. Errors: INVALID_ARGUMENT that names the setting, the file and the line."""
        cert, key = config.api_tls_cert, config.api_tls_key
        self._tls = api_tls(ApiTlsPaths(cert, key, config.api_client_ca)) if cert is not None and key is not None else None
        self.credentials = server_credentials(self._tls) if self._tls is not None else None
        self.gate = AccessGate(config.access, config.api_tokens, _verifier) if config.access is not None else None
        if self.gate is not None and not (self.gate.has_tokens or config.api_client_ca):
            problem = (
                f"no credential can be checked: give --api-tokens or --api-client-ca, or write `oidc` into {config.access}"
            )
            raise invalid("access", problem)

    @property
    def interceptors(self) -> Sequence[grpc.aio.ServerInterceptor[Any, Any]]:
        """Return the interceptors of the server."""
        return [AccessInterceptor(self.gate)] if self.gate is not None else []

    def watches(self) -> list[Coroutine[Any, Any, None]]:
        """Return what must run so that the files are followed."""
        followed = [f for f in (self._tls, self.gate.files if self.gate is not None else None) if f is not None]
        return [f.watch() for f in followed]


def _verifier(settings: OidcSettings) -> Verifier:
    # Imported when it is needed: a tenth of a second, and a library that few set-ups use.
    from controlplane.api.oidc import OidcVerifier

    return OidcVerifier(settings)

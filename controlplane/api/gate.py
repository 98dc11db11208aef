"""The gate of the operator API: finds out who a caller is, by the access file, the token file, the provider's keys and TLS.

| credential | checked with | identity |
|---|---|---|
| `authorization: Bearer turnout_…` | the hash in the token file | `token:NAME` |
| `authorization: Bearer JWT` | the keys of the OpenID provider | `user:NAME` |
| a client certificate | TLS, with `api_client_ca` | `certificate:NAME` |

A token wins over the certificate of the connection. No token is in an error or in the log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cryptography import x509

from controlplane.access.caller import Caller, Credential
from controlplane.access.document import AccessFile, OidcSettings, parse
from controlplane.access.rules import Rules
from controlplane.access.tokens import PREFIX, Token, hashed, parse_tokens
from controlplane.api.watched_files import WatchedFiles, read_text
from controlplane.errors import Code, Error
from controlplane.xds_server.tls_files import read_certificate

# Longest token, and longest name in a certificate. Characters.
_MAX_TOKEN, _MAX_NAME = 8_000, 200

_ADVICE = (
    "send a token (TURNOUT_TOKEN_FILE, or `turnout login`), or a client certificate (TURNOUT_CERT and TURNOUT_KEY) if the "
    "server asks for one"
)


class Verifier(Protocol):
    """Checks the tokens of one OpenID provider."""

    async def caller(self, token: str) -> Caller:
        """Return the user whose access token it is. Errors: UNAUTHENTICATED; UNAVAILABLE if it can't be checked."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    access: AccessFile
    tokens: Mapping[str, Token]
    verifier: Verifier | None


class AccessGate:
    """Knows callers by their credentials, and has the newest rules."""

    def __init__(
        self,
        access: Path,
        tokens: Path | None,
        verifier: Callable[[OidcSettings], Verifier],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Read the files. Errors: INVALID_ARGUMENT that names the file and the line."""
        self._clock = clock
        self._has_file = tokens is not None

        def load() -> _Loaded:
            content = parse(read_text(access, "access"), str(access))
            known = parse_tokens(read_text(tokens, "api_tokens"), str(tokens)) if tokens is not None else {}
            return _Loaded(content, known, verifier(content.oidc) if content.oidc is not None else None)

        self.files = WatchedFiles([access, tokens] if tokens is not None else [access], load, "access")

    @property
    def has_tokens(self) -> bool:
        """True if tokens can be checked: by a token file, or by a provider."""
        return self._has_file or self.files.content.verifier is not None

    @property
    def rules(self) -> Rules | None:
        """The newest rules."""
        return self.files.content.access.rules

    async def caller(self, context: Any, address: str) -> Caller:
        """Return the caller that a call's credential proves. Errors: UNAUTHENTICATED; UNAVAILABLE."""
        values = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
        if values:
            caller = await self._by_token(_bearer(values))
        else:
            caller = _by_certificate(context)
        if caller.expires is not None and caller.expires <= self._clock():
            raise Error(Code.UNAUTHENTICATED, "CREDENTIAL_EXPIRED", f"the credential of {caller.identity} has expired")
        return Caller(caller.credential, caller.name, caller.groups, caller.expires, address)

    async def _by_token(self, token: str) -> Caller:
        loaded = self.files.content
        if token.startswith(PREFIX):
            entry = loaded.tokens.get(hashed(token))
            if entry is None:
                raise Error(
                    Code.UNAUTHENTICATED,
                    "UNKNOWN_TOKEN",
                    "the token is not in the server's token file: it was withdrawn, or never there",
                )
            return Caller(Credential.TOKEN, entry.name, expires=entry.expires)
        if loaded.verifier is None:
            raise Error(
                Code.UNAUTHENTICATED,
                "UNKNOWN_TOKEN",
                f"the token is none of `turnout token new`, and the server knows no provider; {_ADVICE}",
            )
        return await loaded.verifier.caller(token)


def _bearer(values: list[Any]) -> str:
    """Return the token of a call. Errors: UNAUTHENTICATED."""
    scheme, _, token = str(values[0]).partition(" ")
    if len(values) != 1 or scheme.lower() != "bearer" or not token.strip() or len(token) > _MAX_TOKEN:
        raise Error(Code.UNAUTHENTICATED, "BAD_CREDENTIAL", "the metadata authorization must be `Bearer` and one token")
    return token.strip()


def _by_certificate(context: Any) -> Caller:
    found = context.auth_context().get("x509_pem_cert")
    if not found:
        raise Error(Code.UNAUTHENTICATED, "NO_CREDENTIAL", f"the call has no credential: {_ADVICE}")
    try:
        certificate = read_certificate(x509.load_pem_x509_certificate(found[0]))
    except ValueError as error:
        raise Error(Code.UNAUTHENTICATED, "BAD_CREDENTIAL", str(error)[:200]) from None
    if len(certificate.identity) > _MAX_NAME or not certificate.identity.isprintable():
        raise Error(
            Code.UNAUTHENTICATED,
            "BAD_CREDENTIAL",
            f"the name in the certificate is not {_MAX_NAME} printable characters at most",
        )
    return Caller(Credential.CERTIFICATE, certificate.identity, expires=certificate.expires)

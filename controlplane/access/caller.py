"""The caller of an API call, as its credential proves it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Credential(Enum):
    """The kind of credential that proves who a caller is. The value begins the caller's identity."""

    NONE = ""  # no credential was asked for
    CERTIFICATE = "certificate"  # a client certificate that a trusted authority has signed
    TOKEN = "token"  # a token of the server's token file
    USER = "user"  # an access token of the OpenID provider


@dataclass(frozen=True, slots=True)
class Caller:
    """The maker of a call. `Caller()` is everybody where no credential is asked for."""

    credential: Credential = Credential.NONE
    # The name in the credential: a SPIFFE ID, DNS name or common name; the token's name; the user's name. "" without one.
    name: str = ""
    groups: frozenset[str] = frozenset()
    # When the credential expires, seconds since the epoch; None if it never does.
    expires: float | None = None
    # Where the call comes from, `ip:port`.
    address: str = ""

    @property
    def identity(self) -> str:
        """The name that rules, the history and the audit log show, like `user:anna@example.com`; "" without a credential.

        The kind is part of it, so that nobody gets the rights of another kind's equal name.
        """
        return f"{self.credential.value}:{self.name}" if self.credential is not Credential.NONE else ""


def parse_identity(text: str) -> Caller | None:
    """Return the caller with an identity like `user:anna@example.com`; None if it is not one."""
    kind, colon, name = text.partition(":")
    known = {c.value: c for c in Credential if c is not Credential.NONE}
    return Caller(known[kind], name) if colon and name and kind in known else None

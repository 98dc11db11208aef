"""Secrets: certificates with their private keys, the certificates of authorities, and opaque values like API keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from controlplane.domain.checks import check_label
from controlplane.domain.references import Reference
from controlplane.errors import invalid

if TYPE_CHECKING:
    from controlplane.domain import pem

# The value of a header (RFC 9110, section 5.5), without tabs.
_VALUE = re.compile(r"[!-~]([ -~]{0,8190}[!-~])?")


@dataclass(frozen=True, slots=True)
class TlsCertificate:
    """A certificate, the chain from it to its authority, and its private key.

    Always true: the private key belongs to the first certificate, or it was purged and is "". Both texts are normalised, so
    that equal certificates and keys are equal values.
    """

    certificate_chain_pem: str = field(repr=False)
    private_key_pem: str = field(repr=False)
    # The store's id of the private key, if the certificate is from an old revision and its key was purged; else "".
    purged: str = ""
    chain: tuple[pem.Certificate, ...] = field(init=False, compare=False)  # the leaf first; never empty

    def __post_init__(self) -> None:
        # Imported here because it takes a tenth of the start of `turnout`, and few commands read certificates.
        from controlplane.domain import pem

        if self.purged:
            (chain_pem, chain), key_pem = pem.certificates(self.certificate_chain_pem, "certificate_chain_pem"), ""
        else:
            chain_pem, key_pem, chain = pem.key_pair(
                self.certificate_chain_pem, self.private_key_pem, "certificate_chain_pem", "private_key_pem"
            )
        object.__setattr__(self, "certificate_chain_pem", chain_pem)
        object.__setattr__(self, "private_key_pem", key_pem)
        object.__setattr__(self, "chain", chain)

    @property
    def leaf(self) -> pem.Certificate:
        return self.chain[0]


@dataclass(frozen=True, slots=True)
class CaCertificates:
    """The certificates of authorities."""

    ca_certificates_pem: str = field(repr=False)
    certificates: tuple[pem.Certificate, ...] = field(init=False, compare=False)  # never empty

    def __post_init__(self) -> None:
        from controlplane.domain import pem

        normalised, certificates = pem.certificates(self.ca_certificates_pem, "ca_certificates_pem")
        object.__setattr__(self, "ca_certificates_pem", normalised)
        object.__setattr__(self, "certificates", certificates)


@dataclass(frozen=True, slots=True)
class OpaqueValue:
    """A value that only model servers understand, like an API key. It can be the value of a header."""

    value: str = field(repr=False)
    # The store's id of the value, if it is from an old revision and was purged; else "". A purged value is "".
    purged: str = ""

    def __post_init__(self) -> None:
        if self.purged:
            object.__setattr__(self, "value", "")
            return
        if not self.value:
            raise invalid("value", "is required", "VALUE_REQUIRED")
        if not _VALUE.fullmatch(self.value):
            raise invalid("value", "must be 1 to 8,192 visible ASCII characters, with spaces only between them")


Content = TlsCertificate | CaCertificates | OpaqueValue


@dataclass(frozen=True, slots=True)
class Secret:
    """A certificate with its key, the certificates of authorities, or an opaque value. Its `repr` shows no key or value."""

    collection: ClassVar[str] = "secrets"

    name: str  # the label alone
    content: Content

    def __post_init__(self) -> None:
        check_label(self.name)

    @property
    def kind(self) -> str:
        """The name of the content's class, a key of `SECRET_KINDS`."""
        return next(name for name, content in SECRET_KINDS.items() if isinstance(self.content, content))

    @property
    def resource_name(self) -> str:
        return f"{self.collection}/{self.name}"

    @property
    def purged(self) -> bool:
        """True if the private key or the value was removed from the store, so that nothing can use the secret again."""
        return not isinstance(self.content, CaCertificates) and bool(self.content.purged)

    @property
    def references(self) -> tuple[Reference, ...]:
        """The objects that the secret needs: none."""
        return ()


# The classes of `content`, by the name that the API and the store use.
SECRET_KINDS: Mapping[str, type[Content]] = {
    "tls_certificate": TlsCertificate,
    "ca_certificates": CaCertificates,
    "opaque": OpaqueValue,
}

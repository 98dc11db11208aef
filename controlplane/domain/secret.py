"""Secrets: certificates with their keys, and authorities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controlplane.domain import pem
from controlplane.domain.checks import check_label


@dataclass(frozen=True, slots=True)
class TlsCertificate:
    """A certificate, with what leads from it to its authority, and its private key.

    Always true: the key is that of the first certificate; both are written one way, so that equal ones are equal values.
    """

    certificate_chain_pem: str = field(repr=False)
    private_key_pem: str = field(repr=False)
    chain: tuple[pem.Certificate, ...] = field(init=False, compare=False)  # the leaf first; never empty

    def __post_init__(self) -> None:
        chain, key, described = pem.key_pair(
            self.certificate_chain_pem, self.private_key_pem, "certificate_chain_pem", "private_key_pem"
        )
        object.__setattr__(self, "certificate_chain_pem", chain)
        object.__setattr__(self, "private_key_pem", key)
        object.__setattr__(self, "chain", described)

    @property
    def leaf(self) -> pem.Certificate:
        return self.chain[0]


@dataclass(frozen=True, slots=True)
class CaCertificates:
    """Certificates of authorities."""

    ca_certificates_pem: str = field(repr=False)
    certificates: tuple[pem.Certificate, ...] = field(init=False, compare=False)  # never empty

    def __post_init__(self) -> None:
        written, described = pem.certificates(self.ca_certificates_pem, "ca_certificates_pem")
        object.__setattr__(self, "ca_certificates_pem", written)
        object.__setattr__(self, "certificates", described)


@dataclass(frozen=True, slots=True)
class Secret:
    """What TLS needs. It has no text form that shows a key."""

    name: str  # the label alone
    content: TlsCertificate | CaCertificates

    def __post_init__(self) -> None:
        check_label(self.name)

    @property
    def resource_name(self) -> str:
        return f"secrets/{self.name}"


SECRET_KINDS: Mapping[type[TlsCertificate | CaCertificates], str] = {
    TlsCertificate: "tls_certificate",
    CaCertificates: "ca_certificates",
}

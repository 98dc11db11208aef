"""An authority of our own, and what it signs: made anew in each run, so that no key is in the repository."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from controlplane.domain import CaCertificates, Secret, TlsCertificate

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in PEM."""

    certificate: str
    key: str
    serial: int

    def secret(self, name: str = "edge") -> Secret:
        return Secret(name, TlsCertificate(self.certificate, self.key))

    def files(self, directory: Path, name: str) -> tuple[str, str]:
        """Both as files."""
        certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
        certificate.write_text(self.certificate)
        key.write_text(self.key)
        return str(certificate), str(key)


class Authority:
    """Signs certificates."""

    def __init__(self, name: str = "test authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(self._name, self._name, self._key)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.certificate = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()

    def secret(self, name: str = "ca") -> Secret:
        return Secret(name, CaCertificates(self.certificate))

    def pair(self, *names: str, key: Key | None = None, must_staple: bool = False) -> Pair:
        """A new certificate for names and addresses; its key is new, unless one is given.

        A server that shows one which says `must_staple` has to have an OCSP response to it (RFC 7633); no Envoy here has.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        builder = _builder(subject, self._name, key)
        sans = x509.SubjectAlternativeName([_san(n) for n in names])
        builder = builder.add_extension(sans, critical=False)
        if must_staple:
            builder = builder.add_extension(x509.TLSFeature([x509.TLSFeatureType.status_request]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return Pair(certificate.public_bytes(Encoding.PEM).decode(), pem(key), certificate.serial_number)

    def context(self, client: Pair | None = None, directory: Path | None = None) -> ssl.SSLContext:
        """For clients that believe this authority, and show a certificate, if given."""
        context = ssl.create_default_context(cadata=self.certificate)
        if client is not None and directory is not None:
            context.load_cert_chain(*client.files(directory, f"client-{client.serial}"))
        return context


@cache
def authority() -> Authority:
    """One that all tests of a run share."""
    return Authority()


@cache
def pair(name: str = "iris.example") -> Pair:
    """A certificate of the shared authority, the same for the same name."""
    return authority().pair(name)


def pem(key: Key) -> str:
    """A key in PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def marks(key: str) -> list[str]:
    """What of a key in PEM may be found nowhere, two windows into it.

    In PKCS#8 a P-256 key begins alike in all for 36 bytes; then come the 32 that are secret; then the public key, which
    stands in the certificate too.
    """
    secret = "".join(key.split("-----")[2].split())[48:90]
    return [secret[:24], secret[-24:]]


def _builder(subject: x509.Name, issuer: x509.Name, key: Key) -> x509.CertificateBuilder:
    start = datetime.now(UTC) - timedelta(minutes=5)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=90))
    )


def _san(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)

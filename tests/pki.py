"""A certificate authority for tests. Each run creates new keys, so that no private key is in the repository."""

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

# How long ago a certificate began, and how long it is still valid: 90 days in all.
_AGE = timedelta(minutes=5)
_LIFETIME = timedelta(days=90) - _AGE

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
        """Write the certificate and the key to files, and return their paths."""
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

    def pair(self, *names: str, key: Key | None = None, must_staple: bool = False, lifetime: timedelta = _LIFETIME) -> Pair:
        """Return a new certificate for DNS names, IP addresses and SPIFFE IDs, and its key. The key is new if `key` is None.

        With `must_staple`, a server must send an OCSP response with the certificate (RFC 7633). No Envoy in the tests can.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
        builder = _builder(subject, self._name, key, lifetime)
        sans = x509.SubjectAlternativeName([_san(n) for n in names])
        builder = builder.add_extension(sans, critical=False)
        if must_staple:
            builder = builder.add_extension(x509.TLSFeature([x509.TLSFeatureType.status_request]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return Pair(certificate.public_bytes(Encoding.PEM).decode(), pem(key), certificate.serial_number)

    def crl(self, *revoked: Pair) -> bytes:
        """Return a list of revoked certificates, in PEM."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        builder = builder.last_update(now).next_update(now + timedelta(days=1))
        for pair in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(pair.serial).revocation_date(now).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def context(self, client: Pair | None = None, directory: Path | None = None) -> ssl.SSLContext:
        """Return a TLS context for a client that trusts this authority. If there is a `client` pair, it sends that one."""
        context = ssl.create_default_context(cadata=self.certificate)
        if client is not None and directory is not None:
            context.load_cert_chain(*client.files(directory, f"client-{client.serial}"))
        return context


@cache
def authority() -> Authority:
    """Return the authority that all tests of a run share."""
    return Authority()


@cache
def pair(name: str = "iris.example") -> Pair:
    """Return a pair that the shared authority has signed. The same name gets the same pair."""
    return authority().pair(name)


def pem(key: Key) -> str:
    """Return a key in PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def marks(key: str) -> list[str]:
    """Return two parts of a private key in PEM. No text and no file may contain one of them.

    In PKCS#8 all P-256 keys begin with the same 36 bytes. Then come the 32 secret bytes, and then the public key, which is
    also in the certificate.
    """
    secret = "".join(key.split("-----")[2].split())[48:90]
    return [secret[:24], secret[-24:]]


def _builder(subject: x509.Name, issuer: x509.Name, key: Key, lifetime: timedelta = _LIFETIME) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    start = now - _AGE
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(now + lifetime)
    )


def _san(name: str) -> x509.GeneralName:
    if name.startswith("spiffe://"):
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)

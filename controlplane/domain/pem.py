"""Certificates and private keys in PEM: read them, check them as Envoy will, and normalise them.

No error text contains a private key. All texts are written here, because the text of a library's error could contain the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from controlplane.errors import invalid

# The keys that Envoy (BoringSSL) accepts: ECDSA on these curves, and RSA of at least this many bits.
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_RSA_BITS = 2048
MAX_BYTES = 256 * 1024

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Certificate:
    """The facts about a certificate that people recognise it by. Times are seconds since the epoch."""

    sha256: str  # hash of the DER form, in hex
    subject: str  # RFC 4514; "" if it has none
    sans: tuple[str, ...]
    not_before: float
    not_after: float


def certificates(pem: str, field: str) -> tuple[str, tuple[Certificate, ...]]:
    """Return the certificates of a text as normalised PEM, and the facts about each.

    Errors: INVALID_ARGUMENT, also if there is no certificate.
    """
    chain = _certificates(pem, field)
    return _to_pem(chain), tuple(map(_describe, chain))


def key_pair(chain: str, key: str, chain_field: str, key_field: str) -> tuple[str, str, tuple[Certificate, ...]]:
    """Return a chain (leaf first) and the leaf's private key in normalised PEM, and the facts about each certificate.

    The key is checked against the leaf. `check_key_numbers` checks the numbers of the key.

    Errors: INVALID_ARGUMENT; for the key, the reason can be KEY_MISMATCH or KEY_REQUIRED.
    """
    certificates = _certificates(chain, chain_field)
    private = _private_key(key, key_field)
    if not _same_key(certificates[0], private):
        if any(_same_key(other, private) for other in certificates[1:]):
            raise invalid(chain_field, "the certificate that the key belongs to must come first")
        raise invalid(key_field, "is not the key of the certificate", "KEY_MISMATCH")
    for certificate, issuer in pairwise(certificates):
        try:
            certificate.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            raise invalid(chain_field, "each certificate must be signed by the one after it") from None
    key_pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return _to_pem(certificates), key_pem, tuple(map(_describe, certificates))


def check_key_numbers(key: str, field: str) -> None:
    """Check that the numbers of a private key fit together, as Envoy will. Errors: INVALID_ARGUMENT.

    This takes 0.4 s for RSA of 4,096 bits, so it runs only once: when a caller sends the key.
    """
    try:
        load_pem_private_key(key.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise invalid(field, "is a private key whose numbers don't fit together") from None


def placeholder(now: float) -> tuple[str, str]:
    """Return a new certificate and its key in PEM. They replace real ones in a configuration that is only validated."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "placeholder")])
    start = datetime.fromtimestamp(now, UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    return _to_pem([certificate]), key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _certificates(pem: str, field: str) -> list[x509.Certificate]:
    if not pem:
        raise invalid(field, "is required")
    if len(pem) > MAX_BYTES:
        raise invalid(field, f"is {len(pem):,} bytes long: at most {MAX_BYTES:,}")
    if "PRIVATE KEY" in pem:
        raise invalid(field, "holds a private key; give certificates only")
    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        has_certificate = "-----BEGIN CERTIFICATE-----" in pem
        raise invalid(
            field, "holds a certificate that can't be read" if has_certificate else "holds no certificate in PEM"
        ) from None


def _private_key(pem: str, field: str) -> PrivateKey:
    if not pem:
        raise invalid(field, "is required", "KEY_REQUIRED")
    if len(pem) > MAX_BYTES:
        raise invalid(field, f"is {len(pem):,} bytes long: at most {MAX_BYTES:,}")
    try:
        key = load_pem_private_key(pem.encode(), None, unsafe_skip_rsa_key_validation=True)  # see `check_key_numbers`
    except TypeError:
        raise invalid(field, "has a passphrase, which Envoy does not support: remove it") from None
    except (ValueError, UnsupportedAlgorithm):
        raise invalid(field, "is not a readable private key in PEM") from None
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < _RSA_BITS:
            raise invalid(field, f"is RSA of {key.key_size:,} bits: Envoy accepts {_RSA_BITS:,} or more")
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey):
        if not isinstance(key.curve, _CURVES):
            raise invalid(field, f"is ECDSA on {key.curve.name}: Envoy accepts P-256, P-384 and P-521")
        return key
    raise invalid(field, "is neither RSA nor ECDSA: Envoy accepts no other keys")


def _same_key(certificate: x509.Certificate, key: object) -> bool:
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        return False
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        return certificate.public_key().public_bytes(*form) == key.public_key().public_bytes(*form)
    except (ValueError, UnsupportedAlgorithm):
        return False


def _to_pem(certificates: list[x509.Certificate]) -> str:
    return "".join(c.public_bytes(Encoding.PEM).decode() for c in certificates)


def _describe(certificate: x509.Certificate) -> Certificate:
    return Certificate(
        certificate.fingerprint(hashes.SHA256()).hex(),
        _subject(certificate),
        _sans(certificate),
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )


def _subject(certificate: x509.Certificate) -> str:
    try:
        return certificate.subject.rfc4514_string()
    except ValueError:
        return ""


def _sans(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return ()
    return tuple(str(n.value) for n in names if isinstance(n, x509.DNSName | x509.IPAddress | x509.UniformResourceIdentifier))

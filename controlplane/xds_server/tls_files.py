"""The files of TLS on the xDS port: certificate, key, authorities of the clients, revocation list, rules of identities.

They are read again when they change. A file that is missing, half-written or does not fit the others changes nothing: the
last good content of all files stays in use, and the log says what is wrong. All files are taken over together.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog
import yaml
from cryptography import x509
from cryptography.x509.oid import NameOID

from controlplane.errors import Error, invalid
from controlplane.http2.peer import Credential
from controlplane.xds.identity_rules import IdentityRules, parsed

log = structlog.get_logger("xds")

# Seconds between two looks at the files.
INTERVAL = 1.0

# Largest file. Bytes.
_MAX_BYTES = 4 * 1024 * 1024

# Longest identity, that of a SPIFFE ID. Bytes.
MAX_IDENTITY = 2_048

# State of a file that tells if it changed: device, inode, size, time of the change. None: it can't be read.
_Stamp = tuple[int, int, int, int] | None


@dataclass(frozen=True, slots=True)
class TlsPaths:
    """The files of TLS on the xDS port. They are watched."""

    # The server's certificate with its chain, and its key, in PEM.
    certificate: Path
    key: Path
    # The authorities that sign the clients' certificates.
    client_ca: Path
    # The rules of what each identity may claim (`xds/identity_rules.py`).
    identities: Path
    # The lists of revoked certificates of clients; None: nothing is revoked.
    crl: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """Return all files."""
        paths = (self.certificate, self.key, self.client_ca, self.identities)
        return paths if self.crl is None else (*paths, self.crl)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The content of all files."""

    context: ssl.SSLContext
    chain: bytes
    key: bytes
    authorities: bytes
    rules: IdentityRules
    # The numbers of the revoked certificates, as `Credential.serial`.
    revoked: frozenset[str]
    # When the server's certificate begins and ends, in seconds since the epoch.
    validity: tuple[float, float]


class TlsFiles:
    """The newest good content of the files."""

    def __init__(self, files: TlsPaths) -> None:
        """Read the files. Errors: INVALID_ARGUMENT that names the file."""
        self._files = files
        self._stamps = self._look()
        self.loaded = load(files)
        # Grows by one each time that the content is replaced.
        self.generation = 1
        # The end of the newest certificate about which the log has a warning.
        self._warned = 0.0

    @property
    def context(self) -> ssl.SSLContext:
        """Return the context of the next handshake."""
        return self.loaded.context

    def credential(self, certificate: bytes) -> Credential:
        """Return what a client's verified certificate (DER) says. Errors: ValueError when it is revoked or names nobody."""
        credential = read_certificate(x509.load_der_x509_certificate(certificate))
        if credential.serial in self.loaded.revoked:
            raise ValueError("the certificate is revoked")
        return credential

    async def watch(self, changed: Callable[[], None]) -> None:
        """Read the files again when they change, and call `changed` afterwards, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            if self.refresh():
                changed()
            self.warn_of_end(time.time())

    def refresh(self) -> bool:
        """Read the files again if one has changed. Return True if their content is replaced."""
        stamps = self._look()
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        try:
            self.loaded = load(self._files)
        except Error as error:
            log.error("TLS files not taken over; the earlier ones stay in use", error=error.message)
            return False
        self.generation += 1
        log.info("TLS files taken over", generation=self.generation, revoked=len(self.loaded.revoked))
        return True

    def warn_of_end(self, now: float) -> None:
        """Log once if the server's certificate has less than a tenth of its time left: whoever renews it has stopped."""
        start, end = self.loaded.validity
        if end - now < 0.1 * (end - start) and self._warned != end:
            self._warned = end
            when = datetime.fromtimestamp(end, UTC).isoformat(timespec="minutes")
            log.warning("the certificate of the xDS port ends soon", file=str(self._files.certificate), end=when)

    def _look(self) -> list[_Stamp]:
        return [_stamp(path) for path in self._files.paths]


def load(files: TlsPaths) -> Loaded:
    """Read and check all files. Errors: INVALID_ARGUMENT that names the file."""
    chain, key, authorities = (_read(path) for path in (files.certificate, files.key, files.client_ca))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Clients never resume a session here, and each ticket costs a tenth of a handshake.
    context.num_tickets = 0
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    _complete_pem(chain, files.certificate)
    _complete_pem(authorities, files.client_ca)
    _check_key(key, files)
    validity = _validity(chain, files.certificate)
    try:
        context.load_cert_chain(files.certificate, files.key, password=lambda: b"")
    except (ssl.SSLError, OSError, ValueError) as error:
        problem = f"is not the key of the certificate in {files.certificate}: give the two files that were made together"
        raise invalid(str(files.key), f"{problem} ({_reason(error)})") from None
    try:
        context.load_verify_locations(cadata=authorities.decode("ascii", "replace"))
        issuers = x509.load_pem_x509_certificates(authorities)
    except (ssl.SSLError, ValueError) as error:
        raise invalid(str(files.client_ca), f"has no authorities in PEM: {_reason(error)}") from None
    revoked = frozenset[str]() if files.crl is None else _revoked(_read(files.crl), files.crl, issuers)
    return Loaded(context, chain, key, authorities, _rules(files.identities), revoked, validity)


def _check_key(key: bytes, files: TlsPaths) -> None:
    if b"ENCRYPTED" in key:
        problem = "is encrypted, and nobody can type its passphrase when the server starts: write it without one"
        raise invalid(str(files.key), f"{problem}, as with `openssl pkey -in {files.key} -out NEW`")
    if b"PRIVATE KEY-----" not in key:
        raise invalid(str(files.key), f"has no private key in PEM: it must be the key of {files.certificate}")


def _validity(chain: bytes, path: Path) -> tuple[float, float]:
    """Return when the server's certificate begins and ends. Errors: INVALID_ARGUMENT if it is not valid now."""
    try:
        leaf = x509.load_pem_x509_certificates(chain)[0]
    except ValueError as error:
        raise invalid(str(path), f"has no certificate in PEM: {_reason(error)}") from None
    start, end, now = leaf.not_valid_before_utc, leaf.not_valid_after_utc, datetime.now(UTC)
    if end <= now:
        raise invalid(str(path), f"has expired, on {end:%Y-%m-%d at %H:%M} UTC, so no client would accept it: renew it")
    if start > now:
        problem = f"is valid from {start:%Y-%m-%d at %H:%M} UTC on, and here it is {now:%H:%M} on {now:%Y-%m-%d}"
        raise invalid(str(path), f"{problem}: check the clock of this machine")
    return start.timestamp(), end.timestamp()


def read_certificate(certificate: x509.Certificate) -> Credential:
    """Return what a verified certificate says: its SPIFFE ID, else its first DNS name, else its common name.

    Errors: ValueError when it has none of them, or two SPIFFE IDs.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = [u for u in names.get_values_for_type(x509.UniformResourceIdentifier) if u.startswith("spiffe://")]
        found = uris or names.get_values_for_type(x509.DNSName)[:1]
    except x509.ExtensionNotFound:
        found = []
    found = found or [str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[:1]]
    if len(found) != 1 or not found[0]:
        raise ValueError("the certificate has more than one SPIFFE ID" if found else "the certificate names nobody")
    if len(found[0].encode()) > MAX_IDENTITY or not found[0].isprintable():
        raise ValueError(f"the certificate's name has more than {MAX_IDENTITY} bytes or a control character")
    return Credential(
        found[0], certificate.not_valid_after_utc.timestamp(), _number(certificate.issuer, certificate.serial_number)
    )


def _number(issuer: x509.Name, serial: int) -> str:
    return f"{serial:x} {issuer.rfc4514_string()}"


def _revoked(data: bytes, path: Path, issuers: list[x509.Certificate]) -> frozenset[str]:
    _complete_pem(data, path, "X509 CRL")
    found: set[str] = set()
    end = b"-----END X509 CRL-----"
    for block in data.split(end)[:-1]:
        try:
            crl = x509.load_pem_x509_crl(block[block.index(b"-----BEGIN X509 CRL") :] + end + b"\n")
            signed = any(i.subject == crl.issuer and crl.is_signature_valid(i.public_key()) for i in issuers)  # type: ignore[arg-type]
        except (ValueError, TypeError) as error:
            raise invalid(str(path), f"has no revocation lists in PEM: {_reason(error)}") from None
        if not signed:
            raise invalid(
                str(path), f"has a list of {crl.issuer.rfc4514_string()}, which no authority of the clients has signed"
            )
        found.update(_number(crl.issuer, entry.serial_number) for entry in crl)
    return frozenset(found)


def _rules(path: Path) -> IdentityRules:
    try:
        return parsed(yaml.safe_load(_read(path)))
    except yaml.YAMLError as error:
        raise invalid(str(path), f"is not YAML: {_reason(error)}") from None
    except Error as error:
        if error.violations and error.violations[0].field == str(path):
            raise
        raise invalid(str(path), error.message) from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES)
    except OSError as error:
        raise invalid(
            str(path), f"can't be read: {(error.strerror or str(error)).lower()}. It is a file of mutual TLS on the xDS port"
        ) from None


def _complete_pem(data: bytes, path: Path, kind: str = "CERTIFICATE") -> None:
    begun, ended = data.count(f"-----BEGIN {kind}-----".encode()), data.count(f"-----END {kind}-----".encode())
    if begun != ended or not begun:
        raise invalid(str(path), f"is cut off: the end of a {kind} is missing" if begun else f"has no {kind} in PEM")


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error)[:200]


def _stamp(path: Path) -> _Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

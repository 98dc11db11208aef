"""TLS on the port of the operator API: the server's certificate, and the authorities of the clients' certificates.

The files are watched: the next handshake uses their newest content. gRPC's server either asks no client for a certificate, or
requires one of each.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509

from controlplane.api.watched_files import WatchedFiles, read_file
from controlplane.errors import invalid


@dataclass(frozen=True, slots=True)
class ApiTlsPaths:
    """The files of TLS on the API's port."""

    certificate: Path  # with its chain, in PEM
    key: Path
    client_ca: Path | None = None  # None: clients need no certificate


@dataclass(frozen=True, slots=True)
class _Loaded:
    chain: bytes
    key: bytes
    authorities: bytes | None


ApiTls = WatchedFiles[_Loaded]


def api_tls(paths: ApiTlsPaths) -> ApiTls:
    """Return the watched files. Errors: INVALID_ARGUMENT that names the file."""
    files = [path for path in (paths.certificate, paths.key, paths.client_ca) if path is not None]
    return WatchedFiles(files, lambda: _load(paths), "TLS of the API")


def server_credentials(files: ApiTls) -> grpc.ServerCredentials:
    """Return credentials of gRPC's server that follow the files."""
    used = [files.generation]

    def configuration() -> Any:
        loaded = files.content
        return grpc.ssl_server_certificate_configuration([(loaded.key, loaded.chain)], loaded.authorities)

    def fetch() -> Any:
        # gRPC calls this from its own threads at each handshake. It crashes unless it gets None while nothing has changed.
        if used[0] == files.generation:
            return None
        used[0] = files.generation
        return configuration()

    required = files.content.authorities is not None
    return grpc.dynamic_ssl_server_credentials(configuration(), fetch, require_client_authentication=required)


def _load(paths: ApiTlsPaths) -> _Loaded:
    chain, key = read_file(paths.certificate, "api_tls_cert"), read_file(paths.key, "api_tls_key")
    authorities = read_file(paths.client_ca, "api_client_ca") if paths.client_ca is not None else None
    _check_pem(chain, paths.certificate, "api_tls_cert")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(paths.certificate, paths.key, password=lambda: b"")
    except (ssl.SSLError, OSError, ValueError) as error:
        problem = f"{paths.key} and {paths.certificate} are no pair of key and certificate: {_reason(error)}"
        raise invalid("api_tls_key", problem) from None
    if authorities is not None and paths.client_ca is not None:
        _check_pem(authorities, paths.client_ca, "api_client_ca")
    return _Loaded(chain, key, authorities)


def _check_pem(data: bytes, path: Path, setting: str) -> None:
    begun, ended = data.count(b"-----BEGIN CERTIFICATE-----"), data.count(b"-----END CERTIFICATE-----")
    if begun != ended:
        raise invalid(setting, f"{path} is cut off: the end of a certificate is missing")
    try:
        x509.load_pem_x509_certificates(data)
    except ValueError:
        raise invalid(setting, f"{path} has no certificates in PEM") from None


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error)[:200]

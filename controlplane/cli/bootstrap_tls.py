"""The options of `bootstrap` for TLS, and the SDS files that it writes for an Envoy with certificate files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controlplane.cli import messages
from controlplane.cli.exits import cause, file_error
from controlplane.errors import invalid

if TYPE_CHECKING:
    from controlplane.compiler.bootstrap_tls import BootstrapTls, CertificateFiles, SpireAgent

TlsCert = Annotated[
    str, typer.Option("--tls-cert", metavar="FILE", help="The node's certificate for mutual TLS with the control plane.")
]
TlsKey = Annotated[str, typer.Option("--tls-key", metavar="FILE", help="The key of --tls-cert, in the same folder.")]
TlsCa = Annotated[
    str, typer.Option("--tls-ca", metavar="FILE", help="The authorities that sign the control plane's certificate.")
]
SdsDir = Annotated[
    str,
    typer.Option(
        "--sds-dir",
        metavar="DIR",
        help="Folder for the two SDS files that name these files to an Envoy. They are written now, and their paths are in "
        "the bootstrap.",
    ),
]
SpiffeSocket = Annotated[
    str,
    typer.Option(
        "--spiffe-socket", metavar="PATH", help="Instead: the Unix socket of the SPIRE agent that gives the Envoy its SVID."
    ),
]
TlsServerName = Annotated[
    str,
    typer.Option(
        "--tls-server-name",
        metavar="NAME",
        help="The name in the control plane's certificate: a DNS name, an IP address or a SPIFFE ID. Default: the host of "
        "--xds.",
    ),
]

_FILES = ("--tls-cert", "--tls-key", "--tls-ca")


def tls_of(
    host: str, cert: str, key: str, ca: str, sds_dir: str, spiffe_socket: str, server_name: str, *, grpc: bool
) -> BootstrapTls | None:
    """Return the TLS that the options ask for; None without TLS. Errors: INVALID_ARGUMENT that names the option."""
    from controlplane.compiler.bootstrap_tls import BootstrapTls, SpireAgent

    files = (cert, key, ca)
    if grpc:
        for name, value in (("--sds-dir", sds_dir), ("--spiffe-socket", spiffe_socket), ("--tls-server-name", server_name)):
            if value:
                raise invalid(name, "works only for Envoys, not with --client grpc")
    source: CertificateFiles | SpireAgent
    if spiffe_socket:
        for name, value in (*zip(_FILES, files, strict=True), ("--sds-dir", sds_dir)):
            if value:
                raise invalid(
                    name, "the SPIRE agent gives the Envoy its certificates: leave out this option or --spiffe-socket"
                )
        source = SpireAgent(spiffe_socket)
    elif any(files):
        source = _certificate_files(cert, key, ca, sds_dir, grpc=grpc)
    elif sds_dir or server_name:
        raise invalid("--sds-dir" if sds_dir else "--tls-server-name", f"needs {', '.join(_FILES)}, or --spiffe-socket")
    else:
        return None
    return BootstrapTls(source, server_name or host)


def _certificate_files(cert: str, key: str, ca: str, sds_dir: str, *, grpc: bool) -> CertificateFiles:
    from controlplane.compiler.bootstrap_tls import CertificateFiles

    needed = [*zip(_FILES, (cert, key, ca), strict=True), *(() if grpc else (("--sds-dir", sds_dir),))]
    if missing := [name for name, value in needed if not value]:
        raise invalid(
            missing[0], f"is missing: mutual TLS with certificate files needs {', '.join(name for name, _ in needed)}"
        )
    cert, key, ca = (os.path.abspath(path) for path in (cert, key, ca))
    if os.path.dirname(cert) != os.path.dirname(key):
        raise invalid(
            "--tls-key", f"must be in the folder of --tls-cert, {os.path.dirname(cert)}, because Envoy watches one folder"
        )
    return CertificateFiles(cert, key, ca, os.path.abspath(sds_dir) if sds_dir else "")


def files_of(tls: BootstrapTls | None) -> CertificateFiles | None:
    """Return the certificate files; None without some."""
    from controlplane.compiler.bootstrap_tls import CertificateFiles

    return tls.source if tls is not None and isinstance(tls.source, CertificateFiles) else None


def write_sds_files(tls: BootstrapTls | None) -> None:
    """Write the SDS files that a bootstrap names, if it names some. Errors: INVALID_ARGUMENT when that fails."""
    from controlplane.compiler.bootstrap_tls import sds_files

    source = files_of(tls)
    for path, content in sds_files(source).items() if source is not None else ():
        new = Path(f"{path}.new")
        try:
            new.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(messages.yaml_text(content))
            new.rename(path)
        except OSError as error:
            raise file_error(path, 0, f"can't be written: {cause(error)}") from None

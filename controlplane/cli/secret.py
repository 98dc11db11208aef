"""Secrets: certificates set from files, and shown without their keys."""

from __future__ import annotations

import os
import sys
import time
from typing import Annotated

import typer

from controlplane.cli import output
from controlplane.cli.exits import FilesError, Place, Problem
from controlplane.cli.options import DEFAULT_WAIT, Api, Output, Reason, Timeout, connect, request_id, resource
from controlplane.cli.output import Format
from controlplane.cli.receipt import finish
from controlplane.errors import Error, Violation
from controlplane.generated.turnout.v1.revision_service_pb2 import ApplyRequest, Manifest
from controlplane.generated.turnout.v1.secret_pb2 import Certificate, Secret

COLUMNS = ("SECRET", "KIND", "FOR", "EXPIRES", "SHA-256", "REVISION")
MAX_BYTES = 256 * 1024
STDIN = "-"

app = typer.Typer(no_args_is_help=True, help="Certificates and keys: set them.")


@app.command("set")
def set_secret(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    cert: Annotated[str, typer.Option("--cert", metavar="FILE", help="Certificates in PEM, the leaf first.")] = "",
    key: Annotated[
        str, typer.Option("--key", metavar="FILE|-", help="The leaf's private key in PEM. Left out: the one that is kept.")
    ] = "",
    ca: Annotated[str, typer.Option("--ca", metavar="FILE", help="Or certificates of authorities, in PEM.")] = "",
    reason: Reason = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until every connected node holds it.")] = False,
    timeout: Timeout = DEFAULT_WAIT,
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    """Make a secret, or rotate it: new connections use what it is from then on, those that are open go on.

    The key goes to the server, which keeps it sealed, and nobody is shown it again. No listener changes.

    \b
    turnout secret set edge --cert fullchain.pem --key privkey.pem
    pass show tls/edge | turnout secret set edge --cert fullchain.pem --key -
    turnout secret set clients --ca clients-ca.pem --wait
    """
    if bool(cert) == bool(ca):
        raise typer.BadParameter("say either --cert (with --key) or --ca")
    if key and not cert:
        raise typer.BadParameter("goes with --cert", param_hint="--key")
    secret = Secret(name=resource("secrets", name))
    if ca:
        secret.ca_certificates.ca_certificates_pem = _text(ca)
    else:
        secret.tls_certificate.certificate_chain_pem = _text(cert)
        secret.tls_certificate.private_key_pem = _text(key) if key else ""
    client = connect(ctx, api)
    request = ApplyRequest(manifest=Manifest(secrets=[secret]), reason=reason, request_id=request_id())
    try:
        answer = client.call(client.revisions.Apply, request)
    except Error as error:
        raise _as_options(error) from None
    finish(client, answer.revision, answer.impact, form, changed=answer.changed, timeout=timeout if wait else None)


_OPTIONS = {
    "name": "NAME",
    "tls_certificate.certificate_chain_pem": "--cert",
    "tls_certificate.private_key_pem": "--key",
    "ca_certificates.ca_certificates_pem": "--ca",
}


def _as_options(error: Error) -> Error:
    """The same error, its fields called what they are called here."""
    violations = tuple(Violation(_option(v.field), v.description) for v in error.violations)
    message = error.message
    for before, after in zip(error.violations, violations, strict=True):
        message = message.replace(before.field, after.field) if before.field else message
    return Error(error.code, error.reason, message, violations=violations, metadata=error.metadata)


def _option(field: str) -> str:
    inner = field.removeprefix("manifest.").removeprefix("secrets[0].")
    return next((option for path, option in _OPTIONS.items() if inner == path or inner.startswith(f"{path}[")), field)


def row(secret: Secret) -> tuple[str, ...]:
    """A line of the table: the leaf, or the authority that expires first."""
    certificate = _telling(secret)
    kind = (secret.WhichOneof("content") or "").replace("_", " ")
    name = ", ".join(certificate.sans) or certificate.subject
    return secret.name, kind, name, _expires(certificate), certificate.sha256[:16], secret.etag


def described(secret: Secret) -> str:
    """What somebody must know who is to decide about it."""
    certificate = _telling(secret)
    return f"for {', '.join(certificate.sans) or certificate.subject or 'no name'}, {_expires(certificate)}"


def _telling(secret: Secret) -> Certificate:
    if secret.WhichOneof("content") == "tls_certificate":
        return secret.tls_certificate.leaf
    return min(secret.ca_certificates.certificates, key=lambda c: c.not_after.seconds, default=Certificate())


def _expires(certificate: Certificate) -> str:
    left = certificate.not_after.seconds - time.time()
    when = output.when(certificate.not_after)
    if left < 0:
        return f"expired {when}"
    return f"{when} ({int(left // 86_400)}d)"


def _text(name: str) -> str:
    """A file, or standard input. Errors: FilesError, that quotes nothing of it."""
    shown = "<stdin>" if name == STDIN else name
    try:
        if name == STDIN:
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(MAX_BYTES + 1)
    except OSError as error:
        said = f"can't be read: {(error.strerror or os.strerror(error.errno or 0)).lower()}"
        raise FilesError([Problem(Place(shown, 0), "", said)]) from None
    if len(data) > MAX_BYTES:
        raise FilesError([Problem(Place(shown, 0), "", f"is more than {MAX_BYTES // 1024} KB: no certificate, no key")])
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        raise FilesError([Problem(Place(shown, 0), "", "is not PEM: it holds other bytes than text")]) from None

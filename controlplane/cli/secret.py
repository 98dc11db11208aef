"""The commands `secret …`: certificates, keys and opaque values from files. Keys and values are never printed."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from controlplane.cli import messages, output, wording
from controlplane.cli.confirm import Yes, confirm
from controlplane.cli.cuts import AllowCut, CutToken, cut_fields
from controlplane.cli.exits import file_error, unreadable, with_fields
from controlplane.cli.options import (
    DEFAULT_WAIT,
    Api,
    Output,
    Reason,
    Require,
    Requirement,
    Timeout,
    Wait,
    connect,
    help_text,
    request_id,
    resource,
)
from controlplane.cli.output import Format
from controlplane.cli.receipt import finish
from controlplane.cli.shared_options import with_shared_options
from controlplane.cli.wording import plural
from controlplane.errors import Error
from controlplane.generated.turnout.v1.revision_service_pb2 import ApplyRequest, Manifest
from controlplane.generated.turnout.v1.secret_pb2 import Certificate, Secret
from controlplane.generated.turnout.v1.secret_service_pb2 import PurgeKeysRequest

COLUMNS = ("SECRET", "KIND", "FOR", "EXPIRES", "SHA-256", "REVISION")
MAX_BYTES = 256 * 1024
STDIN = "-"

app = typer.Typer(no_args_is_help=True, help="Set certificates, keys and API keys.")


def set_secret(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="The secret's name.")],
    cert: Annotated[str, typer.Option("--cert", metavar="FILE", help="The certificate chain in PEM, the leaf first.")] = "",
    key: Annotated[
        str, typer.Option("--key", metavar="FILE|-", help="The leaf's private key in PEM. Default: the stored key stays.")
    ] = "",
    ca: Annotated[str, typer.Option("--ca", metavar="FILE", help="Instead: CA certificates, in PEM.")] = "",
    value: Annotated[
        str,
        typer.Option(
            "--value", metavar="FILE|-", help="Instead: an opaque value, such as an API key. A last line end is cut."
        ),
    ] = "",
    allow_cut: AllowCut = False,
    cut_token: CutToken = "",
    reason: Reason = "",
    wait: Wait = False,
    timeout: Timeout = DEFAULT_WAIT,
    require: Require = Requirement.KNOWN,
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    r"""Create or rotate a secret.

    New connections use a certificate, and new requests an opaque value; open connections continue. No listener changes. The
    server stores a private key or an opaque value sealed (encrypted) and never shows it again.

    \b
    turnout secret set edge --cert fullchain.pem --key privkey.pem
    pass show tls/edge | turnout secret set edge --cert fullchain.pem --key -
    turnout secret set clients --ca clients-ca.pem --wait
    pass show openai | turnout secret set openai --value -

    JSON: ApplyResponse. With --wait also `progress` (RevisionProgress) and `disconnectedNodes` (list of Node).
    """
    if sum(map(bool, (cert, ca, value))) != 1:
        raise typer.BadParameter("give one of --cert (with --key), --ca and --value")
    if key and not cert:
        raise typer.BadParameter("needs --cert", param_hint="--key")
    secret = Secret(name=resource("secrets", name))
    if ca:
        secret.ca_certificates.ca_certificates_pem = _text(ca)
    elif value:
        secret.opaque.value = _text(value).removesuffix("\n").removesuffix("\r")
        if not secret.opaque.value:
            raise file_error("<stdin>" if value == STDIN else value, 0, "is empty: it must have the value of the secret")
    else:
        secret.tls_certificate.certificate_chain_pem = _text(cert)
        secret.tls_certificate.private_key_pem = _text(key) if key else ""
    client = connect(ctx, api)
    cut = cut_fields(allow_cut, cut_token)
    request = ApplyRequest(manifest=Manifest(secrets=[secret]), reason=reason, request_id=request_id(), **cut)
    try:
        answer = client.call(client.revisions.Apply, request)
    except Error as error:
        raise with_fields(error, _option) from None
    finish(client, answer, form, changed=answer.changed, timeout=timeout if wait else None, require=require)


app.command("set", help=help_text(set_secret))(with_shared_options(set_secret))


def purge(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="The secret's name; it may be deleted.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the keys, and remove none.")] = False,
    yes: Yes = False,
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    r"""Remove the withdrawn private keys or values of a secret from the server's store.

    Withdrawn is what the newest revision does not use: it was replaced, or the secret was deleted. Nothing brings it back: a
    `revert` that would fails (KEY_PURGED). The key in use stays. Without this command, the server purges withdrawn keys after
    30 days (`turnout serve --keep-withdrawn-keys`). Backups that were made before still have them, sealed.

    \b
    turnout secret set edge --cert new.pem --key new-key.pem --wait
    turnout secret purge edge

    JSON: PurgeKeysResponse.
    """
    client = connect(ctx, api)
    secrets = client.service("secret", "SecretServiceStub")
    request = PurgeKeysRequest(name=resource("secrets", name), validate_only=True)
    answer = client.call(secrets.PurgeKeys, request)
    if answer.keys and not dry_run:
        if not yes:
            confirm(f"Purge {plural(len(answer.keys), 'withdrawn key')} of {request.name}? Nothing can bring them back.")
        request.validate_only = False
        answer = client.call(secrets.PurgeKeys, request)
    if form is Format.NAME:
        for key in answer.keys:
            output.print_name(key.id)
    elif form is not Format.TABLE:
        messages.print_data(messages.report(answer, form), form)
    elif not answer.keys:
        output.line(f"{request.name} has no withdrawn key.")
    else:
        output.show(output.table(("KEY", "WITHDRAWN"), [(key.id, wording.when(key.withdraw_time)) for key in answer.keys]))
        output.line("Nothing was purged." if dry_run else f"Purged {plural(len(answer.keys), 'key')}.")


app.command("purge", help=help_text(purge))(with_shared_options(purge))

_OPTIONS = {
    "name": "NAME",
    "tls_certificate.certificate_chain_pem": "--cert",
    "tls_certificate.private_key_pem": "--key",
    "ca_certificates.ca_certificates_pem": "--ca",
    "opaque.value": "--value",
}


def _option(field: str) -> str:
    """Return the option that stands for a field of the request."""
    inner = field.removeprefix("manifest.").removeprefix("secrets[0].")
    return next((option for path, option in _OPTIONS.items() if inner == path or inner.startswith(f"{path}[")), field)


def row(secret: Secret) -> tuple[str, ...]:
    """Return a row of the table, for the leaf, or for the authority that expires first."""
    kind = (secret.WhichOneof("content") or "").replace("_", " ")
    if kind == "opaque":
        return secret.name, kind, "", "", "", wording.revision_of(secret.etag)
    certificate = _main_certificate(secret)
    name = ", ".join(certificate.sans) or certificate.subject
    return secret.name, kind, name, _expires(certificate), certificate.sha256[:16], wording.revision_of(secret.etag)


def describe(secret: Secret) -> str:
    """Return what an operator must know before deleting the secret."""
    if secret.WhichOneof("content") == "opaque":
        return "an opaque value"
    certificate = _main_certificate(secret)
    return f"for {', '.join(certificate.sans) or certificate.subject or 'no name'}, {_expires(certificate)}"


def _main_certificate(secret: Secret) -> Certificate:
    if secret.WhichOneof("content") == "tls_certificate":
        return secret.tls_certificate.leaf
    return min(secret.ca_certificates.certificates, key=lambda c: c.not_after.seconds, default=Certificate())


def _expires(certificate: Certificate) -> str:
    remaining = certificate.not_after.seconds - time.time()
    when = wording.when(certificate.not_after)
    if remaining < 0:
        return f"expired {when}"
    return f"{when} ({int(remaining // 86_400)}d)"


def _text(name: str) -> str:
    """Return the text of a file, or of standard input. Errors: FilesError, which never quotes the text."""
    file = "<stdin>" if name == STDIN else name
    try:
        if name == STDIN:
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with open(name, "rb") as opened:
                data = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise unreadable(file, error) from None
    if len(data) > MAX_BYTES:
        raise file_error(file, 0, f"is larger than {MAX_BYTES // 1024} KB: not a certificate, a key or a value")
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        raise file_error(file, 0, "is not PEM or the value of a header: it contains bytes that are not ASCII text") from None

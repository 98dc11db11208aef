"""Desired state: apply, validate, get, delete."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

from controlplane.cli import complete, envoy, fleet, history, listing, output, secret
from controlplane.cli.client import Client
from controlplane.cli.exits import Exit
from controlplane.cli.files import Loaded, load
from controlplane.cli.options import (
    DEFAULT_WAIT,
    Api,
    Files,
    Output,
    Reason,
    Timeout,
    connect,
    request_id,
    resource,
)
from controlplane.cli.output import Format, line, plural
from controlplane.cli.receipt import finish
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1.gateway_pb2 import Gateway
from controlplane.generated.turnout.v1.gateway_service_pb2 import DeleteGatewayRequest, GetGatewayRequest
from controlplane.generated.turnout.v1.model_pb2 import Model
from controlplane.generated.turnout.v1.model_service_pb2 import DeleteModelRequest, GetModelRequest
from controlplane.generated.turnout.v1.revision_service_pb2 import (
    ApplyRequest,
    ApplyResponse,
    DiffRevisionsRequest,
    GetRevisionRequest,
    Manifest,
)
from controlplane.generated.turnout.v1.secret_pb2 import Secret
from controlplane.generated.turnout.v1.secret_service_pb2 import DeleteSecretRequest, GetSecretRequest


class Kind(StrEnum):
    """What `get` can show; the singular means the same."""

    GATEWAYS = "gateways"
    MODELS = "models"
    SECRETS = "secrets"
    NODES = "nodes"
    REVISIONS = "revisions"
    ALL = "all"


def apply(
    ctx: typer.Context,
    files: Files,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, show what would change, change nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also where it moves traffic that is live.")] = False,
    reason: Reason = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until every connected node holds it.")] = False,
    timeout: Timeout = DEFAULT_WAIT,
    validate_with_envoy: Annotated[
        bool, typer.Option("--validate-with-envoy", help="First ask an Envoy that is installed here whether it takes it.")
    ] = False,
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    """Make objects as files say: one revision, all or nothing.

    Objects that no file names stay as they are. A split that a file leaves out stays as it is live; one that moves live
    traffic needs --force, or the model's etag in the file.

    \b
    turnout apply -f models.yaml
    turnout apply -f models/ -f gateway.yaml --dry-run
    turnout get all -o yaml | sed 's/:8001/:8002/' | turnout apply -f - --wait
    """
    loaded = load(files)
    client = connect(ctx, api)
    if validate_with_envoy:
        _ask_envoy(client, loaded)
    if dry_run:
        _dry_run(client, loaded, force, form)
        return
    request = ApplyRequest(manifest=loaded.manifest, force=force, reason=reason, request_id=request_id())
    answer = _apply(client, loaded, request)
    finish(client, answer.revision, answer.impact, form, changed=answer.changed, timeout=timeout if wait else None)


def validate(
    ctx: typer.Context,
    files: Files,
    offline: Annotated[bool, typer.Option("--offline", help="Without a server: the files alone, not what is live.")] = False,
    validate_with_envoy: Annotated[
        bool, typer.Option("--with-envoy", help="Also ask an Envoy that is installed here whether it takes it.")
    ] = False,
    api: Api = None,
) -> None:
    """Check files, and change nothing.

    The server checks them against what is live, as `apply --dry-run` does. Offline, they are checked as if nothing else
    existed: the form, every field, and that the objects fit together.

    \b
    turnout validate -f models.yaml
    turnout validate -f models/ --offline
    """
    loaded = load(files)
    found = f"{plural(len(loaded.manifest.gateways), 'gateway')}, {plural(len(loaded.manifest.models), 'model')}"
    if loaded.manifest.secrets:
        found += f", {plural(len(loaded.manifest.secrets), 'secret')}"
    if offline:
        # The only use of the server's code: the same translation and the same nouns, without a server.
        from controlplane.cli.offline import check

        try:
            check(loaded.manifest)
        except Error as error:
            raise loaded.located(error) from None
        line(f"Valid: {found}. Not checked: whether it fits what is live.")
        return
    client = connect(ctx, api)
    _apply(client, loaded, ApplyRequest(manifest=loaded.manifest, force=True, validate_only=True))
    if validate_with_envoy:
        _ask_envoy(client, loaded)
    line(f"Valid: {found}.")


def get(
    ctx: typer.Context,
    kind: Annotated[str, typer.Argument(metavar="gateways|models|secrets|nodes|revisions|all", show_default=False)],
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]", show_default=False)] = None,
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    """Show what there is.

    YAML and JSON of gateways, models, secrets and all are in the form that `apply` reads. Private keys are never shown; what
    is applied without one keeps the one that is kept.

    \b
    turnout get models
    turnout get model iris -o yaml
    turnout get all -o yaml > backup.yaml
    turnout get revision 12 -o json
    """
    chosen = next((k for k in Kind if kind in (k.value, k.value.removesuffix("s"))), None)
    if chosen is None:
        raise typer.BadParameter(f"'{kind}' is none of: {', '.join(Kind)}")
    client = connect(ctx, api)
    match chosen:
        case Kind.NODES:
            fleet.show_nodes(client, names or [], form)
        case Kind.REVISIONS:
            history.show_revisions(client, names or [], form)
        case Kind.ALL:
            _show(_everything(client), form, Kind.GATEWAYS, Kind.MODELS, Kind.SECRETS)
        case Kind.GATEWAYS:
            gateways = [
                client.call(client.gateways.GetGateway, GetGatewayRequest(name=resource("gateways", n))).gateway
                for n in names or []
            ]
            _show(Manifest(gateways=gateways if names else listing.gateways(client)), form, Kind.GATEWAYS)
        case Kind.MODELS:
            models = [
                client.call(client.models.GetModel, GetModelRequest(name=resource("models", n))).model for n in names or []
            ]
            _show(Manifest(models=models if names else listing.models(client)), form, Kind.MODELS)
        case Kind.SECRETS:
            secrets = [
                client.call(client.secrets.GetSecret, GetSecretRequest(name=resource("secrets", n))).secret
                for n in names or []
            ]
            _show(Manifest(secrets=secrets if names else listing.secrets(client)), form, Kind.SECRETS)


def delete(
    ctx: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(metavar="models/NAME|gateways/NAME|secrets/NAME", show_default=False, autocompletion=complete.objects),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Don't ask, and delete it whatever became of it meanwhile.")] = False,
    reason: Reason = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until every connected node holds it.")] = False,
    timeout: Timeout = DEFAULT_WAIT,
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    """Delete models, gateways and secrets: one revision, all or nothing.

    Shows what is live, and asks. Requests for a deleted model are answered 404.

    \b
    turnout delete models/iris
    turnout delete models/iris gateways/edge --yes --reason "end of life"
    """
    for name in names:
        if name.count("/") != 1 or not name.startswith(("models/", "gateways/", "secrets/")):
            raise typer.BadParameter(
                f"say models/{name} or gateways/{name}" if "/" not in name else f"'{name}' is no model, gateway or secret"
            )
    client = connect(ctx, api)
    objects = [_read(client, name) for name in names]
    if not (yes or force):
        _confirm(objects)
    if len(objects) == 1:
        # One is deleted as it was looked at; several, in one revision, whatever they are.
        number = _delete_one(client, objects[0], "" if force else objects[0].etag, force, reason)
        revision = client.call(client.revisions.GetRevision, GetRevisionRequest(name=f"revisions/{number}")).revision
        between = DiffRevisionsRequest(to=f"revisions/{number}", **{"from": f"revisions/{number - 1}"})
        impact = client.call(client.revisions.DiffRevisions, between).impact
        answer = ApplyResponse(revision=revision, impact=impact)
    else:
        request = ApplyRequest(delete_names=names, force=True, reason=reason, request_id=request_id())
        answer = client.call(client.revisions.Apply, request)
    finish(client, answer.revision, answer.impact, form, changed=True, timeout=timeout if wait else None)


def _everything(client: Client) -> Manifest:
    """Desired state as of one revision; empty before the first."""
    try:
        request = GetRevisionRequest(name="revisions/latest", include_manifest=True)
        return client.call(client.revisions.GetRevision, request).manifest
    except Error as error:
        if error.code is not Code.NOT_FOUND:
            raise
        return Manifest()


def _apply(client: Client, loaded: Loaded, request: ApplyRequest) -> ApplyResponse:
    try:
        return client.call(client.revisions.Apply, request)
    except Error as error:
        raise loaded.located(error) from None


def _dry_run(client: Client, loaded: Loaded, force: bool, form: Format) -> None:
    needs_force = ""
    try:
        answer = client.call(client.revisions.Apply, ApplyRequest(manifest=loaded.manifest, force=force, validate_only=True))
    except Error as error:
        if error.reason != "MOVES_TRAFFIC":
            raise loaded.located(error) from None
        # Everything else about it is worth seeing all the same.
        needs_force = error.message
        answer = _apply(client, loaded, ApplyRequest(manifest=loaded.manifest, force=True, validate_only=True))
    if form is Format.TABLE:
        if answer.changed:
            output.changes(answer.revision.changes)
            line(f"Envoys would be sent: {output.impact(answer.impact)}")
            output.warnings(answer.impact)
            line("A dry run: nothing is changed.")
        else:
            line(f"Nothing would change: revision {answer.revision.number} is like this already.")
        if needs_force:
            line(f"To apply it, say --force: {needs_force}", "yellow")
    elif form is Format.NAME:
        for change in answer.revision.changes:
            output.raw(change.name)
    else:
        output.data(output.as_report(answer) | {"needs_force": bool(needs_force)}, form)


def _ask_envoy(client: Client, loaded: Loaded) -> None:
    request = ApplyRequest(manifest=loaded.manifest, force=True, validate_only=True, include_bootstraps=True)
    bootstraps = list(_apply(client, loaded, request).bootstraps)
    version = envoy.validate(bootstraps)
    output.notice(f"{version} takes it ({plural(len(bootstraps), 'set')} of gateways)")


def _read(client: Client, name: str) -> Model | Gateway | Secret:
    if name.startswith("models/"):
        return client.call(client.models.GetModel, GetModelRequest(name=name)).model
    if name.startswith("secrets/"):
        return client.call(client.secrets.GetSecret, GetSecretRequest(name=name)).secret
    return client.call(client.gateways.GetGateway, GetGatewayRequest(name=name)).gateway


def _delete_one(client: Client, obj: Model | Gateway | Secret, etag: str, force: bool, reason: str) -> int:
    if isinstance(obj, Model):
        deletion = DeleteModelRequest(name=obj.name, etag=etag, force=force, reason=reason, request_id=request_id())
        return client.call(client.models.DeleteModel, deletion).revision
    if isinstance(obj, Secret):
        gone = DeleteSecretRequest(name=obj.name, etag=etag, reason=reason, request_id=request_id())
        return client.call(client.secrets.DeleteSecret, gone).revision
    end = DeleteGatewayRequest(name=obj.name, etag=etag, reason=reason, request_id=request_id())
    return client.call(client.gateways.DeleteGateway, end).revision


def _confirm(objects: list[Model | Gateway | Secret]) -> None:
    for obj in objects:
        output.notice(f"{obj.name}: {_live(obj)}")
    if not sys.stdin.isatty():
        raise typer.BadParameter("nobody can be asked here; --yes deletes without asking", param_hint="--yes")
    if not typer.confirm(f"Delete {plural(len(objects), 'object')}?", err=True):
        raise typer.Exit(Exit.INTERRUPTED)


def _live(obj: Model | Gateway | Secret) -> str:
    if isinstance(obj, Secret):
        return secret.described(obj)
    if isinstance(obj, Model):
        return f"live at {', '.join(obj.gateways)}, {output.split(obj.split)}"
    return f"listens on {obj.address}:{obj.port}"


def _show(manifest: Manifest, form: Format, *kinds: Kind) -> None:
    """Objects; as data, lists of the kinds that were asked for are there also when they are empty."""
    if form is Format.NAME:
        names = (*(g.name for g in manifest.gateways), *(m.name for m in manifest.models), *(s.name for s in manifest.secrets))
        for name in names:
            output.raw(name)
    elif form is not Format.TABLE:
        output.data({kind.value: [] for kind in kinds} | output.as_object(manifest), form)
    else:
        tables = [
            output.table(columns, rows)
            for objects, columns, rows in (
                (
                    manifest.gateways,
                    ("GATEWAY", "LISTENS ON", "ROUTES BY", "NODES", "REVISION"),
                    map(_gateway_row, manifest.gateways),
                ),
                (manifest.models, ("MODEL", "TRAFFIC", "VERSIONS", "GATEWAYS", "REVISION"), map(_model_row, manifest.models)),
                (manifest.secrets, secret.COLUMNS, map(secret.row, manifest.secrets)),
            )
            if objects
        ]
        for i, table in enumerate(tables):
            if i:
                line()
            output.show(table)
        if not tables:
            output.notice("there is nothing yet; `turnout apply -f FILE` makes it")


def _gateway_row(gateway: Gateway) -> tuple[str, ...]:
    match gateway.WhichOneof("routing"):
        case "header":
            routing = f"header {gateway.header.name}"
        case "host":
            routing = "host"
        case _:
            routing = f"path segment {gateway.path.segment or 3}"
    nodes = gateway.nodes
    chosen = [*nodes.clusters, *nodes.ids, *(f"{k}={v}" for k, v in sorted(nodes.metadata.items()))]
    address = f"{gateway.address}:{gateway.port}" + (" (TLS)" if gateway.HasField("tls") else "")
    return gateway.name, address, routing, ", ".join(chosen) or "all", gateway.etag


def _model_row(model: Model) -> tuple[str, ...]:
    versions = ", ".join(f"{v.name} ({len(v.endpoints)})" for v in model.versions)
    gateways = ", ".join(g.removeprefix("gateways/") for g in model.gateways)
    return model.name, output.split(model.split), versions, gateways, model.etag

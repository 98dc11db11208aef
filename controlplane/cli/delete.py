"""The command `delete`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from controlplane.cli import complete, output, secret, wording
from controlplane.cli.client import Client
from controlplane.cli.exits import Exit
from controlplane.cli.options import DEFAULT_WAIT, Api, Output, Reason, Timeout, Wait, connect, request_id
from controlplane.cli.output import Format
from controlplane.cli.receipt import finish
from controlplane.cli.wording import plural
from controlplane.domain.collections import COLLECTIONS, alternatives, parse_name
from controlplane.generated.turnout.v1.gateway_pb2 import Gateway
from controlplane.generated.turnout.v1.gateway_service_pb2 import DeleteGatewayRequest, GetGatewayRequest
from controlplane.generated.turnout.v1.model_pb2 import Model
from controlplane.generated.turnout.v1.model_service_pb2 import DeleteModelRequest, GetModelRequest
from controlplane.generated.turnout.v1.revision_service_pb2 import (
    ApplyRequest,
    ApplyResponse,
    DiffRevisionsRequest,
    GetRevisionRequest,
)
from controlplane.generated.turnout.v1.secret_pb2 import Secret
from controlplane.generated.turnout.v1.secret_service_pb2 import DeleteSecretRequest, GetSecretRequest

Object = Model | Gateway | Secret


def delete(
    ctx: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="models/NAME|gateways/NAME|secrets/NAME",
            show_default=False,
            autocompletion=complete.objects,
            help="The objects to delete.",
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask for confirmation.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Don't ask, and ignore changes since the object was read.")] = False,
    reason: Reason = "",
    wait: Wait = False,
    timeout: Timeout = DEFAULT_WAIT,
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    r"""Delete models, gateways and secrets: one revision, all or nothing.

    Shows what is live and asks for confirmation. Envoys answer requests for a deleted model with 404.

    \b
    turnout delete models/iris
    turnout delete models/iris gateways/edge --yes --reason "end of life"

    JSON: ApplyResponse. With --wait also `progress` (RevisionProgress) and `disconnectedNodes` (list of Node).
    """
    for name in names:
        if "/" not in name:
            full_names = ", ".join(row.resource_name(name) for row in COLLECTIONS)
            raise typer.BadParameter(f"'{name}' has no kind: write one of {full_names}")
        if name.count("/") != 1 or parse_name(name) is None:
            raise typer.BadParameter(f"'{name}' is not a {alternatives()}")
    client = connect(ctx, api)
    objects = [_read(client, name) for name in names]
    if not (yes or force):
        _confirm(objects)
    if len(objects) == 1:
        answer = _delete_one(client, objects[0], force, reason)
    else:
        # One call deletes several objects in one revision. It takes no etags.
        request = ApplyRequest(delete_names=names, force=True, reason=reason, request_id=request_id())
        answer = client.call(client.revisions.Apply, request)
    finish(client, answer, form, changed=True, timeout=timeout if wait else None)


def _read(client: Client, name: str) -> Object:
    if name.startswith("models/"):
        return client.call(client.models.GetModel, GetModelRequest(name=name)).model
    if name.startswith("secrets/"):
        return client.call(client.secrets.GetSecret, GetSecretRequest(name=name)).secret
    return client.call(client.gateways.GetGateway, GetGatewayRequest(name=name)).gateway


def _delete_one(client: Client, obj: Object, force: bool, reason: str) -> ApplyResponse:
    """Delete one object, if it is still as it was read (or with `force`), and read the revision that did it."""
    number = _deleting_revision(client, obj, "" if force else obj.etag, force, reason)
    revision = client.call(client.revisions.GetRevision, GetRevisionRequest(name=f"revisions/{number}")).revision
    before_and_after = DiffRevisionsRequest(to=f"revisions/{number}", **{"from": f"revisions/{number - 1}"})
    impact = client.call(client.revisions.DiffRevisions, before_and_after).impact
    return ApplyResponse(revision=revision, impact=impact)


def _deleting_revision(client: Client, obj: Object, etag: str, force: bool, reason: str) -> int:
    """Delete the object, and return the number of the new revision."""
    if isinstance(obj, Model):
        model_request = DeleteModelRequest(name=obj.name, etag=etag, force=force, reason=reason, request_id=request_id())
        return client.call(client.models.DeleteModel, model_request).revision
    if isinstance(obj, Secret):
        secret_request = DeleteSecretRequest(name=obj.name, etag=etag, reason=reason, request_id=request_id())
        return client.call(client.secrets.DeleteSecret, secret_request).revision
    gateway_request = DeleteGatewayRequest(name=obj.name, etag=etag, reason=reason, request_id=request_id())
    return client.call(client.gateways.DeleteGateway, gateway_request).revision


def _confirm(objects: list[Object]) -> None:
    for obj in objects:
        output.notice(f"{obj.name}: {_describe(obj)}")
    if not sys.stdin.isatty():
        raise typer.BadParameter("needed here, because there is no terminal to ask for confirmation", param_hint="--yes")
    if not typer.confirm(f"Delete {plural(len(objects), 'object')}?", err=True):
        raise typer.Exit(Exit.INTERRUPTED)


def _describe(obj: Object) -> str:
    if isinstance(obj, Secret):
        return secret.describe(obj)
    if isinstance(obj, Model):
        return f"live at {', '.join(obj.gateways)}, {wording.split(obj.split)}"
    return f"listens on {obj.address}:{obj.port}"

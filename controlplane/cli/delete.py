"""The command `delete`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from controlplane import domain
from controlplane.cli import complete, objects, output, secret, wording
from controlplane.cli.client import Client
from controlplane.cli.confirm import Yes, confirm
from controlplane.cli.options import DEFAULT_WAIT, Api, Output, Reason, Timeout, Wait, connect, request_id
from controlplane.cli.output import Format
from controlplane.cli.receipt import finish
from controlplane.cli.wording import plural
from controlplane.domain.collections import COLLECTIONS, Collection, alternatives, parse_name
from controlplane.generated.turnout.v1.gateway_pb2 import Gateway
from controlplane.generated.turnout.v1.model_pb2 import Model
from controlplane.generated.turnout.v1.revision_service_pb2 import (
    ApplyRequest,
    ApplyResponse,
    DiffRevisionsRequest,
    GetRevisionRequest,
)
from controlplane.generated.turnout.v1.secret_pb2 import Secret

# The help names models first, because they are deleted most often.
_MODELS_FIRST = sorted(COLLECTIONS, key=lambda row: row.noun is not domain.Model)


def delete(
    ctx: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="|".join(row.resource_name("NAME") for row in _MODELS_FIRST),
            show_default=False,
            autocompletion=complete.objects,
            help="The objects to delete.",
        ),
    ],
    yes: Yes = False,
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
    rows = [_row(name) for name in names]
    client = connect(ctx, api)
    live = [objects.get(client, row, name) for row, name in zip(rows, names, strict=True)]
    if not (yes or force):
        _ask(live)
    if len(live) == 1:
        answer = _delete_one(client, rows[0], live[0], force, reason)
    else:
        # One call deletes several objects in one revision. It takes no etags.
        request = ApplyRequest(delete_names=names, force=True, reason=reason, request_id=request_id())
        answer = client.call(client.revisions.Apply, request)
    finish(client, answer, form, changed=True, timeout=timeout if wait else None)


def _row(name: str) -> Collection:
    """Return the row of the noun that a full name belongs to. Errors: BadParameter."""
    if "/" not in name:
        full_names = ", ".join(row.resource_name(name) for row in COLLECTIONS)
        raise typer.BadParameter(f"'{name}' has no kind: write one of {full_names}")
    parsed = parse_name(name) if name.count("/") == 1 else None
    if parsed is None:
        raise typer.BadParameter(f"'{name}' is not a {alternatives()}")
    return parsed[0]


def _delete_one(client: Client, row: Collection, obj: Any, force: bool, reason: str) -> ApplyResponse:
    """Delete one object, if it is still as it was read (or with `force`), and read the revision that did it."""
    number = objects.delete(client, row, obj.name, "" if force else obj.etag, force=force, reason=reason)
    revision = client.call(client.revisions.GetRevision, GetRevisionRequest(name=f"revisions/{number}")).revision
    before_and_after = DiffRevisionsRequest(to=f"revisions/{number}", **{"from": f"revisions/{number - 1}"})
    impact = client.call(client.revisions.DiffRevisions, before_and_after).impact
    return ApplyResponse(revision=revision, impact=impact)


def _ask(live: Sequence[Any]) -> None:
    for obj in live:
        output.notice(f"{obj.name}: {_describe(obj)}")
    confirm(f"Delete {plural(len(live), 'object')}?")


def _describe(obj: Any) -> str:
    """Return what an operator must know before deleting an object."""
    match obj:
        case Secret():
            return secret.describe(obj)
        case Model():
            return f"live at {', '.join(obj.gateways)}, {wording.split(obj.split)}"
        case Gateway():
            return f"listens on {obj.address}:{obj.port}"
        case _:
            return f"as of revision {wording.revision_of(obj.etag)}"

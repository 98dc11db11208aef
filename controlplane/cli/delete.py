"""The command `delete`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from controlplane.cli import complete, names, objects, output, secret, wording
from controlplane.cli.client import Client
from controlplane.cli.confirm import Yes, confirm
from controlplane.cli.cuts import AllowCut, CutFields, CutToken, cut_fields, loss_lines
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
    request_id,
)
from controlplane.cli.output import Format
from controlplane.cli.receipt import finish
from controlplane.cli.wording import plural
from controlplane.domain.collections import BY_NAME, COLLECTIONS, Collection
from controlplane.generated.turnout.v1.gateway_pb2 import Gateway
from controlplane.generated.turnout.v1.model_pb2 import Model
from controlplane.generated.turnout.v1.revision_pb2 import Impact
from controlplane.generated.turnout.v1.revision_service_pb2 import (
    ApplyRequest,
    ApplyResponse,
    GetRevisionRequest,
)
from controlplane.generated.turnout.v1.secret_pb2 import Secret


def delete(
    ctx: typer.Context,
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="KIND/NAME",
            show_default=False,
            autocompletion=complete.objects,
            help="The objects to delete: models/NAME, gateways/NAME, secrets/NAME; or a kind and names.",
        ),
    ],
    yes: Yes = False,
    force: Annotated[bool, typer.Option("--force", help="Don't ask, and ignore changes since the object was read.")] = False,
    allow_cut: AllowCut = False,
    cut_token: CutToken = "",
    reason: Reason = "",
    wait: Wait = False,
    timeout: Timeout = DEFAULT_WAIT,
    require: Require = Requirement.KNOWN,
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    r"""Delete models, gateways and secrets: one revision, all or nothing.

    Shows what is live and asks for confirmation. Envoys answer requests for a deleted model with 404, so deleting what
    connected nodes serve needs --allow-cut.

    \b
    turnout delete models/iris
    turnout delete models/iris gateways/edge --allow-cut --yes --reason "end of life"

    JSON: ApplyResponse. With --wait also `progress` (RevisionProgress) and `disconnectedNodes` (list of Node).
    """
    rows = _rows(arguments)
    client = connect(ctx, api)
    live = [objects.get(client, row, name) for row, name in rows]
    cut = cut_fields(allow_cut, cut_token)
    if not (yes or force):
        impact = _preview(client, rows)
        # Without the permission there is nothing to ask: the server refuses the deletion, and says what would be lost.
        if cut["allow_cut"] or not impact.losses:
            _ask(live, impact)
            cut = cut_fields(bool(impact.losses), impact.cut_token)
    if len(live) == 1:
        answer = _delete_one(client, rows[0][0], live[0], force, reason, cut)
    else:
        # One call deletes several objects in one revision, if they are still as they were read.
        etags = {} if force else {obj.name: obj.etag for obj in live}
        request = ApplyRequest(
            delete_names=[name for _, name in rows],
            delete_etags=etags,
            force=force,
            reason=reason,
            request_id=request_id(),
            **cut,
        )
        answer = client.call(client.revisions.Apply, request)
    finish(client, answer, form, changed=True, timeout=timeout if wait else None, require=require)


def _rows(arguments: Sequence[str]) -> list[tuple[Collection, str]]:
    """Return the noun and the full name of each object. Errors: BadParameter."""
    if len(arguments) == 1 and "/" not in arguments[0]:
        full_names = ", ".join(row.resource_name(arguments[0]) for row in COLLECTIONS)
        raise typer.BadParameter(f"'{arguments[0]}' has no kind: write one of {full_names}")
    named = names.parse(arguments, names.object_kinds())
    return [(BY_NAME[kind], BY_NAME[kind].resource_name(label)) for kind, labels in named.items() for label in labels]


def _delete_one(client: Client, row: Collection, obj: Any, force: bool, reason: str, cut: CutFields) -> ApplyResponse:
    """Delete one object, if it is still as it was read (or with `force`), and read the revision that did it."""
    answer = objects.delete(client, row, obj.name, "" if force else obj.etag, force=force, reason=reason, **cut)
    request = GetRevisionRequest(name=f"revisions/{answer.revision}")
    return ApplyResponse(revision=client.call(client.revisions.GetRevision, request).revision, impact=answer.impact)


def _preview(client: Client, rows: Sequence[tuple[Collection, str]]) -> Impact:
    """Return what deleting the objects would do."""
    if len(rows) == 1:
        answer = objects.delete(client, *rows[0], "", force=True, validate_only=True)
    else:
        request = ApplyRequest(delete_names=[name for _, name in rows], force=True, validate_only=True)
        answer = client.call(client.revisions.Apply, request)
    impact: Impact = answer.impact
    return impact


def _ask(live: Sequence[Any], impact: Impact) -> None:
    for obj in live:
        output.notice(f"{obj.name}: {_describe(obj)}")
    for text in loss_lines(impact, dry_run=True):
        output.notice(text)
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

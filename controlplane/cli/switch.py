"""Moving traffic: switch, split, undo."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer

from controlplane.cli import complete, output
from controlplane.cli.client import Client
from controlplane.cli.options import DEFAULT_WAIT, Api, Output, Reason, Timeout, connect, request_id, resource, revision_name
from controlplane.cli.output import Format
from controlplane.cli.receipt import finish
from controlplane.errors import failed_precondition
from controlplane.generated.turnout.v1.model_pb2 import Model
from controlplane.generated.turnout.v1.model_service_pb2 import GetModelRequest, Split, SwitchTrafficRequest, TrafficSwitch
from controlplane.generated.turnout.v1.revision_service_pb2 import GetRevisionRequest, RevertToRequest

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until every connected node holds it.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check, show what would change, change nothing.")]
Etag = Annotated[str, typer.Option("--etag", help="Only if the model is as it was at this etag. Default: as read just now.")]


def switch(
    ctx: typer.Context,
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL[=VERSION]", show_default=False, autocompletion=complete.models)
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="VERSION", help="For every model that names no version itself.", autocompletion=complete.versions
        ),
    ] = "",
    reason: Reason = "",
    wait: Wait = True,
    timeout: Timeout = DEFAULT_WAIT,
    dry_run: DryRun = False,
    etag: Etag = "",
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    """Move all traffic of models to a version, at once.

    Several models move together, in one revision. Ends when every connected node has ACKed it.

    \b
    turnout switch iris --to green
    turnout switch iris wine --to green --reason "better on rare classes"
    turnout switch iris=green wine=v7 --timeout 10
    """
    switches = []
    for given in models:
        name, _, version = given.partition("=")
        if not (version or to):
            raise typer.BadParameter(f"say where '{given}' goes: --to VERSION, or {given}=VERSION")
        switches.append(TrafficSwitch(model=resource("models", name), version=version or to))
    _move(connect(ctx, api), switches, reason, timeout if wait else None, dry_run, etag, form)


def split(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", show_default=False, autocompletion=complete.models)],
    shares: Annotated[list[str], typer.Argument(metavar="VERSION=SHARE", show_default=False)],
    reason: Reason = "",
    wait: Wait = True,
    timeout: Timeout = DEFAULT_WAIT,
    dry_run: DryRun = False,
    etag: Etag = "",
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    """Share a model's traffic between its versions.

    Shares are basis points that sum to 10,000, or percent. A version that is not named gets none.

    \b
    turnout split iris blue=9000 green=1000
    turnout split iris blue=99.5% green=0.5%
    """
    parsed: dict[str, int] = {}
    for given in shares:
        version, _, value = given.partition("=")
        if version in parsed:
            raise typer.BadParameter(f"version '{version}' is named twice")
        parsed[version] = basis_points(given, value)
    switches = [TrafficSwitch(model=resource("models", model), split=Split(shares=parsed))]
    _move(connect(ctx, api), switches, reason, timeout if wait else None, dry_run, etag, form)


def undo(
    ctx: typer.Context,
    to: Annotated[
        str, typer.Option("--to", metavar="N", help="Go back to this revision. Default: the one before the newest.")
    ] = "",
    reason: Reason = "",
    wait: Wait = True,
    timeout: Timeout = DEFAULT_WAIT,
    dry_run: DryRun = False,
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    """Go back: restore an earlier state, as a new revision.

    Undo twice is redo, for the newest revision is then the undoing. Nothing changes if somebody else was faster.

    \b
    turnout undo
    turnout undo --to 12 --reason "green is slow"
    """
    name = revision_name(to, earlier=True) if to else ""
    client = connect(ctx, api)
    newest = client.call(client.revisions.GetRevision, GetRevisionRequest(name="revisions/latest")).revision
    if not newest.number:
        raise failed_precondition("NOTHING_TO_UNDO", "", "there is no revision yet, so there is nothing to undo")
    name = name or f"revisions/{newest.number - 1}"
    request = RevertToRequest(
        name=name, etag=str(newest.number), reason=reason, request_id=request_id(), validate_only=dry_run
    )
    answer = client.call(client.revisions.RevertTo, request)
    changed = answer.revision.number != newest.number
    if dry_run:
        output.notice("a dry run: nothing is changed")
    finish(client, answer.revision, answer.impact, form, changed=changed, timeout=timeout if wait and not dry_run else None)


def basis_points(given: str, value: str) -> int:
    """`9000`, `90%` and `0.5%` as basis points."""
    try:
        number = Decimal(value.removesuffix("%")) * (100 if value.endswith("%") else 1)
    except InvalidOperation:
        raise typer.BadParameter(f"'{given}' is not VERSION=SHARE, like green=1000 or green=10%") from None
    if not number.is_finite() or number != number.to_integral_value() or not 0 <= number <= 10_000:
        raise typer.BadParameter(f"'{given}': a share is 0 to 10,000 whole basis points; 1% is 100 of them")
    return int(number)


def _move(
    client: Client,
    switches: list[TrafficSwitch],
    reason: str,
    timeout: float | None,
    dry_run: bool,
    etag: str,
    form: Format,
) -> None:
    if etag and len(switches) > 1:
        raise typer.BadParameter("an etag is of one model; with several, each is taken as it is read now", param_hint="--etag")
    before: list[Model] = []
    for one in switches:
        model = client.call(client.models.GetModel, GetModelRequest(name=one.model)).model
        before.append(model)
        # What moves is what was looked at: if somebody is faster, nothing moves.
        one.etag = etag or model.etag
    request = SwitchTrafficRequest(switches=switches, reason=reason, request_id=request_id(), validate_only=dry_run)
    answer = client.call(client.models.SwitchTraffic, request)
    changed = any(dict(b.split) != dict(a.split) for b, a in zip(before, answer.models, strict=True))
    if dry_run:
        output.notice("a dry run: nothing is changed")
        timeout = None
    extra = {"models": [output.as_object(m) for m in answer.models]}
    finish(client, answer.revision, answer.impact, form, changed=changed, timeout=timeout, extra=extra)

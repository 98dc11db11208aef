"""The past: history, diff."""

from __future__ import annotations

from typing import Annotated

import typer

from controlplane.cli import complete, output
from controlplane.cli.client import Client
from controlplane.cli.options import Api, Output, connect, resource, revision_name
from controlplane.cli.output import Format, line
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1.revision_pb2 import Action, Revision
from controlplane.generated.turnout.v1.revision_service_pb2 import (
    DiffRevisionsRequest,
    GetRevisionRequest,
    ListRevisionsRequest,
)

_PAGE = 1000


def history(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]", show_default=False, autocompletion=complete.objects, help="Only what changed this object."
        ),
    ] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, newest first.")] = 20,
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    """Show who changed what, when, and why; newest first.

    \b
    turnout history
    turnout history iris
    turnout history gateways/edge --limit 100 -o json
    """
    client = connect(ctx, api)
    wanted = name if not name or "/" in name else resource("models", name)
    found: list[Revision] = []
    token = ""
    while len(found) < limit:
        request = ListRevisionsRequest(page_size=min(limit - len(found), _PAGE), page_token=token, object_name=wanted)
        answer = client.call(client.revisions.ListRevisions, request)
        found += answer.revisions
        token = answer.next_page_token
        if not token:
            break
    if wanted and not found:
        raise Error(Code.NOT_FOUND, "NOT_FOUND", f"there is no object {wanted}, and there never was")
    _show(found, form)
    if form is Format.TABLE and token:
        output.notice(f"there are older ones: --limit {limit * 10}")


def diff(
    ctx: typer.Context,
    a: Annotated[str, typer.Argument(metavar="[A]", show_default=False, help="From this revision.")] = "",
    b: Annotated[str, typer.Argument(metavar="[B]", show_default=False, help="To this one. Default: the newest.")] = "",
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    """Show what lies between two revisions, in desired state and in what Envoys get.

    \b
    turnout diff          the newest revision's own change
    turnout diff 3        from 3 to the newest
    turnout diff 3 5      from 3 to 5; 0 is the empty state before the first
    """
    client = connect(ctx, api)
    if not a:
        newest = client.call(client.revisions.GetRevision, GetRevisionRequest(name="revisions/latest")).revision.number
        a, b = str(max(0, newest - 1)), str(newest)
    request = DiffRevisionsRequest(to=revision_name(b or "latest"), **{"from": revision_name(a)})
    answer = client.call(client.revisions.DiffRevisions, request)
    if form is Format.NAME:
        for change in answer.changes:
            output.raw(change.name)
    elif form is not Format.TABLE:
        output.data(output.as_report(answer), form)
    elif answer.changes:
        output.changes(answer.changes)
        line(f"To the Envoys: {output.impact(answer.impact)}")
    else:
        line("No difference.")


def show_revisions(client: Client, names: list[str], form: Format) -> None:
    """Prints revisions: those that are named, with every line of what they changed, or the newest 100."""
    if not names:
        _show(list(client.call(client.revisions.ListRevisions, ListRevisionsRequest(page_size=100)).revisions), form)
        return
    found = [
        client.call(client.revisions.GetRevision, GetRevisionRequest(name=revision_name(name))).revision for name in names
    ]
    if form is not Format.TABLE:
        _show(found, form)
        return
    for revision in found:
        if not revision.number:
            raise Error(Code.NOT_FOUND, "NOT_FOUND", "there is no revision yet")
        line(
            f"Revision {revision.number}: {_action(revision)} by {revision.author}, {output.when(revision.create_time)}",
            "bold",
        )
        if revision.reason:
            line(revision.reason)
        output.changes(revision.changes)


def _show(found: list[Revision], form: Format) -> None:
    if form is Format.NAME:
        for revision in found:
            output.raw(revision.name)
    elif form is not Format.TABLE:
        output.data({"revisions": [output.as_report(r) for r in found]}, form)
    elif found:
        rows = (
            (str(r.number), output.when(r.create_time), r.author, _action(r), output.summary(r.changes), r.reason)
            for r in found
        )
        output.show(output.table(("REVISION", "WHEN", "WHO", "DID", "WHAT", "WHY"), rows))
    else:
        output.notice("there is no such revision yet")


def _action(revision: Revision) -> str:
    word = output.enum_word(Action, revision.action, "ACTION_")
    return f"{word} to {revision.reverted_to}" if word == "revert" else word

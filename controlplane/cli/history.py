"""The command `history`: earlier revisions."""

from __future__ import annotations

from typing import Annotated

import typer

from controlplane.cli import complete, messages, names, output, wording
from controlplane.cli.changes import print_changes
from controlplane.cli.client import Client
from controlplane.cli.history_table import action, history_table
from controlplane.cli.options import Api, Output, connect, resource, revision_name
from controlplane.cli.output import Format, line
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1.revision_pb2 import Revision
from controlplane.generated.turnout.v1.revision_service_pb2 import (
    GetRevisionRequest,
    ListRevisionsRequest,
    ListRevisionsResponse,
)

# Revisions that one call returns at most.
_PAGE = 1000
# Revisions that `get revisions` shows.
_NEWEST = 100


def history(
    ctx: typer.Context,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL|KIND/NAME]",
            show_default=False,
            autocompletion=complete.objects,
            help="Show only revisions that changed this object.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many revisions to show, newest first.")] = 20,
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    r"""Show who changed what, when and why; newest first.

    In a terminal, each revision takes one line, and long texts end in `…`: `turnout get revision N` shows all of one.

    \b
    turnout history
    turnout history iris
    turnout history gateways/edge --limit 100 -o json

    JSON: ListRevisionsResponse.
    """
    object_name = _object_name(arguments or [])
    client = connect(ctx, api)
    revisions: list[Revision] = []
    token = ""
    while len(revisions) < limit:
        request = ListRevisionsRequest(page_size=min(limit - len(revisions), _PAGE), page_token=token, object_name=object_name)
        answer = client.call(client.revisions.ListRevisions, request)
        revisions += answer.revisions
        token = answer.next_page_token
        if not token:
            break
    if object_name and not revisions:
        raise Error(Code.NOT_FOUND, "NOT_FOUND", f"{object_name} does not exist and never existed")
    _show(ListRevisionsResponse(revisions=revisions, next_page_token=token), form)
    if form is Format.TABLE and token:
        output.notice(f"there are older revisions: --limit {limit * 10}")


def _object_name(arguments: list[str]) -> str:
    """Return the resource name of the object that the arguments name: `iris`, `models/iris` or `models iris`; "" for none."""
    if not arguments:
        return ""
    if len(arguments) == 1 and "/" not in arguments[0]:
        return resource("models", arguments[0])
    ((kind, labels), *others) = names.parse(arguments, names.object_kinds()).items()
    if others or len(labels) != 1:
        raise typer.BadParameter("write one object, or none for the whole history")
    return f"{kind}/{labels[0]}"


def show_revisions(client: Client, numbers: list[str], form: Format) -> None:
    """Print the named revisions with every line of their changes, or a table of the newest 100."""
    if not numbers:
        _show(client.call(client.revisions.ListRevisions, ListRevisionsRequest(page_size=_NEWEST)), form)
        return
    revisions = [
        client.call(client.revisions.GetRevision, GetRevisionRequest(name=revision_name(number))).revision
        for number in numbers
    ]
    if form is not Format.TABLE:
        _show(ListRevisionsResponse(revisions=revisions), form)
        return
    for revision in revisions:
        if not revision.number:
            raise Error(Code.NOT_FOUND, "NOT_FOUND", "there is no revision yet")
        line(
            f"Revision {revision.number}: {action(revision)} by {revision.author}, {wording.when(revision.create_time)}",
            "bold",
        )
        if revision.reason:
            line(revision.reason)
        print_changes(revision.changes)


def _show(answer: ListRevisionsResponse, form: Format) -> None:
    if form is Format.NAME:
        for revision in answer.revisions:
            output.raw(revision.name)
    elif form is not Format.TABLE:
        messages.print_data(messages.report(answer, form), form)
    elif answer.revisions:
        console = output.out()
        output.show(history_table(answer.revisions, console.width if console.is_terminal else None))
    else:
        output.notice("there is no revision yet")

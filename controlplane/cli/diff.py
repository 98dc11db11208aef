"""The command `diff`: two revisions, or files and what is live."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from controlplane.cli import messages, output, wording
from controlplane.cli.changes import describe_impact, print_changes
from controlplane.cli.client import Client
from controlplane.cli.cuts import loss_lines
from controlplane.cli.exits import Ended, Exit
from controlplane.cli.files import load
from controlplane.cli.options import Api, Output, connect, revision_name
from controlplane.cli.output import Format, line
from controlplane.cli.prune import add_deletions
from controlplane.errors import Error
from controlplane.generated.turnout.v1.revision_pb2 import Change
from controlplane.generated.turnout.v1.revision_service_pb2 import (
    ApplyRequest,
    ApplyResponse,
    DiffRevisionsRequest,
    DiffRevisionsResponse,
    GetRevisionRequest,
)


def diff(
    ctx: typer.Context,
    a: Annotated[str, typer.Argument(metavar="[A]", show_default=False, help="The revision to start from.")] = "",
    b: Annotated[
        str, typer.Argument(metavar="[B]", show_default=False, help="The revision to compare it with. Default: the newest.")
    ] = "",
    files: Annotated[
        list[str] | None,
        typer.Option("--file", "-f", metavar="FILE|DIR|-", help="Compare what is live with files instead. Repeatable."),
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="With -f: objects of the files' kinds that no file names count as deleted.")
    ] = False,
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    r"""Show the difference between two revisions, or between what is live and files: in desired state, and for the Envoys.

    Exits with 0 if there is no difference, with 1 if there is one, and with another code after an error.

    \b
    turnout diff               what the newest revision changed
    turnout diff 3             from 3 to the newest
    turnout diff 3 5           from 3 to 5; 0 is the empty state before the first
    turnout diff -f state/     what `turnout apply -f state/` would change

    JSON: DiffRevisionsResponse; with -f, ApplyResponse of a dry run.
    """
    if files and a:
        raise typer.BadParameter("can't be used together with revisions", param_hint="-f")
    if prune and not files:
        raise typer.BadParameter("needs -f", param_hint="--prune")
    if files:
        loaded = load(files)
        client = connect(ctx, api)
        # With `force`, old etags in the files are no error.
        request = ApplyRequest(manifest=loaded.manifest, force=True, validate_only=True, no_probe=True)
        if prune:
            add_deletions(client, request)
        try:
            answer = client.call(client.revisions.Apply, request)
        except Error as error:
            raise loaded.located(error) from None
        _show(answer, form, what_if=True)
    else:
        _show(_revisions(connect(ctx, api), a, b), form, what_if=False)


def _revisions(client: Client, a: str, b: str) -> DiffRevisionsResponse:
    """Return the difference of two revisions. Without `a`, return what the newest revision changed."""
    if not a:
        newest = client.call(client.revisions.GetRevision, GetRevisionRequest(name="revisions/latest")).revision.number
        a, b = str(max(0, newest - 1)), str(newest)
    request = DiffRevisionsRequest(to=revision_name(b or "latest"), **{"from": revision_name(a)})
    return client.call(client.revisions.DiffRevisions, request)


def _show(answer: ApplyResponse | DiffRevisionsResponse, form: Format, *, what_if: bool) -> None:
    """Print a difference. Errors: Ended, with exit code 1, if there is one."""
    changes = answer.changes if isinstance(answer, DiffRevisionsResponse) else _changes(answer)
    if form is Format.NAME:
        for change in changes:
            output.raw(change.name)
    elif form is not Format.TABLE:
        messages.print_data(messages.report(answer, form), form)
    elif changes:
        print_changes(list(changes))
        sent = "Would be sent to" if what_if else "To the Envoys:"
        line(f"{sent} {wording.plural(answer.impact.nodes, 'node')}: {describe_impact(answer.impact)}")
        for text in loss_lines(answer.impact, dry_run=what_if):
            line(text, "red")
    else:
        line("No difference.")
    if changes:
        raise Ended(Exit.DIFFERENCE)


def _changes(answer: ApplyResponse) -> Sequence[Change]:
    """Return what a dry run would change. If that is nothing, its revision is the newest one, with older changes."""
    return answer.revision.changes if answer.changed else ()

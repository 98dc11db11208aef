"""The command `status`: problems first, then the fleet, the split of each model, and the nodes that are not in sync."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from controlplane.cli import complete, listing, messages, output, wording
from controlplane.cli.client import Client
from controlplane.cli.exits import CheckExit, Ended
from controlplane.cli.node_table import fleet_line, nodes_table
from controlplane.cli.options import MAX_NODES, Api, Output, Watch, connect, resource
from controlplane.cli.output import Format
from controlplane.cli.problem_list import problem_list, summary_line
from controlplane.cli.watching import follow, print_each, show_live
from controlplane.errors import Error
from controlplane.generated.turnout.v1.model_pb2 import Model
from controlplane.generated.turnout.v1.node_pb2 import NodeState
from controlplane.generated.turnout.v1.status_pb2 import Status, StatusLevel
from controlplane.generated.turnout.v1.status_service_pb2 import GetStatusRequest

# Nodes that a table lists.
_TABLE_NODES = 20
# Nodes that `--watch` lists as data; those that are not in sync come first.
_WATCHED_NODES = 100
# Seconds between two questions of `--watch`.
_UPDATE_EVERY = 1.0

_EXITS = {
    StatusLevel.STATUS_LEVEL_OK: CheckExit.OK,
    StatusLevel.STATUS_LEVEL_WARNING: CheckExit.WARNING,
    StatusLevel.STATUS_LEVEL_CRITICAL: CheckExit.CRITICAL,
}


class State(StrEnum):
    """The values of --state."""

    SYNCED = "synced"
    BEHIND = "behind"
    REFUSING = "refusing"
    GONE = "gone"
    RELEASED = "released"


_Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model", metavar="MODEL", autocompletion=complete.models, help="Only what concerns this model. Repeatable."
    ),
]
_Error = Annotated[
    str, typer.Option("--error", metavar="TEXT", help="Only problems and refusals that contain this text, in any case.")
]
_Ignore = Annotated[
    list[str] | None,
    typer.Option("--ignore", metavar="REASON", help="Leave out problems of this reason, like TRAFFIC_UNKNOWN. Repeatable."),
]


def status(
    ctx: typer.Context,
    problems: Annotated[bool, typer.Option("--problems", help="Show only the problems.")] = False,
    model: _Models = None,
    state: Annotated[list[State] | None, typer.Option("--state", help="Only nodes in this state. Repeatable.")] = None,
    error: _Error = "",
    ignore: _Ignore = None,
    check: Annotated[bool, typer.Option("--check", help="Show only the problems, and exit with their level.")] = False,
    watch: Watch = False,
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    r"""Show whether users are fine, and whether the whole fleet has the newest revision. Problems come first.

    The first line is green, and starts with OK, only if the fleet and the traffic are fine. Each problem has a reason, the
    objects that have it, and what to do. Filters choose the problems and nodes that count.

    \b
    CRITICAL  requests of users fail
    WARNING   the fleet does not have the newest revision everywhere, or that can't be known; users are served as before

    With --check, the exit codes are those of monitoring plugins (Nagios, Icinga):

    \b
    0  OK
    1  WARNING
    2  CRITICAL, or the command line is wrong
    3  UNKNOWN: the control plane can't be asked

    \b
    turnout status
    turnout status --problems
    turnout status --model iris
    turnout status --state refusing --error "address already in use"
    turnout status --check --ignore NODES_GONE
    turnout status --watch

    JSON: the fields of Status, and `models` (list of Model). With --problems or --check, Status. With --watch, one such
    object a line, at each change, and at most 100 nodes.
    """
    if check and watch:
        raise typer.BadParameter("can't be used together with --watch", param_hint="--check")
    client = connect(ctx, api)
    request = GetStatusRequest(
        models=[resource("models", name) for name in model or ()],
        states=[NodeState.Value(f"NODE_STATE_{s.upper()}") for s in state or ()],
        error=error,
        ignored_reasons=ignore or (),
        max_nodes=_WATCHED_NODES if watch and form is not Format.TABLE else MAX_NODES,
    )
    if check:
        _check(client, request, form)
        return
    # Desired state is a part of the overview, and not of the answer to a question about nodes.
    _show(client, request, form, overview=not (problems or state or error), problems=problems, watch=watch)


def _show(client: Client, request: GetStatusRequest, form: Format, *, overview: bool, problems: bool, watch: bool) -> None:
    if watch:
        updates = follow(client, lambda: _updates(client, request, overview))
        if form is Format.TABLE:
            # More rows than the terminal has lines are never seen.
            rows = output.out().height if output.out().is_terminal else None
            show_live(updates, lambda shown: _page(*shown, problems, rows))
        else:
            print_each(updates, lambda shown: _print_data(shown[0], shown[1] if overview else None, form, watch=True))
        return
    current, models = next(_updates(client, request, overview))
    if form is Format.TABLE:
        output.show(_page(current, models, problems))
    else:
        _print_data(current, models if overview else None, form, watch=False)


def _status_of(client: Client, request: GetStatusRequest) -> Status:
    """Return the status. Errors: those of the call; BadParameter for a reason that does not exist."""
    try:
        return client.call(client.status.GetStatus, request).status
    except Error as error:
        for violation in error.violations:
            if violation.field.startswith("ignored_reasons"):
                raise typer.BadParameter(violation.description, param_hint="--ignore") from None
        raise


def _check(client: Client, request: GetStatusRequest, form: Format) -> None:
    """Print the problems. Errors: Ended with the level as the exit code."""
    try:
        current = _status_of(client, request)
    except Error as error:
        output.raw(f"UNKNOWN: {error.message}")
        raise Ended(CheckExit.UNKNOWN) from None
    if form is Format.TABLE:
        output.show(_page(current, [], problems=True))
    else:
        _print_data(current, None, form, watch=False)
    raise Ended(_EXITS[current.level])


def _updates(client: Client, request: GetStatusRequest, overview: bool) -> Iterator[tuple[Status, list[Model]]]:
    """Yield the status with the models at each change. The models are read once a revision."""
    models: list[Model] = []
    revision = -1
    before: Status | None = None
    while True:
        current = _status_of(client, request)
        if overview and current.summary.revision != revision:
            models, revision = listing.models(client), current.summary.revision
            models = [m for m in models if not request.models or m.name in request.models]
        if current != before:
            yield current, models
        before = current
        output.wait_for_reader(_UPDATE_EVERY)


def _page(current: Status, models: Sequence[Model], problems: bool, rows: int | None = None) -> RenderableType:
    """Return the page, with at most `rows` models if that is given."""
    parts: list[RenderableType] = [summary_line(current), problem_list(current.problems)]
    if problems:
        return Group(*parts)
    parts += [Text(), fleet_line(current.summary)]
    if models:
        cells = (
            (m.name, wording.split(m.split), ", ".join(v.name for v in m.versions), wording.revision_of(m.etag))
            for m in models[:rows]
        )
        parts += [Text(), output.table(("MODEL", "TRAFFIC", "VERSIONS", "REVISION"), cells)]
    if current.nodes:
        parts += [Text(), nodes_table(current.nodes[:_TABLE_NODES])]
        if len(current.nodes) > _TABLE_NODES:
            parts.append(Text(f"and {len(current.nodes) - _TABLE_NODES:,} more; `turnout nodes` shows all"))
    return Group(*parts)


def _print_data(current: Status, models: Sequence[Model] | None, form: Format, watch: bool) -> None:
    """Print the status as data. Without `models`, a list of names has the objects that have a problem."""
    if form is Format.NAME:
        names = [name for p in current.problems for name in p.objects] if models is None else [m.name for m in models]
        output.raw(" ".join(dict.fromkeys(names)) if watch else "\n".join(dict.fromkeys(names)))
        return
    value = messages.report(current, form)
    if models is not None:
        value["models"] = [messages.desired(m, form) for m in models]
    messages.print_data(value, form, one_line=watch)

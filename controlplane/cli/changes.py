"""The changes of a revision, and what they mean for the Envoys, as lines for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console

from controlplane.cli.output import line, out
from controlplane.cli.wording import first_few, plural
from controlplane.generated.turnout.v1.revision_pb2 import Change, ChangeKind, Impact

_MARKS = {
    ChangeKind.CHANGE_KIND_CREATED: ("+", "green"),
    ChangeKind.CHANGE_KIND_UPDATED: ("~", "yellow"),
    ChangeKind.CHANGE_KIND_DELETED: ("-", "red"),
}
# Changes that a table cell lists.
_MAX_IN_CELL = 4


def print_changes(listed: Sequence[Change], limit: int | None = None, console: Console | None = None) -> None:
    """Print objects with what changed in them, one line a field; only the first `limit` objects, if given.

    Prints to stdout unless a `console` is given.
    """
    console = console or out()
    for change in listed[:limit]:
        mark, colour = _MARKS.get(change.kind, ("?", ""))
        console.print(f"{mark} {change.name}", style=colour, soft_wrap=True)
        for text in change.lines:
            console.print(f"    {text}", soft_wrap=True)
    if limit is not None and len(listed) > limit:
        console.print(f"and {len(listed) - limit:,} more; `turnout diff` shows all")


def summary(listed: Iterable[Change]) -> str:
    """Return changes in one table cell: `~ models/iris split: blue 10000 -> green 10000 (and 2 more)`."""
    parts = []
    for change in listed:
        mark = _MARKS.get(change.kind, ("?", ""))[0]
        first = change.lines[:1] if len(change.lines) == 1 or change.kind == ChangeKind.CHANGE_KIND_UPDATED else ()
        more = f" (and {len(change.lines) - 1} more)" if first and len(change.lines) > 1 else ""
        detail = "".join(f" {text}{more}" for text in first)
        parts.append(f"{mark} {change.name}{detail}")
    return first_few(parts, _MAX_IN_CELL)


def describe_impact(impact: Impact) -> str:
    """Return what each node is sent: `1 RouteConfiguration, 0 Listeners, 363 bytes each`.

    Listeners are always counted, also when there are none: a changed listener drains its connections.
    """
    parts = []
    for t in impact.types:
        if t.changed or (t.type == "Listener" and not t.removed):
            parts.append(plural(t.changed, t.type))
        if t.removed:
            parts.append(f"{plural(t.removed, t.type)} removed")
    if not any(t.type == "Listener" for t in impact.types):
        parts.append("0 Listeners")
    if impact.bytes_per_node:
        parts.append(f"{impact.bytes_per_node:,} bytes each")
    return ", ".join(parts)


def print_warnings(impact: Impact) -> None:
    """Print an impact's warnings, one line each."""
    for text in impact.warnings:
        line(f"Warning: {text}", "yellow")

"""Changes that cut traffic: the options that allow them, and what is lost, as lines for people."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

import typer

from controlplane.cli.output import line
from controlplane.errors import Error
from controlplane.generated.turnout.v1.revision_pb2 import Impact

AllowCut = Annotated[
    bool, typer.Option("--allow-cut", help="Make the change even if connected nodes lose something that they serve.")
]
CutToken = Annotated[
    str,
    typer.Option(
        "--cut-token",
        metavar="TOKEN",
        help="Allow exactly what a dry run or a refusal showed, with its token. If more would be cut, it is refused again.",
    ),
]

# Losses that are printed; the others are counted.
_MAX_LOSSES = 20


class CutFields(TypedDict):
    """The fields of a request that allow it to cut traffic."""

    allow_cut: bool
    cut_token: str


def cut_fields(allow_cut: bool, cut_token: str) -> CutFields:
    """Return the fields of a request. A token allows the cut that it stands for."""
    return CutFields(allow_cut=allow_cut or bool(cut_token), cut_token=cut_token)


def needs_permission(impact: Impact, request: Any) -> bool:
    """Return True if the server will refuse a request whose dry run had this impact. Then there is nothing to ask."""
    return bool(impact.losses) and not request.allow_cut


def allow_what_was_shown(impact: Impact, request: Any) -> None:
    """Limit the permission of a request to the losses of its dry run, which a person has seen and confirmed."""
    request.allow_cut = bool(impact.losses)
    request.cut_token = impact.cut_token


def print_losses(impact: Impact, *, dry_run: bool) -> None:
    """Print what connected nodes lose, or would lose; nothing if that is nothing."""
    for text in loss_lines(impact, dry_run=dry_run):
        line(text, "red")


def loss_lines(impact: Impact, *, dry_run: bool) -> list[str]:
    """Return what connected nodes lose, or would lose, as lines for people; [] if that is nothing."""
    if not impact.losses:
        return []
    listed = impact.losses[:_MAX_LOSSES]
    more = impact.loss_count - len(listed)
    return [
        "Would cut traffic:" if dry_run else "Cut traffic:",
        *(f"    {loss.text}" for loss in listed),
        *([f"    and {more:,} more losses"] if more > 0 else []),
    ]


def needed(token: str) -> str:
    """Return the sentence that says how to make a change that cuts traffic."""
    return f"It needs --allow-cut, or --cut-token {token} to be refused again if more would be cut."


def refusal_lines(error: Error) -> list[str]:
    """Return the text of an error CUTS_TRAFFIC: what is lost, one line each, and how to allow it."""
    problem = error.message.partition(", so ")[0]
    return [f"{problem}:", *(f"    {v.description}" for v in error.violations), needed(error.metadata.get("cut_token", ""))]

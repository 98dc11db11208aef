"""The table of revisions. In a terminal, each revision takes one line, whatever the width; output that is piped is never cut.

The columns before WHAT are short, and WHO is cut to 16 characters. What is left of the width goes to WHAT and WHY. A text that
is too long ends in `…`. `turnout get revision N` shows all of one revision.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from controlplane.cli import output, wording
from controlplane.cli.changes import summary
from controlplane.errors import escaped
from controlplane.generated.turnout.v1.revision_pb2 import Action, Revision

_HEADINGS = ("REVISION", "WHEN", "WHO", "DID", "WHAT", "WHY")
_SHORT_HEADINGS = ("REV", *_HEADINGS[1:])
_GAP = 2
_MAX_WHO = 16
# The least width of WHAT, and of WHY if there is any reason.
_MIN_WIDTH = 8


def history_table(revisions: Sequence[Revision], width: int | None) -> Table:
    """Return the table for a terminal of `width` columns, or without a limit."""
    if width is None:
        return output.table(_HEADINGS, (_row(revision, wording.when(revision.create_time)) for revision in revisions))
    rows = [[escaped(cell) for cell in _row(revision, _short_time(revision))] for revision in revisions]
    for row in rows:
        row[2] = _cut(row[2], _MAX_WHO)
    widths = [max(cell_len(row[i]) for row in [*rows, _SHORT_HEADINGS]) for i in range(len(_SHORT_HEADINGS))]
    room = width - sum(widths[:4]) - _GAP * 5
    has_reason = any(row[5] for row in rows)
    # WHY gets a third of the room, and the room that WHAT does not need.
    why = min(widths[5], max(room // 3, room - widths[4], _MIN_WIDTH)) if has_reason else 0
    what = max(_MIN_WIDTH, room - why)
    headings = _SHORT_HEADINGS if has_reason else _SHORT_HEADINGS[:5]
    return output.table(
        headings, ([*row[:4], _cut(row[4], what), *([_cut(row[5], why)] if has_reason else [])] for row in rows)
    )


def action(revision: Revision) -> str:
    """Return what a revision did in a word, with the revision that it went back to or took back."""
    match revision.action:
        case Action.ACTION_REVERT:
            return f"restore {revision.reverted_to}"
        case Action.ACTION_REVERT_REVISION:
            return f"revert {revision.undone_revision}"
        case Action.ACTION_UNDO if revision.undone_revision:
            return f"undo {revision.undone_revision}"
    return wording.enum_word(Action, revision.action, "ACTION_")


def _row(revision: Revision, when: str) -> tuple[str, ...]:
    what = summary(revision.changes)
    return str(revision.number), when, revision.author, action(revision), what, revision.reason


def _short_time(revision: Revision) -> str:
    """Return the local time without the year: `11-28 23:50`."""
    return datetime.fromtimestamp(revision.create_time.seconds).astimezone().strftime("%m-%d %H:%M")


def _cut(text: str, width: int) -> str:
    cell = Text(text)
    cell.truncate(width, overflow="ellipsis")
    return cell.plain

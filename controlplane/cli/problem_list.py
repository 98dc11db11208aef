"""Problems as people read them: one line on top, then each problem with what to do."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from controlplane.cli import wording
from controlplane.errors import escaped
from controlplane.generated.turnout.v1.status_pb2 import Problem, Status, StatusLevel

_COLOURS = {
    StatusLevel.STATUS_LEVEL_OK: "bold green",
    StatusLevel.STATUS_LEVEL_WARNING: "bold yellow",
    StatusLevel.STATUS_LEVEL_CRITICAL: "bold red",
}
# Problems that are printed; the others are counted.
MAX_PROBLEMS = 20


def summary_line(status: Status) -> Text:
    """Return the line on top. It is green only if the fleet and the traffic are fine."""
    return Text(escaped(status.text), _COLOURS.get(status.level, ""))


def problem_list(problems: Sequence[Problem]) -> RenderableType:
    """Return each problem with its level, its reason, its text and what to do."""
    lines: list[RenderableType] = []
    for problem in problems[:MAX_PROBLEMS]:
        level = wording.enum_word(StatusLevel, problem.level, "STATUS_LEVEL_").upper()
        lines += [
            Text(),
            Text(f"{level} {problem.reason}", _COLOURS.get(problem.level, "")),
            Text(f"    {wording.indented(problem.text)}"),
            Text(f"    {escaped(problem.action)}", "dim"),
        ]
    if len(problems) > MAX_PROBLEMS:
        lines += [Text(), Text(f"and {len(problems) - MAX_PROBLEMS:,} more; `turnout status --problems -o json` has all")]
    return Group(*lines)

"""Problems as people read them."""

from __future__ import annotations

import pytest
from rich.console import Console

from controlplane.cli.problem_list import MAX_PROBLEMS, problem_list, summary_line
from controlplane.generated.turnout.v1.status_pb2 import Problem, Status, StatusLevel

WARNING = StatusLevel.STATUS_LEVEL_WARNING


def printed(problems: list[Problem]) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(problem_list(problems))
    return capture.get()


@pytest.mark.parametrize(
    ("level", "colour"),
    [
        (StatusLevel.STATUS_LEVEL_OK, "bold green"),
        (WARNING, "bold yellow"),
        (StatusLevel.STATUS_LEVEL_CRITICAL, "bold red"),
    ],
)
def test_the_line_on_top_is_green_only_if_there_is_no_problem(level: StatusLevel.ValueType, colour: str) -> None:
    line = summary_line(Status(level=level, text="so it is"))
    assert (line.plain, line.style) == ("so it is", colour)


def test_each_problem_has_its_level_reason_text_and_what_to_do() -> None:
    problem = Problem(level=WARNING, reason="NODES_REFUSE", text="n refuses: a\nb\x1b[2J", action="`turnout nodes n`.")
    assert printed([problem]) == ("\nWARNING NODES_REFUSE\n    n refuses: a\n    b\\u001b[2J\n    `turnout nodes n`.\n")


def test_many_problems_are_counted() -> None:
    text = printed([Problem(level=WARNING, reason="R", text="t", action="a")] * (MAX_PROBLEMS + 3))
    assert text.count("WARNING R") == MAX_PROBLEMS
    assert text.endswith("and 3 more; `turnout status --problems -o json` has all\n")

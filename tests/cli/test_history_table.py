"""The table of revisions: one line each in a terminal, and nothing cut in a pipe."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from controlplane.cli.history_table import action, history_table
from controlplane.generated.turnout.v1.revision_pb2 import Action, Change, ChangeKind, Revision
from tests.cli.conftest import Run, Server
from tests.cli.terminal import terminal

MOVED = Change(
    name="models/fraud-cards-europe",
    kind=ChangeKind.CHANGE_KIND_UPDATED,
    lines=["split: blue 10000 -> green 10000", "keys: k"],
)


def revision(number: int = 1, **fields: object) -> Revision:
    made = Revision(number=number, author="ada@lab", action=Action.ACTION_SWITCH, changes=[MOVED], reason="better")
    made.create_time.seconds = 1_700_000_000
    made.MergeFrom(Revision(**fields))  # type: ignore[arg-type]
    return made


def printed(revisions: list[Revision], width: int | None) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width or 1_000).print(history_table(revisions, width))
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("width", [80, 100, 200])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"author": "a-very-long-name-of-an-author@a-very-long-host.example.org"},
        {"reason": "a reason that is much longer than what fits into one line of a terminal " * 3},
        {"author": "木" * 60, "reason": "木" * 200},
        {"changes": [MOVED] * 50},
    ],
)
def test_one_line_for_each_revision(width: int, fields: dict[str, object]) -> None:
    lines = printed([revision(i, **fields) for i in range(1, 4)], width)
    assert [line.split()[0] for line in lines] == ["REV", "1", "2", "3"]
    assert max(map(cell_len, lines)) <= width


def test_the_parts_that_matter_are_on_the_line_at_80_columns() -> None:
    _, line = printed([revision(1234)], 80)
    assert line.startswith("1234  11-")
    assert "ada@lab  switch  ~ models/fraud-cards-europe split" in line
    assert line.endswith("better")


def test_without_a_limit_nothing_is_cut() -> None:
    reason = "long " * 60
    text = "\n".join(printed([revision(reason=reason)], None))
    assert "(and 1 more)" in text
    assert reason.strip() in text
    assert "…" not in text


def test_without_reasons_the_changes_get_the_room() -> None:
    bare = revision()
    bare.reason = ""
    lines = printed([bare], 80)
    assert "WHY" not in lines[0]
    assert "models/fraud-cards-europe split: b" in lines[1]


def test_actions() -> None:
    assert action(Revision(action=Action.ACTION_UNDO)) == "undo"
    assert action(Revision(action=Action.ACTION_UNDO, undone_revision=7)) == "undo 7"
    assert action(Revision(action=Action.ACTION_REVERT_REVISION, undone_revision=7)) == "revert 7"
    assert action(Revision(action=Action.ACTION_REVERT, reverted_to=7)) == "restore 7"
    assert action(Revision(action=Action.ACTION_APPLY)) == "apply"


def test_history_in_a_terminal_of_80_columns(run: Run, applied: Server) -> None:
    run("switch", "iris", "--to", "green", "--reason", "a reason that is longer than what fits into a narrow column")
    with terminal("history") as screen:
        assert screen.end() == 0
        lines = screen.plain.splitlines()
    assert [line.split()[0] for line in lines] == ["REV", "2", "1"]
    assert max(len(line.rstrip()) for line in lines) <= 80

"""The commands as a whole: help and groups."""

from __future__ import annotations

import pytest

from controlplane.cli import exits
from controlplane.cli.commands import COMMANDS
from controlplane.cli.exits import Exit
from tests.cli.conftest import Run


def test_help_shows_groups_examples_and_exit_codes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = run("--help")
    assert result.code == 0
    for panel in COMMANDS:
        assert panel in result.out
    assert "turnout switch iris --to green" in result.out
    for code, meaning in exits.MEANINGS.items():
        assert f"{code.value}  {meaning}" in result.out
    assert max(map(len, result.out.splitlines())) <= 80


@pytest.mark.parametrize("command", [c for commands in COMMANDS.values() for c in commands])
def test_every_command_has_an_example(run: Run, command: str) -> None:
    result = run(command, "--help")
    assert result.code == 0
    if command != "version":
        assert result.out.count(f"turnout {command}") >= 2


def test_no_argument_prints_help(run: Run) -> None:
    result = run()
    assert "Usage: turnout" in result.out + result.err
    assert result.code == Exit.USAGE

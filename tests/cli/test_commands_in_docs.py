"""The commands in the pages exist, with these options and arguments. They are parsed, and not run."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from typer import completion

from controlplane.cli.commands import app
from tests.structure.test_links import pages

COMMAND = re.compile(r"(?:`|^\s*|\| )turnout ((?:[a-z]|--)[^`\n]*)", re.MULTILINE)
# A block with commands after a prompt, and their output.
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMPT = re.compile(r"^\$ (.*)$", re.MULTILINE)
# The shell's signs that end a command; `\|` is a pipe in a table.
END = re.compile(r"\s(?:\\?\||>|2>|&|#)|\s{2,}")


def commands(page: Path) -> list[list[str]]:
    """Return the arguments of each command of a page, in code blocks and between backticks."""
    text = re.sub(r"^```text\n.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = CONSOLE.sub(lambda block: block[0].replace(block[1], "\n".join(PROMPT.findall(block[1]))), text)
    command_lines = [END.split(line)[0].replace(" …", "") for line in COMMAND.findall(text)]
    return [shlex.split(line) for line in command_lines]


@cache
def command_tree() -> Any:
    """Return the commands as typer reads them from their functions."""
    completion.completion_init()  # type: ignore[attr-defined]
    return typer.main.get_command(app)


def fault(arguments: list[str]) -> str | None:
    """Return why the command line refuses these arguments, or None. A command may be named without its arguments."""
    command = command_tree()
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
        if name not in command.commands:
            return f"no command {name}"
        command = command.commands[name]
    valued = {flag for p in command.params for flag in p.opts if not getattr(p, "is_flag", False)}
    if not arguments or "--help" in arguments or hasattr(command, "commands"):
        return None
    if arguments[-1] in valued:
        arguments = [*arguments, "1"]
    try:
        command.make_context("turnout", arguments)
    except Exception as error:  # noqa: BLE001  a usage error is of typer's own or of click
        if type(error).__name__ != "MissingParameter":
            return str(error) or type(error).__name__
    return None


@pytest.mark.parametrize("page", pages(), ids=lambda page: f"{page.parent.name}/{page.name}")
def test_each_command_in_a_page_exists(page: Path) -> None:
    refused = {" ".join(arguments): why for arguments in commands(page) if (why := fault(arguments))}
    assert refused == {}


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ("get models iris -o yaml", True),
        ("undo iris", True),
        ("undo --from 41", False),
        ("revert 3 5", False),
        ("secret set", True),
        ("secret get", False),
        ("bootstrap --cluster", True),
    ],
)
def test_a_wrong_command_is_found(arguments: str, right: bool) -> None:
    assert (fault(arguments.split()) is None) is right


def test_commands_end_at_the_signs_of_the_shell(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "`turnout undo iris`, `turnout diff 3 5`\n| `p \\| turnout secret set a --key -` |\n```\nturnout get all > f\n```\n"
    )
    assert commands(page) == [["undo", "iris"], ["diff", "3", "5"], ["secret", "set", "a", "--key", "-"], ["get", "all"]]

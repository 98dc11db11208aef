"""Play a page of the docs: run the commands in its blocks, and compare their real output with the page.

A section of the page has blocks like this one. Each line below a command must be in the command's output, in this order; `…`
stands for any lines. Numbers, times and ids may differ.

    ```console
    $ turnout status
    OK: revision 7 is held by 3 nodes; no requests now
    ```
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cli.conftest import Run

PAGE = Path(__file__).parents[2] / "docs" / "at-3-am.md"

# Parts that differ from one run to the next, and what takes their place.
_VARIABLE = (
    (re.compile(r"\b[0-9a-f]{8}(?=-\d)"), "ID"),  # a history, in an etag
    (re.compile(r"\b[0-9a-f]{8}\b"), "ID"),
    (re.compile(r"\b\d+(\.\d+)? ?(ms|s|m|h)\b"), "TIME"),
    (re.compile(r"<?\d[\d,.:-]*"), "N"),
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True)
class Step:
    """One command of a page with the lines that its output must have."""

    command: str
    expected: tuple[str, ...]


def sections(page: Path = PAGE) -> dict[str, list[Step]]:
    """Return the steps of each section that has any, by its heading."""
    parts = re.split(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = {title: list(_steps(text)) for title, text in zip(parts[1::2], parts[2::2], strict=True)}
    return {title: steps for title, steps in found.items() if steps}


def _steps(section: str) -> Iterator[Step]:
    for block in re.findall(r"^```console\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, lines = part.partition("\n")
            yield Step(command, tuple(line for line in lines.splitlines() if line.strip() not in ("", "…")))


def normal(line: str) -> str:
    """Return a line without the parts that differ from one run to the next."""
    for pattern, replacement in _VARIABLE:
        line = pattern.sub(replacement, line)
    return line.strip()


def missing(step: Step, output: str) -> str | None:
    """Return the first line of a step that its output does not have after the lines before it; None if all are there."""
    remaining = iter([normal(line) for line in output.splitlines()])
    for line in step.expected:
        if normal(line) not in remaining:
            return line
    return None


def play(run: Run, title: str, *replacements: tuple[str, str]) -> None:
    """Run the commands of a section, and compare. `replacements` are texts of the page and what they are in this run."""
    for step in sections()[title]:
        command = step.command
        for there, here in replacements:
            command = command.replace(there, here)
        result = run(*shlex.split(command)[1:])
        output = result.out + result.err
        for there, here in replacements:
            output = output.replace(here, there)
        line = missing(step, output)
        assert line is None, f"docs/at-3-am.md, {title}:\n$ {step.command}\nhas no line\n{line}\nbut prints\n{output}"

"""Errors on stderr: text for people, or with `-o json` one JSON object on the last line.

| key | meaning |
|---|---|
| `code` | the gRPC status code, like FAILED_PRECONDITION; USAGE, TIMEOUT and the like for errors of the command line itself |
| `reason` | the machine-readable reason, like STALE_ETAG |
| `message` | the text that people get |
| `violations` | the fields that are wrong: `field` and `description` |
| `metadata` | facts that a program may need, like the live etag |
| `exitCode` | the exit code |
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from rich.text import Text

from controlplane.cli import output
from controlplane.cli.cuts import refusal_lines
from controlplane.cli.exits import Exit, FilesError, exit_code
from controlplane.errors import Error

# Lines of one error that are printed for people; the others are counted.
_MAX_LINES = 30
# By the error's reason: what the user can do.
_HINTS = {
    "MOVES_TRAFFIC": "Use `turnout switch` or `turnout split` to move traffic, or repeat with --force.",
    "OTHER_HISTORY": "Look at `turnout history` and `turnout get models` to see which state is live now.",
    "STALE_ETAG": "Somebody else changed it. Look at `turnout history`, and repeat the command only if it is still right.",
}


def wants_json(args: Sequence[str]) -> bool:
    """Return True if the arguments of a command contain `-o json`, in any spelling. They need not be valid."""
    for i, argument in enumerate(args):
        if argument in ("-o", "--output"):
            return args[i + 1 : i + 2] == ["json"]
        if argument in ("-ojson", "--output=json"):
            return True
    return False


def report(error: Error, *, as_json: bool) -> Exit:
    """Print an error, and return the exit code. People get a line for each field that is wrong, and a hint."""
    code = exit_code(error)
    if as_json:
        violations = [{"field": v.field, "description": v.description} for v in error.violations]
        _print_json(error.code.name, error.reason, error.message, code, violations=violations, metadata=error.metadata)
        return code
    if error.reason == "CUTS_TRAFFIC":
        lines = refusal_lines(error)
    elif isinstance(error, FilesError) or len(error.violations) < 2:
        lines = error.message.splitlines()
    else:
        lines = [f"{v.field}: {v.description}" if v.field else v.description for v in error.violations]
    if len(lines) > _MAX_LINES:
        lines = [*lines[:_MAX_LINES], f"and {len(lines) - _MAX_LINES:,} more"]
    # An error of files has advice of its own.
    hint = "" if isinstance(error, FilesError) and error.reason == "STALE_ETAG" else _HINTS.get(error.reason)
    print_text("\n".join([*lines, *([hint] if hint else [])]))
    return code


def report_text(message: str, code: IntEnum, *, as_json: bool) -> None:
    """Print an error that is not an `Error`, like a wrong option or a timeout."""
    if as_json:
        _print_json(code.name, code.name, message, code, violations=[], metadata={})
    else:
        print_text(message)


def print_text(message: str) -> None:
    """Print `Error: ` and the message to stderr."""
    first, _, more_lines = message.partition("\n")
    output.err().print(Text("Error: ", "bold red").append(first, "not bold default"), soft_wrap=True)
    if more_lines:
        output.err().print(more_lines, soft_wrap=True)


def _print_json(code: str, reason: str, message: str, exit_code: IntEnum, **more: Any) -> None:
    value = {"code": code, "reason": reason, "message": message, **more, "exitCode": int(exit_code)}
    output.err().print(json.dumps({"error": value}), soft_wrap=True)

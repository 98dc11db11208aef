"""Exit codes: one table, documented in `turnout --help`, and the errors that only a command line has."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from controlplane.errors import Code, Error


class Exit(IntEnum):
    """What the shell is told. The values are stable: scripts switch on them."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    INVALID = 3
    NOT_FOUND = 4
    CONFLICT = 5
    UNAVAILABLE = 6
    TIMEOUT = 7
    REFUSED = 8
    INTERRUPTED = 130
    BROKEN_PIPE = 141


MEANINGS: dict[Exit, str] = {
    Exit.OK: "done",
    Exit.UNEXPECTED: "a defect, here or in the server",
    Exit.USAGE: "the command line itself is wrong",
    Exit.INVALID: "invalid input: a file, a field, a value",
    Exit.NOT_FOUND: "what was asked for by name does not exist",
    Exit.CONFLICT: "not in this state: a stale etag, an unknown gateway, moving traffic",
    Exit.UNAVAILABLE: "the server can't be reached, or can't write now",
    Exit.TIMEOUT: "--wait ran out of --timeout; the change is made",
    Exit.REFUSED: "an Envoy refused it: a NACK, or --validate-with-envoy",
    Exit.INTERRUPTED: "Ctrl-C, or no was said",
}

_BY_CODE: dict[Code, Exit] = {
    Code.INVALID_ARGUMENT: Exit.INVALID,
    Code.NOT_FOUND: Exit.NOT_FOUND,
    Code.ALREADY_EXISTS: Exit.CONFLICT,
    Code.FAILED_PRECONDITION: Exit.CONFLICT,
    Code.ABORTED: Exit.CONFLICT,
    Code.RESOURCE_EXHAUSTED: Exit.CONFLICT,
    Code.UNAVAILABLE: Exit.UNAVAILABLE,
    Code.INTERNAL: Exit.UNEXPECTED,
}


def exit_code(error: Error) -> Exit:
    """The one mapping from errors to exit codes."""
    return _BY_CODE[error.code]


class Ended(Exception):
    """A command that ends with another exit code than 0 though no call failed: a wait that timed out, a refusal."""

    def __init__(self, code: Exit, message: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a file something stands; lines count from 1; 0 is the whole file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong at one place."""

    # None: of no file, like a violation that the server found in what is live.
    place: Place | None
    # Path of the field from the top of the manifest; "" is the whole.
    field: str
    description: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.place or ""), self.field, self.description) if part)


class FilesError(Error):
    """An error whose violations are known by file and line."""

    def __init__(self, problems: list[Problem], code: Code = Code.INVALID_ARGUMENT, reason: str = "INVALID_FILE") -> None:
        super().__init__(code, reason, "\n".join(map(str, problems)))
        self.problems = tuple(problems)

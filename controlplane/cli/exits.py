"""Exit codes, documented in `turnout --help`, and errors that only the command line has."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from controlplane.errors import Code, Error, Violation


class Exit(IntEnum):
    """The exit codes. The values are stable, because scripts depend on them."""

    OK = 0
    DIFFERENCE = 1
    USAGE = 2
    INVALID = 3
    NOT_FOUND = 4
    CONFLICT = 5
    UNAVAILABLE = 6
    TIMEOUT = 7
    REFUSED = 8
    INCOMPLETE = 9
    # EX_SOFTWARE of sysexits.h. Not 1, because that is no error of `diff`.
    UNEXPECTED = 70
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class CheckExit(IntEnum):
    """The exit codes of `turnout status --check`: those of monitoring plugins (Nagios, Icinga, Sensu)."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


MEANINGS: dict[Exit, str] = {
    Exit.OK: "done; of diff and --dry-run: there is no difference",
    Exit.DIFFERENCE: "no error: diff and --dry-run: there is a difference; can: no",
    Exit.USAGE: "the command line itself is wrong",
    Exit.INVALID: "invalid input: a file, a field, a value",
    Exit.NOT_FOUND: "an object with this name does not exist",
    Exit.CONFLICT: "refused in this state: stale etag, moves or cuts traffic, full disk",
    Exit.UNAVAILABLE: "the server can't be reached, or can't write now",
    Exit.TIMEOUT: "--timeout passed while connected nodes were behind; the change was made",
    Exit.REFUSED: "an Envoy refused it: a NACK, or --validate-with-envoy",
    Exit.INCOMPLETE: "made, but not all nodes hold it: some are gone, or too few",
    Exit.UNEXPECTED: "a defect in this program or in the server",
    Exit.INTERRUPTED: "Ctrl-C, or the answer to a question was no",
}

_BY_CODE: dict[Code, Exit] = {
    Code.INVALID_ARGUMENT: Exit.INVALID,
    Code.NOT_FOUND: Exit.NOT_FOUND,
    Code.ALREADY_EXISTS: Exit.CONFLICT,
    Code.FAILED_PRECONDITION: Exit.CONFLICT,
    Code.ABORTED: Exit.CONFLICT,
    Code.RESOURCE_EXHAUSTED: Exit.CONFLICT,
    Code.PERMISSION_DENIED: Exit.CONFLICT,
    Code.UNAUTHENTICATED: Exit.CONFLICT,
    Code.UNAVAILABLE: Exit.UNAVAILABLE,
    Code.INTERNAL: Exit.UNEXPECTED,
}


def exit_code(error: Error) -> Exit:
    """Return the exit code of an error."""
    return _BY_CODE[error.code]


class Ended(Exception):
    """Ends a command with an exit code other than 0 although no call failed, as after a timeout or a refusal."""

    def __init__(self, code: Exit | CheckExit, message: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a file. Lines count from 1; 0 means the whole file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem at one place."""

    # None if it is in no file, as for a problem that the server found in a live object.
    place: Place | None
    # Path of the field from the top of the manifest; "" means the whole.
    field: str
    description: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.place or ""), self.field, self.description) if part)


def with_fields(error: Error, rename: Callable[[str], str]) -> Error:
    """Return the error with other names of its fields, both in its violations and in its message."""
    violations = tuple(Violation(rename(v.field), v.description) for v in error.violations)
    message = error.message
    for before, after in zip(error.violations, violations, strict=True):
        message = message.replace(before.field, after.field) if before.field else message
    return Error(error.code, error.reason, message, violations=violations, metadata=error.metadata)


def with_elements(error: Error, field: str, names: Sequence[str]) -> Error:
    """Return the error with the names of the elements of a repeated field: `switches[0].version` becomes `models/iris`."""

    def name_of(path: str) -> str:
        match = re.match(rf"{field}\[(\d+)\]", path)
        return names[int(match[1])] if match else path

    return with_fields(error, name_of)


def file_error(file: str, line: int, description: str) -> FilesError:
    """Return the error of one problem. Line 0 means the whole file."""
    return FilesError([Problem(Place(file, line), "", description)])


def unreadable(file: str, error: OSError) -> FilesError:
    """Return the error of a file that can't be read."""
    return file_error(file, 0, f"can't be read: {cause(error)}")


def cause(error: OSError) -> str:
    """Return the system's words for an error: `no such file or directory`."""
    return (error.strerror or str(error)).lower()


class FilesError(Error):
    """An error with the file and line of each problem."""

    def __init__(
        self,
        problems: list[Problem],
        code: Code = Code.INVALID_ARGUMENT,
        reason: str = "INVALID_FILE",
        advice: str = "",
    ) -> None:
        super().__init__(code, reason, "\n".join([*map(str, problems), *([advice] if advice else [])]))
        self.problems = tuple(problems)

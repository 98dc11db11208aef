"""Errors, split by whose fault they are.

One class carries them all: what kind of wrong it is (`Code`), a machine-readable reason, a sentence for a person, and
the fields at fault. It is mapped to gRPC in one place (`api/status.py`) and to exit codes in one place
(`cli/exits.py`). A NACK is not an error: it is news, and travels as an event.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum


class Code(Enum):
    """Whose fault it is. The names are those of gRPC's status codes."""

    # The caller's: the same call can never succeed.
    INVALID_ARGUMENT = "invalid argument"
    NOT_FOUND = "not found"
    ALREADY_EXISTS = "already exists"
    # The caller's, given the state there is: it may succeed once that has changed.
    FAILED_PRECONDITION = "failed precondition"
    ABORTED = "aborted"
    RESOURCE_EXHAUSTED = "resource exhausted"
    # Ours, or the machine's: it may succeed later.
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)


def redacted(text: str) -> str:
    """The text without private keys in PEM, whole or cut off: a net below all that takes care not to quote one."""
    return _KEY.sub("[a private key]", text) if "PRIVATE KEY" in text else text


def shortened(text: str, most: int = 4_000) -> str:
    """The text, cut off after so many characters: a client's words go into every answer that shows what it refuses."""
    return text if len(text) <= most else f"{text[:most]} … ({len(text) - most} more characters)"


_UNUSUAL = re.compile(r"[^\x20-\x7e]")


def escaped(text: str, keep: str = "") -> str:
    """The text with `\\u001b` for each character that a terminal obeys or doesn't show: all controls, ends of lines too, what
    turns the direction of writing, what is unassigned. Those in `keep` stay.
    """
    return _UNUSUAL.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def _escaped(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


@dataclass(frozen=True, slots=True)
class Violation:
    """A field, and what is wrong with it."""

    # Path from the top of what the caller sent, like `models[0].versions[1].endpoints[0].port`; "" is the whole.
    field: str
    # A sentence that says what is wrong and what would be right.
    description: str


class Error(Exception):
    """What went wrong, for programs (`code`, `reason`, `violations`, `metadata`) and for people (`message`)."""

    def __init__(
        self,
        code: Code,
        reason: str,
        message: str,
        *,
        violations: tuple[Violation, ...] = (),
        metadata: dict[str, str] | None = None,
    ) -> None:
        message = redacted(message)
        super().__init__(message)
        self.code = code
        # UPPER_SNAKE_CASE, stable: programs switch on it.
        self.reason = reason
        self.message = message
        self.violations = tuple(Violation(redacted(v.field), redacted(v.description)) for v in violations)
        # Facts that a program may want, like the etag that is live.
        self.metadata = metadata or {}


def invalid(field: str, description: str, reason: str = "INVALID_FIELD") -> Error:
    """An INVALID_ARGUMENT about one field."""
    return Error(Code.INVALID_ARGUMENT, reason, f"{field}: {description}", violations=(Violation(field, description),))


def not_found(name: str, hint: str = "") -> Error:
    """A NOT_FOUND for a resource name; `hint` says what exists instead."""
    message = f"{name} does not exist" + (f"; {hint}" if hint else "")
    return Error(Code.NOT_FOUND, "NOT_FOUND", message, metadata={"name": name})


def failed_precondition(reason: str, field: str, description: str, **metadata: str) -> Error:
    """A FAILED_PRECONDITION about one field, given what the state is."""
    message = f"{field}: {description}" if field else description
    violations = (Violation(field, description),) if field else ()
    return Error(Code.FAILED_PRECONDITION, reason, message, violations=violations, metadata=metadata)


def stale_etag(name: str, given: str, live: str) -> Error:
    """An ABORTED: `name` has changed since the caller read it."""
    message = f"{name} has changed since it was read: etag {given} was given, {live} is live; read it again and retry"
    return Error(Code.ABORTED, "STALE_ETAG", message, metadata={"name": name, "given": given, "live": live})


def abbreviated(names: Sequence[str], most: int = 8) -> str:
    """Return a list for a sentence: `a, b`; of more than `most` names the first ones, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def prefixed(error: Error, prefix: str) -> Error:
    """Return the same error with each field's path extended by `prefix`, its parent."""
    return renamed(error, lambda field: join(prefix, field))


def renamed(error: Error, rename: Callable[[str], str]) -> Error:
    """Return the same error about fields that have other names in the caller's request."""
    violations = tuple(Violation(rename(v.field), v.description) for v in error.violations)
    message = f"{violations[0].field}: {violations[0].description}" if len(violations) == 1 else error.message
    return Error(error.code, error.reason, message, violations=violations, metadata=error.metadata)


def merged(errors: list[Error]) -> Error:
    """One error that says what all of them say; the first one's code and reason."""
    if len(errors) == 1:
        return errors[0]
    violations = tuple(v for e in errors for v in e.violations)
    message = "; ".join(e.message for e in errors)
    return Error(errors[0].code, errors[0].reason, message, violations=violations, metadata=errors[0].metadata)


def join(prefix: str, field: str) -> str:
    """`models[0]` and `name` make `models[0].name`; an index or nothing is appended as it is."""
    return prefix + field if not field or not prefix or field.startswith("[") else f"{prefix}.{field}"


@contextmanager
def within(prefix: str) -> Iterator[None]:
    """Whatever error is raised inside names its fields from further up."""
    try:
        yield
    except Error as error:
        raise prefixed(error, prefix) from None


class Collector:
    """Gathers the errors of siblings, so that a caller sees all of them at once."""

    def __init__(self) -> None:
        self.errors: list[Error] = []

    @contextmanager
    def within(self, prefix: str) -> Iterator[None]:
        """An error inside is kept for `check`, its fields named from further up."""
        try:
            yield
        except Error as error:
            self.errors.append(prefixed(error, prefix) if prefix else error)

    def check(self) -> None:
        """Raises all that was gathered, as one; nothing when there was none."""
        if self.errors:
            raise merged(self.errors)

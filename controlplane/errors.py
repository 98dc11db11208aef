"""Errors, split by whose fault they are.

There is one class: a code, a machine-readable reason, a sentence for a person, and the fields at fault. It is mapped to gRPC
in one place (`api/status.py`) and to exit codes in one place (`cli/exits.py`). A NACK is not an error but an event.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum


class Code(Enum):
    """The kind of an error, which says whose fault it is. The names are those of gRPC's status codes."""

    # The caller's fault: the same call can never succeed.
    INVALID_ARGUMENT = "invalid argument"
    NOT_FOUND = "not found"
    ALREADY_EXISTS = "already exists"
    # The caller's fault in the present state: the call may succeed once the state has changed.
    FAILED_PRECONDITION = "failed precondition"
    ABORTED = "aborted"
    RESOURCE_EXHAUSTED = "resource exhausted"
    # Our fault, or the machine's: the call may succeed later.
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)


def redacted(text: str) -> str:
    """Return the text without private keys in PEM, whole or cut off: the last defence behind code that quotes none."""
    return _KEY.sub("[a private key]", text) if "PRIVATE KEY" in text else text


def shortened(text: str, most: int = 4_000) -> str:
    """Return the text, cut off after `most` characters, for texts of clients that are shown in many places."""
    return text if len(text) <= most else f"{text[:most]} … ({len(text) - most} more characters)"


_UNUSUAL = re.compile(r"[^\x20-\x7e]")


def escaped(text: str, keep: str = "") -> str:
    r"""Return the text with `\u001b` and the like for each character that a terminal obeys or doesn't show.

    Those are all controls, ends of lines too, changes of the writing direction, and unassigned characters. Characters in
    `keep` stay.
    """
    return _UNUSUAL.sub(lambda match: match[0] if match[0] in keep else _escaped(match[0]), text)


def _escaped(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


@dataclass(frozen=True, slots=True)
class Violation:
    """A field, and the problem with it."""

    # Path from the top of the request, like `models[0].versions[1].endpoints[0].port`; "" is the whole request.
    field: str
    # A sentence that says what is wrong, and what would be right.
    description: str


class Error(Exception):
    """An error for programs (`code`, `reason`, `violations`, `metadata`) and for people (`message`)."""

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
        # Facts that a program may need, like the live etag.
        self.metadata = metadata or {}


def invalid(field: str, description: str, reason: str = "INVALID_FIELD") -> Error:
    """Return an INVALID_ARGUMENT about one field."""
    return Error(Code.INVALID_ARGUMENT, reason, f"{field}: {description}", violations=(Violation(field, description),))


def not_found(name: str, hint: str = "") -> Error:
    """Return a NOT_FOUND for a resource name; `hint` says what exists instead."""
    message = f"{name} does not exist" + (f"; {hint}" if hint else "")
    return Error(Code.NOT_FOUND, "NOT_FOUND", message, metadata={"name": name})


def failed_precondition(reason: str, field: str, description: str, **metadata: str) -> Error:
    """Return a FAILED_PRECONDITION about one field; "" is no field."""
    message = f"{field}: {description}" if field else description
    violations = (Violation(field, description),) if field else ()
    return Error(Code.FAILED_PRECONDITION, reason, message, violations=violations, metadata=metadata)


def stale_etag(name: str, etag: str, live: str) -> Error:
    """Return an ABORTED / STALE_ETAG: `name` has changed since the caller read it."""
    message = f"{name} has changed since it was read: etag {etag} was sent, {live} is live; read it again and retry"
    return Error(Code.ABORTED, "STALE_ETAG", message, metadata={"name": name, "given": etag, "live": live})


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
    """Return one error with the texts and fields of all; its code and reason are those of the first."""
    if len(errors) == 1:
        return errors[0]
    violations = tuple(v for e in errors for v in e.violations)
    message = "; ".join(e.message for e in errors)
    return Error(errors[0].code, errors[0].reason, message, violations=violations, metadata=errors[0].metadata)


def join(prefix: str, field: str) -> str:
    """Return the path of a field below `prefix`: `models[0]` and `name` make `models[0].name`, an index needs no dot."""
    return prefix + field if not field or not prefix or field.startswith("[") else f"{prefix}.{field}"


@contextmanager
def within(prefix: str) -> Iterator[None]:
    """Raise an error from inside with `prefix` before its fields."""
    try:
        yield
    except Error as error:
        raise prefixed(error, prefix) from None


class Collector:
    """Collects errors about several fields, so that a caller sees all of them at once."""

    def __init__(self) -> None:
        self.errors: list[Error] = []

    @contextmanager
    def within(self, prefix: str) -> Iterator[None]:
        """Keep an error from inside for `check`, with `prefix` before its fields."""
        try:
            yield
        except Error as error:
            self.errors.append(prefixed(error, prefix) if prefix else error)

    def check(self) -> None:
        """Raise all collected errors as one. Without any, return."""
        if self.errors:
            raise merged(self.errors)

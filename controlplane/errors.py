"""Errors, split by whose fault they are.

There is one class: a code, a machine-readable reason, a sentence for a person, and the fields at fault. It is mapped to gRPC
in one place (`api/status.py`) and to exit codes in one place (`cli/exits.py`). A NACK is not an error but an event.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from itertools import islice


class Code(Enum):
    """The kind of an error, which says whose fault it is. The names are those of gRPC's status codes."""

    # The caller's fault: the same call can never succeed.
    INVALID_ARGUMENT = "invalid argument"
    NOT_FOUND = "not found"
    ALREADY_EXISTS = "already exists"
    PERMISSION_DENIED = "permission denied"
    UNAUTHENTICATED = "unauthenticated"
    # The caller's fault in the present state: the call may succeed once the state has changed.
    FAILED_PRECONDITION = "failed precondition"
    ABORTED = "aborted"
    RESOURCE_EXHAUSTED = "resource exhausted"
    # The fault of Turnout or of its machine: the call may succeed later.
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


# Largest difference in length of a mistyped name and the right one.
_MAX_DIFFERENCE = 2
# Names that are compared with a mistyped one: a millisecond for a hundred of them.
_MAX_COMPARED = 1_000

_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)


def redacted(text: str) -> str:
    """Return the text with every private key in PEM replaced, also one that is cut off.

    No code should put a private key into a text. This is the last defence if some code does.
    """
    return _PRIVATE_KEY.sub("[a private key]", text) if "PRIVATE KEY" in text else text


def shortened(text: str, limit: int = 4_000) -> str:
    """Return the text, cut off after `limit` characters. It is for texts that clients sent."""
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text) - limit} more characters)"


_NOT_PLAIN_ASCII = re.compile(r"[^\x20-\x7e]")


def escaped(text: str, keep: str = "") -> str:
    r"""Return the text with an escape like `\u001b` for each character that a terminal interprets or does not show.

    These characters are all control characters, line ends included, changes of the writing direction, and unassigned
    characters. Characters in `keep` stay.
    """
    return _NOT_PLAIN_ASCII.sub(lambda match: match[0] if match[0] in keep else _escaped(match[0]), text)


def _escaped(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


@dataclass(frozen=True, slots=True)
class Violation:
    """One field and what is wrong with it."""

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
        # In UPPER_SNAKE_CASE. It never changes, because programs compare it.
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


def other_history(token: str, history: str, live: str, advice: str, name: str = "") -> Error:
    """Return an ABORTED / OTHER_HISTORY: a token, like `etag 7a0b93c1-26`, is of `history`, and the live history is `live`."""
    message = (
        f"{token} is of history {history}, and this control plane has history {live}: its store was restored from a backup or "
        f"started anew in the meantime, or the caller read from another control plane. {advice}"
    )
    metadata = {"given": history, "live": live} | ({"name": name} if name else {})
    return Error(Code.ABORTED, "OTHER_HISTORY", message, metadata=metadata)


def abbreviated(names: Sequence[str], limit: int = 8) -> str:
    """Return names as a list for a sentence, like `a, b`. From more than `limit` names: the first ones and a count."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return `did you mean 'iris'?` with the name that is most like a mistyped one; empty if none is like it."""
    # Names of another length can't be close. Comparing thousands of them would take long.
    likely = (other for other in names if abs(len(other) - len(name)) <= _MAX_DIFFERENCE)
    close = get_close_matches(name, list(islice(likely, _MAX_COMPARED)), n=1, cutoff=0.7)
    return f"did you mean '{close[0]}'?" if close else ""


def prefixed(error: Error, prefix: str) -> Error:
    """Return the same error with `prefix`, the path of the parent, before each field's path."""
    return renamed(error, lambda field: join_path(prefix, field))


def renamed(error: Error, rename: Callable[[str], str]) -> Error:
    """Return the same error with each field's path passed through `rename`: to the path in the caller's request."""
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


def join_path(prefix: str, field: str) -> str:
    """Return the path of a field below `prefix`: `models[0]` and `name` make `models[0].name`. An index needs no dot."""
    return prefix + field if not field or not prefix or field.startswith("[") else f"{prefix}.{field}"


@contextmanager
def within(prefix: str) -> Iterator[None]:
    """Raise an `Error` of the `with` block again, with `prefix` before its fields."""
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
        """Collect an `Error` of the `with` block instead of raising it, with `prefix` before its fields."""
        try:
            yield
        except Error as error:
            self.errors.append(prefixed(error, prefix) if prefix else error)

    def check(self) -> None:
        """Raise all collected errors as one error. Return if there are none."""
        if self.errors:
            raise merged(self.errors)

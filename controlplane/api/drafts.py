"""The write that a request asks for, and the draft of its revision.

A draft has the author, the reason, and the digest by which a repeated request is recognised.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from controlplane.api.authorization import CheckedChange, authorization
from controlplane.api.caller import caller
from controlplane.domain.cuts import CutPermit
from controlplane.domain.revision import Action, Draft
from controlplane.errors import Error, invalid
from controlplane.writer import Change, Outcome, Writer

M = TypeVar("M", bound=Message)

AUTHOR_KEY = "x-turnout-author"
AUTHOR_UTF8_KEY = "x-turnout-author-bin"  # UTF-8, for names that are not ASCII; it wins over the other
MAX_AUTHOR = 200  # characters
UNKNOWN = "unknown"  # the author of a call that names none
MAX_REASON = 1_000  # characters

_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def draft(request: Any, context: Any, action: Action, target: int = 0) -> Draft:
    """Return the draft of the revision that a request asks for. The writer sets its time.

    Errors: INVALID_ARGUMENT for a reason or an author that is too long, or a reason that is not one line of text.
    """
    if len(request.reason) > MAX_REASON:
        raise invalid("reason", f"is {len(request.reason):,} characters long: at most {MAX_REASON:,}")
    if match := _CONTROL_CHARACTER.search(request.reason):
        description = f"has a control character, U+{ord(match[0]):04X}, at {match.start()}: it must be one line of text"
        raise invalid("reason", description)
    access = authorization()
    if access.rules is not None and request.allow_cut and not request.validate_only and not request.reason.strip():
        raise invalid("reason", "is required with allow_cut: say why traffic may be cut", "REASON_REQUIRED")
    named = author(context.invocation_metadata() or ())
    identity = access.caller.identity
    return Draft(
        author=identity or named,
        note=named if identity and named != UNKNOWN else "",
        reason=request.reason,
        action=action,
        target=target,
        request_id=request.request_id,
        request_digest=digest(request, identity),
        caller=caller(context),
    )


# The methods whose requests are about many objects, most of which stay as they are.
_MANY = (Action.APPLY, Action.REVERT, Action.REVERT_REVISION)


async def write(writer: Writer, change: Change, request: Any, draft: Draft) -> Outcome:
    """Make a change with what its request and the caller's roles allow.

    A dry run that the roles do not allow has a warning. Errors: INVALID_ARGUMENT at `cut_token`; PERMISSION_DENIED /
    NEEDS_ROLE; those of the writer.
    """
    checked = CheckedChange(
        change, cut=request.allow_cut, unchanged=draft.action not in _MANY, validate_only=request.validate_only
    )
    outcome = await writer.write(
        checked,
        draft,
        permit=CutPermit(request.allow_cut, request.cut_token),
        # Requests that can't replace endpoints have no such field.
        probe=not getattr(request, "no_probe", False),
        validate_only=request.validate_only,
    )
    if not checked.refusal:
        return outcome
    warning = f"the change would be refused: {checked.refusal}"
    return replace(outcome, impact=replace(outcome.impact, warnings=(*outcome.impact.warnings, warning)))


def digest(request: Message, identity: str = "") -> str:
    """Return a digest of a request without its private keys: equal requests of one caller have equal digests."""
    prefix = f"{identity}\0{request.DESCRIPTOR.full_name}\0" if identity else f"{request.DESCRIPTOR.full_name}\0"
    text = prefix.encode() + without_keys(request).SerializeToString(deterministic=True)
    return hashlib.sha256(text).hexdigest()


def without_keys(request: M) -> M:
    """Return the request without its secret fields, so that nothing that is stored is derived from a private key.

    Two requests that differ only in a key have the same digest. That does no harm: a certificate has only one key, and a
    request with another key fails.
    """
    paths = secret_fields(request.DESCRIPTOR)
    if not paths:
        return request
    copy = type(request)()
    copy.CopyFrom(request)
    for path in paths:
        _clear(copy, path)
    return copy


@lru_cache(maxsize=256)
def secret_fields(message: Descriptor) -> tuple[tuple[str, ...], ...]:
    """Return the paths of the fields of a message, however deep, that are marked `debug_redact`."""
    paths: list[tuple[str, ...]] = []
    for field in message.fields:
        if field.GetOptions().debug_redact:
            paths.append((field.name,))
        elif (
            field.message_type is not None and field.message_type.file.package != "google.protobuf"
        ):  # Struct has itself in it
            paths += ((field.name, *path) for path in secret_fields(field.message_type))
    return tuple(paths)


def _clear(message: Any, path: tuple[str, ...]) -> None:
    """Clear the field at a path, in each element of the lists on the way."""
    name, *below = path
    if not below:
        message.ClearField(name)
        return
    value = getattr(message, name)
    if isinstance(value, Message):
        if message.HasField(name):
            _clear(value, tuple(below))
        return
    for element in value:
        _clear(element, tuple(below))


def who(context: Any) -> dict[str, str]:
    """Return the author and the address of a call, for the log. An author that is too long is left out."""
    try:
        name = author(context.invocation_metadata() or ())
    except Error:
        name = ""
    access = authorization()
    if access.rules is None:
        return {"author": name, "caller": caller(context)}
    return {"author": access.caller.identity, "caller": caller(context)} | (
        {"note": name} if name not in ("", UNKNOWN) else {}
    )


def author(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the printable part of the author in a call's metadata; `unknown` if there is none.

    Errors: INVALID_ARGUMENT when it is longer than 200 characters.
    """
    values = {key: value for key, value in metadata if key in (AUTHOR_KEY, AUTHOR_UTF8_KEY)}
    key = AUTHOR_UTF8_KEY if AUTHOR_UTF8_KEY in values else AUTHOR_KEY
    value = values.get(key, "")
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    printable = "".join(c for c in text if c.isprintable()).strip()
    if len(printable) > MAX_AUTHOR:
        raise invalid(key, f"is an author of more than {MAX_AUTHOR} characters")
    return printable or UNKNOWN

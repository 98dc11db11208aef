"""What the operator services share: who calls and why, etags, update masks, pages, and outcomes as protos."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from google.protobuf.message import Message

from controlplane import errors
from controlplane.api.convert import timestamp
from controlplane.domain import Object
from controlplane.domain.describe import lines
from controlplane.domain.revision import Action, Draft, ObjectMeta, Revision
from controlplane.envoy_types import short_name
from controlplane.errors import Error, Violation, invalid
from controlplane.generated.turnout.v1 import revision_pb2
from controlplane.writer import Impact, Outcome

M = TypeVar("M", bound=Message)
T = TypeVar("T")
R = TypeVar("R")

Clock = Callable[[], float]

AUTHOR_KEY = "x-turnout-author"
AUTHOR_UTF8_KEY = "x-turnout-author-bin"  # the same in UTF-8, for names that are not ASCII; it wins
MAX_AUTHOR = 200
MAX_REASON = 1_000

DEFAULT_PAGE = 100
MAX_PAGE = 1_000
# A page ends early when it grows past this: gRPC clients take messages of 4 MiB unless told otherwise.
PAGE_BYTES = 2 * 1024 * 1024

# Objects that are told of in a few milliseconds; more are told of on a thread.
_MANY = 50

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def draft(request: Any, context: Any, action: Action, reverted_to: int = 0) -> Draft:
    """What the caller says of the revision it wants; without a time.

    Errors: INVALID_ARGUMENT for a reason or an author that is too long, or a reason that is not one line of text.
    """
    if len(request.reason) > MAX_REASON:
        raise invalid("reason", f"is {len(request.reason):,} characters long: at most {MAX_REASON:,}")
    if found := _CONTROL.search(request.reason):
        said = f"has a control character, U+{ord(found[0]):04X}, at {found.start()}: it is one line of text"
        raise invalid("reason", said)
    asked = f"{request.DESCRIPTOR.full_name}\0".encode() + without_keys(request).SerializeToString(deterministic=True)
    return Draft(
        author=author(context.invocation_metadata() or ()),
        reason=request.reason,
        action=action,
        reverted_to=reverted_to,
        request_id=request.request_id,
        request_digest=hashlib.sha256(asked).hexdigest(),
    )


def without_keys(request: M) -> M:
    """The request without private keys, so that nothing that is kept is made of one.

    It is as good for telling calls apart: a certificate has one key, and a call with another fails.
    """
    fields = request.DESCRIPTOR.fields_by_name
    if "secret" not in fields and "manifest" not in fields:
        return request
    bare = type(request)()
    bare.CopyFrom(request)
    secrets = [bare.secret] if "secret" in fields else bare.manifest.secrets  # type: ignore[attr-defined]
    for secret in secrets:
        if secret.WhichOneof("content") == "tls_certificate":
            secret.tls_certificate.ClearField("private_key_pem")
    return bare


def author(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Who calls, as the metadata says: what of it is printable; `unknown` when nothing is said.

    Errors: INVALID_ARGUMENT when it is longer than 200 characters.
    """
    given = {key: value for key, value in metadata if key in (AUTHOR_KEY, AUTHOR_UTF8_KEY)}
    key = AUTHOR_UTF8_KEY if AUTHOR_UTF8_KEY in given else AUTHOR_KEY
    said = given.get(key, "")
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    printable = "".join(c for c in text if c.isprintable()).strip()
    if len(printable) > MAX_AUTHOR:
        raise invalid(key, f"is an author of more than {MAX_AUTHOR} characters")
    return printable or "unknown"


# ------------------------------------------------------------------------------------------------------------- etags


def check_new(etag: str) -> None:
    """Nothing when what is created has no etag. Errors: INVALID_ARGUMENT: it was read, and so it is not new."""
    if etag:
        raise invalid("etag", "must be unset: what is created has none yet")


# ------------------------------------------------------------------------------------------------------------- pages


def page_size(asked: int) -> int:
    """Most items of a page. Errors: INVALID_ARGUMENT when negative."""
    if asked < 0:
        raise invalid("page_size", f"{asked} is negative")
    return min(asked or DEFAULT_PAGE, MAX_PAGE)


def write_token(listing: str, after: str) -> str:
    """A page token: which listing it is of, and what came last in it. It stays good whatever changes in between."""
    return base64.urlsafe_b64encode(f"{listing}\0{after}".encode()).decode()


def read_token(listing: str, token: str) -> str:
    """What came last; "" without a token. Errors: INVALID_ARGUMENT."""
    if not token:
        return ""
    try:
        of, _, after = base64.urlsafe_b64decode(token.encode()).decode().partition("\0")
    except (binascii.Error, ValueError):
        of = after = ""
    if of != listing or not after:
        raise invalid("page_token", "is not a token that this list gave", "INVALID_PAGE_TOKEN")
    return after


def page(names: Iterable[str], make: Callable[[str], M], request: Any, listing: str) -> tuple[list[M], str]:
    """A page of what is listed by name, and the token of the next one."""
    size = page_size(request.page_size)
    after = read_token(listing, request.page_token)
    left = sorted(n for n in names if n > after)
    items: list[M] = []
    room = PAGE_BYTES
    for name in left[:size]:
        item = make(name)
        room -= item.ByteSize()
        if items and room < 0:
            break
        items.append(item)
    return items, write_token(listing, left[len(items) - 1]) if len(items) < len(left) else ""


# ------------------------------------------------------------------------------------------------------------ errors


@contextmanager
def named(fields: Mapping[str, str]) -> Iterator[None]:
    """Errors about `models/iris.keys` inside name the field of the request that it came from: {"models/iris": "model"}."""
    try:
        yield
    except Error as error:
        violations = tuple(Violation(_named(v.field, fields), v.description) for v in error.violations)
        raise Error(error.code, error.reason, error.message, violations=violations, metadata=error.metadata) from None


@contextmanager
def renamed(fields: Mapping[str, str]) -> Iterator[None]:
    """Rename fields of errors inside to those of the request: {"split": "split.shares"}."""
    try:
        yield
    except Error as error:
        raise errors.renamed(error, lambda field: fields.get(field, field)) from None


def _named(field: str, fields: Mapping[str, str]) -> str:
    name, dot, rest = field.partition(".")
    return f"{fields[name]}{dot}{rest}" if name in fields else field


# ---------------------------------------------------------------------------------------------------------- outcomes


def meta_of(outcome: Outcome, name: str, validate_only: bool) -> ObjectMeta | None:
    """When an object came to be as it is; None when it isn't: an etag that was never made must not fit a later one."""
    kept = outcome.head.meta.get(name)
    if validate_only and outcome.changed and kept is not None and kept.revision == outcome.head.number:
        return None
    return kept


def number_of(outcome: Outcome, validate_only: bool) -> int:
    """The revision made, or the newest one when nothing changed; 0 when validate_only."""
    return 0 if validate_only or outcome.revision is None else outcome.revision.number


_ACTIONS = {
    Action.CREATE: revision_pb2.ACTION_CREATE,
    Action.UPDATE: revision_pb2.ACTION_UPDATE,
    Action.DELETE: revision_pb2.ACTION_DELETE,
    Action.APPLY: revision_pb2.ACTION_APPLY,
    Action.SWITCH: revision_pb2.ACTION_SWITCH,
    Action.REVERT: revision_pb2.ACTION_REVERT,
}


def revision_to_proto(revision: Revision) -> revision_pb2.Revision:
    """A revision as the API shows it."""
    return revision_pb2.Revision(
        name=f"revisions/{revision.number}",
        number=revision.number,
        create_time=timestamp(revision.draft.time),
        author=revision.draft.author,
        reason=revision.draft.reason,
        action=_ACTIONS[revision.draft.action],
        changes=changes_to_proto(revision.changes),
        reverted_to=revision.draft.reverted_to,
    )


async def shown(outcome: Outcome) -> revision_pb2.Revision | None:
    """The revision of an outcome; what takes long to tell is told on a thread."""
    if outcome.revision is None:
        return None
    return await told(revision_to_proto, outcome.revision, len(outcome.revision.changes))


async def told(make: Callable[[T], R], of: T, objects: int) -> R:
    """`make(of)`, beside the event loop when it is about many objects."""
    return make(of) if objects < _MANY else await asyncio.to_thread(make, of)


def changes_to_proto(changes: Mapping[str, tuple[Object | None, Object | None]]) -> list[revision_pb2.Change]:
    """What became of each object."""
    return [
        revision_pb2.Change(
            name=name,
            kind=revision_pb2.CHANGE_KIND_CREATED
            if old is None
            else revision_pb2.CHANGE_KIND_DELETED
            if new is None
            else revision_pb2.CHANGE_KIND_UPDATED,
            lines=lines(old, new),
        )
        for name, (old, new) in sorted(changes.items())
    ]


def impact_to_proto(impact: Impact) -> revision_pb2.Impact:
    """What a change is to the Envoys, as the API shows it."""
    return revision_pb2.Impact(
        types=[
            revision_pb2.TypeImpact(type=short_name(t), changed=changed, removed=removed)
            for t, (changed, removed) in impact.types.items()
        ],
        nodes=impact.nodes,
        bytes_per_node=impact.bytes_per_node,
        warnings=impact.warnings,
    )

"""Outcomes of writes, as responses report them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from controlplane.api.convert.revision import revision_to_proto
from controlplane.domain.revision import ObjectMeta
from controlplane.generated.turnout.v1 import revision_pb2
from controlplane.writer import Outcome

T = TypeVar("T")
R = TypeVar("R")

# Up to this many objects are converted on the event loop, in a few milliseconds; more are converted on a thread.
_FEW = 50


def meta_of(outcome: Outcome, name: str, validate_only: bool) -> ObjectMeta | None:
    """Return the metadata of an object after a write.

    None if the object was only validated: a later revision may get the number, and the etag must not match that one.
    """
    meta = outcome.head.meta.get(name)
    if validate_only and outcome.changed and meta is not None and meta.revision == outcome.head.number:
        return None
    return meta


def number_of(outcome: Outcome, validate_only: bool) -> int:
    """Return the number of the new revision, or of the newest one if nothing changed; 0 if only validated."""
    return 0 if validate_only or outcome.revision is None else outcome.revision.number


async def revision_of(outcome: Outcome) -> revision_pb2.Revision | None:
    """Return the revision of an outcome; None if there is no revision yet."""
    if outcome.revision is None:
        return None
    return await off_loop(revision_to_proto, outcome.revision, len(outcome.revision.changes))


async def off_loop(convert: Callable[[T], R], value: T, objects: int) -> R:
    """Return `convert(value)`, computed on a thread if the value contains many objects."""
    return convert(value) if objects <= _FEW else await asyncio.to_thread(convert, value)

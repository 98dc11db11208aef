"""Revisions: a draft of a change, an accepted change, and the head, which is desired state as of its newest revision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from controlplane.domain.collections import Object
from controlplane.domain.state import Changes, State

# The name of the newest revision.
LATEST = "revisions/latest"


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """The history of an object in short. Times are seconds since the epoch."""

    revision: int  # the one in which it last changed: its etag
    create_time: float
    update_time: float


class Action(Enum):
    """The kind of call that made a revision."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    APPLY = "apply"
    SWITCH = "switch"
    REVERT = "revert"


@dataclass(frozen=True, slots=True)
class Draft:
    """The facts about a revision that its caller gives."""

    author: str
    reason: str
    action: Action
    # The time at which it is made, seconds since the epoch; 0.0 until the writer begins with it.
    time: float = 0.0
    # 0 unless action is REVERT.
    reverted_to: int = 0
    # UUID of the call, "" when it has none; and a digest of the request, to tell a replay from a reused id.
    request_id: str = ""
    request_digest: str = ""


@dataclass(frozen=True, slots=True)
class Revision:
    """One accepted change."""

    number: int
    draft: Draft
    # The object before and the object now, by resource name, sorted; None where it did not exist, or was deleted.
    changes: Mapping[str, tuple[Object | None, Object | None]]


@dataclass(frozen=True, slots=True)
class Head:
    """Desired state as of its newest revision; number 0 is the empty state before any."""

    number: int = 0
    state: State = State()
    # By resource name, for each object of `state`.
    meta: Mapping[str, ObjectMeta] = field(default_factory=dict)
    # The time at which this revision was made, seconds since the epoch; 0.0 for number 0.
    time: float = 0.0

    def after(self, changes: Changes, draft: Draft) -> Head:
        """Return the next head, once `changes` are made by `draft`. Objects that don't change stay the same objects."""
        meta = dict(self.meta)
        for name, obj in changes.objects.items():
            before = meta.pop(name, None)
            if obj is not None:
                meta[name] = ObjectMeta(self.number + 1, before.create_time if before else draft.time, draft.time)
        return Head(self.number + 1, self.state.replayed(changes), meta, draft.time)

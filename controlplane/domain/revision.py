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
    """When an object came to be as it is. Times are seconds since the epoch."""

    revision: int  # in which it last changed: its etag
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
    """What a caller says of a revision it wants to make."""

    author: str
    reason: str
    action: Action
    # When it is made, seconds since the epoch; 0.0 until it is the writer's turn.
    time: float = 0.0
    # 0 unless action is REVERT.
    reverted_to: int = 0
    # UUID of the call, "" when it gave none; and a digest of what it asked, to tell a replay from a reused id.
    request_id: str = ""
    request_digest: str = ""


@dataclass(frozen=True, slots=True)
class Revision:
    """One accepted change."""

    number: int
    draft: Draft
    # What was before and what is now, by resource name, gateways first; None: it was, or is, not there.
    changes: Mapping[str, tuple[Object | None, Object | None]]


@dataclass(frozen=True, slots=True)
class Head:
    """Desired state as of its newest revision; number 0 is the empty state before any."""

    number: int = 0
    state: State = State()
    # By resource name: when each object of `state` came to be as it is.
    meta: Mapping[str, ObjectMeta] = field(default_factory=dict)
    # When this revision was made, seconds since the epoch; 0.0 for number 0.
    time: float = 0.0

    def after(self, changes: Changes, draft: Draft) -> Head:
        """Return the next head, once `changes` are made by `draft`. Objects that don't change stay the same objects."""
        meta = dict(self.meta)
        for name, obj in changes.objects.items():
            before = meta.pop(name, None)
            if obj is not None:
                meta[name] = ObjectMeta(self.number + 1, before.create_time if before else draft.time, draft.time)
        return Head(self.number + 1, self.state.replayed(changes), meta, draft.time)

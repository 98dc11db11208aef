"""Revisions: the draft of a change, the accepted change, and the head, which is the newest desired state."""

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
    """The revision of an object's last change, and its times, which are seconds since the epoch."""

    revision: int  # the number of that revision
    create_time: float
    update_time: float
    history: str = ""  # the id of the history that the revision is in

    @property
    def etag(self) -> str:
        """The etag of the object."""
        return f"{self.history}-{self.revision}"


class Action(Enum):
    """The kind of call that made a revision."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    APPLY = "apply"
    SWITCH = "switch"
    REVERT = "revert"  # restored the whole state of an earlier revision
    UNDO = "undo"  # returned models to their previous splits
    REVERT_REVISION = "revert_revision"  # took back the changes of one revision


@dataclass(frozen=True, slots=True)
class Draft:
    """The facts about a revision that its author gives."""

    author: str
    reason: str
    action: Action
    # The time of the revision, seconds since the epoch; 0.0 until the writer sets it.
    time: float = 0.0
    # The number of the revision that was restored, undone or reverted. 0 for other actions, and for an undo of models that
    # different revisions moved.
    target: int = 0
    # UUID of the call, or "". With an id there is a digest of the request, to distinguish a replay from a reused id.
    request_id: str = ""
    request_digest: str = ""
    # Address of the caller, `ip:port`, for the log. It is not stored.
    caller: str = field(default="", compare=False)
    # What the caller says about the author, when a credential proves who it is. For the log; it is not stored.
    note: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Revision:
    """One accepted change."""

    number: int
    draft: Draft
    # By resource name, sorted: the object before and after the revision. None means that the object does not exist.
    changes: Mapping[str, tuple[Object | None, Object | None]]
    # The id of the history that the revision is in.
    history: str = ""

    @property
    def etag(self) -> str:
        """The etag of `revisions/latest` while this revision is the newest."""
        return f"{self.history}-{self.number}"


@dataclass(frozen=True, slots=True)
class Head:
    """Desired state as the revision `number` left it. Number 0 is the empty state before the first revision."""

    number: int = 0
    state: State = State()
    # By resource name, for each object of `state`.
    meta: Mapping[str, ObjectMeta] = field(default_factory=dict)
    # The time of this revision, seconds since the epoch; 0.0 for number 0.
    time: float = 0.0
    # The id of the history that the revision is in. Heads without a store have none.
    history: str = ""

    @property
    def etag(self) -> str:
        """The etag of `revisions/latest` while this is the newest head."""
        return f"{self.history}-{self.number}"

    def after(self, changes: Changes, draft: Draft) -> Head:
        """Return the next head: this one with `changes`, made by `draft`. Objects that don't change stay the same objects."""
        meta = dict(self.meta)
        for name, obj in changes.objects.items():
            before = meta.pop(name, None)
            if obj is not None:
                create_time = before.create_time if before else draft.time
                meta[name] = ObjectMeta(self.number + 1, create_time, draft.time, self.history)
        return Head(self.number + 1, self.state.replayed(changes), meta, draft.time, self.history)

"""The store: an append-only history of revisions with compare-and-set.

This file is the contract; each technology is a file of its own beside it, and passes the one suite in
`tests/store/contract.py`. The store knows nothing of gRPC, of Envoy, or of who may do what.

What every store keeps:
- A revision is there whole or not at all, and `commit` returns only when it is durable.
- Numbers are 1, 2, 3 … without a gap. Nothing that was committed ever changes.
- A commit that is not based on the newest revision is refused and changes nothing.
- A request id is remembered with the revision that it made, or that it found when it changed nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from controlplane.latest import Latest
from controlplane.model import Object
from controlplane.state import Changes, Kept, State


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
    kept: Mapping[str, Kept] = field(default_factory=dict)
    # When this revision was made, seconds since the epoch; 0.0 for number 0.
    time: float = 0.0

    def after(self, changes: Changes, draft: Draft) -> Head:
        """The next head, once `changes` are made by `draft`; the same object for who proposes it and who then makes it."""
        global _proposed
        key, proposed = _proposed
        if key[0] is self and key[1] is changes and key[2] is draft:
            assert isinstance(proposed, Head)
            return proposed
        kept = dict(self.kept)
        for name, obj in changes.objects.items():
            before = kept.pop(name, None)
            if obj is not None:
                kept[name] = Kept(self.number + 1, before.create_time if before else draft.time, draft.time)
        after = Head(self.number + 1, self.state.replayed(changes), kept, draft.time)
        _proposed = (self, changes, draft), after
        return after


# The newest head that `after` made, and what it made it of.
_proposed: tuple[tuple[object, object, object], Head | None] = ((None, None, None), None)


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a request id led to."""

    digest: str
    revision: int


class Store(Protocol):
    """Where revisions are kept. Methods are called on one event loop. Errors: UNAVAILABLE when the technology is away."""

    @property
    def head(self) -> Latest[Head]:
        """The newest revision this process knows of; its watchers are woken at each new one."""

    async def commit(self, base: int, changes: Changes, draft: Draft) -> Head:
        """Makes revision `base + 1`, durably, and returns it as the new head.

        `changes` is not empty and was checked against the state at `base`. Errors: ABORTED / CONFLICT when `base` is not the
        newest; ALREADY_EXISTS / REQUEST_ID_USED when the request id is remembered already.
        """

    async def remember(self, request_id: str, digest: str, revision: int) -> None:
        """Remembers a call that changed nothing. Errors: ALREADY_EXISTS / REQUEST_ID_USED."""

    async def recall(self, request_id: str) -> Remembered | None:
        """What a request id led to, or None when it is new."""

    async def at(self, number: int) -> Head:
        """The state as of a revision; 0 is empty. Errors: NOT_FOUND."""

    async def revision(self, number: int) -> Revision:
        """One revision. Errors: NOT_FOUND."""

    async def revisions(self, before: int, limit: int, object_name: str = "") -> list[Revision]:
        """Up to `limit` revisions below `before`, newest first; only those that changed `object_name`, if given."""

    async def close(self) -> None:
        """Lets go of the technology. Nothing may be called afterwards."""

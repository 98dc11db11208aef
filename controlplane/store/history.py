"""History: the append-only revisions of desired state.

- Numbers are 1, 2, 3 … without a gap. Nothing that was committed ever changes.
- A commit that is not based on the newest revision is refused, and changes nothing.
- A request id is remembered with the revision that it made, or with the newest one when it changed nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from controlplane.aio.latest import Latest
from controlplane.domain.revision import Draft, Head, Revision
from controlplane.domain.state import Changes
from controlplane.errors import Code, Error
from controlplane.store.lease import Fence


@dataclass(frozen=True, slots=True)
class Remembered:
    """The result of a request id."""

    # Digest of the request, to tell a replay from a reused id.
    digest: str
    revision: int


class History(Protocol):
    """The first part of the contract."""

    @property
    def head(self) -> Latest[Head]:
        """The newest revision that this process knows of. Its watchers are woken at each new one."""

    async def commit(self, proposed: Head, changes: Changes, draft: Draft, *, fence: Fence | None = None) -> Head:
        """Make the revision `proposed.number` durably, and return the new head: the very object `proposed`.

        `proposed` is `head.after(changes, draft)` of the head that the change is based on. `changes` is not empty.
        Errors: ABORTED / CONFLICT when `proposed` does not follow the newest revision; ALREADY_EXISTS / REQUEST_ID_USED;
        ABORTED / LEASE_LOST.
        """

    async def remember(self, request_id: str, digest: str, revision: int, *, fence: Fence | None = None) -> None:
        """Remember a call that changed nothing. Errors: ALREADY_EXISTS / REQUEST_ID_USED; ABORTED / LEASE_LOST."""

    async def recall(self, request_id: str) -> Remembered | None:
        """Return the result of a request id, or None when it is new."""

    async def at(self, number: int) -> Head:
        """Return the state as of a revision; 0 is empty. Errors: NOT_FOUND."""

    async def revision(self, number: int) -> Revision:
        """Return one revision. Errors: NOT_FOUND."""

    async def revisions(self, before: int, limit: int, object_name: str = "") -> list[Revision]:
        """Return up to `limit` revisions below `before`, newest first; with `object_name`, only those that changed it."""


def conflict(base: int, live: int) -> Error:
    """Return the ABORTED / CONFLICT of a commit that was based on a revision that is not the newest."""
    return Error(
        Code.ABORTED,
        "CONFLICT",
        f"revision {live} was made in the meantime (the change was based on {base}); try again",
        metadata={"expected": str(base), "live": str(live)},
    )

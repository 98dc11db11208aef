"""History: the append-only revisions of desired state.

- Numbers are 1, 2, 3 … without a gap. A committed revision never changes.
- A commit that is not based on the newest revision is refused, and changes nothing.
- A request id is remembered with the revision that its request committed. If the request changed nothing, the id is
  remembered with the revision that was the newest then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from controlplane.aio.latest import Latest
from controlplane.domain.revision import Draft, Head, Revision
from controlplane.domain.state import Changes
from controlplane.errors import Code, Error
from controlplane.store.lease import Fence


@dataclass(frozen=True, slots=True)
class RememberedRequest:
    """A request that has an id and was handled before."""

    # Digest of the request, to distinguish a replay from a reused id.
    digest: str
    # Number of the revision that the request committed, or of the newest one when the request changed nothing.
    revision: int


class History(Protocol):
    """The first part of the contract."""

    @property
    def head(self) -> Latest[Head]:
        """The newest revision that this process knows. Each new revision wakes the watchers."""

    async def commit(
        self,
        proposed: Head,
        changes: Changes,
        draft: Draft,
        *,
        fence: Fence | None = None,
        on_commit: Callable[[], None] | None = None,
    ) -> Head:
        """Commit the revision `proposed.number`, and return the new head, which is the object `proposed` itself.

        `proposed` is `head.after(changes, draft)`, where `head` is the head that the change is based on. `changes` is not
        empty. `on_commit` is called when the revision is durable, before `head` changes, so before anybody can serve it.

        Errors: ABORTED / CONFLICT when `proposed` does not follow the newest revision; ALREADY_EXISTS / REQUEST_ID_USED;
        ABORTED / LEASE_LOST.
        """

    async def remember(self, request_id: str, digest: str, revision: int, *, fence: Fence | None = None) -> None:
        """Remember a request that changed nothing. Errors: ALREADY_EXISTS / REQUEST_ID_USED; ABORTED / LEASE_LOST."""

    async def recall(self, request_id: str) -> RememberedRequest | None:
        """Return the request with an id, or None when the id is new."""

    async def at(self, number: int) -> Head:
        """Return the head at a revision; 0 is the empty state. Errors: NOT_FOUND."""

    async def revision(self, number: int) -> Revision:
        """Return one revision. Errors: NOT_FOUND."""

    async def revisions(self, before: int, limit: int, object_name: str = "") -> list[Revision]:
        """Return up to `limit` revisions with a number below `before`, newest first.

        With `object_name`, return only revisions that changed the object of that name.
        """


def conflict(base: int, live: int) -> Error:
    """Return the ABORTED / CONFLICT of a commit that is based on revision `base`, when `live` is the newest."""
    return Error(
        Code.ABORTED,
        "CONFLICT",
        f"revision {live} was committed in the meantime (the change is based on {base}); try again",
        metadata={"expected": str(base), "live": str(live)},
    )

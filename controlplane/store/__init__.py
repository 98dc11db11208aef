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

from dataclasses import dataclass
from typing import Protocol

from controlplane.aio.latest import Latest
from controlplane.domain.revision import Draft, Head, Revision
from controlplane.domain.state import Changes
from controlplane.errors import Code, Error


def conflict(expected: int, live: int) -> Error:
    """Return the ABORTED / CONFLICT of a commit that was based on a revision that is not the newest."""
    return Error(
        Code.ABORTED,
        "CONFLICT",
        f"revision {live} was made in the meantime (the change was based on {expected}); try again",
        metadata={"expected": str(expected), "live": str(live)},
    )


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

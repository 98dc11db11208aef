"""Leases: each has at most one holder at a time, and a fencing token that makes late writes of an earlier holder fail.

A lease alone is not enough: the process of its holder may pause for longer than the lease lasts, and then write. So each
acquisition gets a token that is larger than all tokens before. A write that requires the lease (`fence`) names the token. The
store refuses the write if the lease was released, or acquired again.

| call | the lease is free or has expired | the lease is held |
|---|---|---|
| acquire | the caller holds it, with a new token | FAILED_PRECONDITION / LEASE_HELD |
| renew | ABORTED / LEASE_LOST | by the holder: prolonged, same token; by others: ABORTED / LEASE_LOST |
| release | no effect | by the holder: the lease is free; by others: no effect |

The time is an argument, in seconds since the epoch. A store that has its own clock ignores the argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from controlplane.errors import Code, Error


@dataclass(frozen=True, slots=True)
class Fence:
    """A condition of a write: the acquisition with this token is the newest of the lease, and was not released."""

    lease: str
    token: int


@dataclass(frozen=True, slots=True)
class Lease:
    """One acquisition of a lease."""

    name: str
    # The name of the holder; unique among the processes that use the store.
    holder: str
    # Larger than the token of every acquisition before.
    token: int
    # Seconds since the epoch.
    expires: float

    @property
    def fence(self) -> Fence:
        """The condition for writes that only the holder may make."""
        return Fence(self.name, self.token)


class Leases(Protocol):
    """The third part of the contract."""

    async def acquire(self, name: str, holder: str, seconds: float, now: float) -> Lease:
        """Acquire a lease for `seconds`. Errors: FAILED_PRECONDITION / LEASE_HELD, also for the same holder."""

    async def renew(self, lease: Lease, seconds: float, now: float) -> Lease:
        """Prolong a lease to `now + seconds`, and return it. Errors: ABORTED / LEASE_LOST."""

    async def release(self, lease: Lease) -> None:
        """Give up a lease. If it was lost already, nothing happens."""

    async def current(self, name: str, now: float) -> Lease | None:
        """Return the acquisition that holds a lease now, or None."""


def lease_held(lease: Lease, now: float) -> Error:
    """Return the FAILED_PRECONDITION / LEASE_HELD for a caller that wants a lease that is held."""
    message = f"lease {lease.name} is held by {lease.holder} for another {lease.expires - now:.1f} s"
    return Error(Code.FAILED_PRECONDITION, "LEASE_HELD", message, metadata={"holder": lease.holder})


def lease_lost(fence: Fence) -> Error:
    """Return the ABORTED / LEASE_LOST for a caller that no longer holds its lease."""
    message = f"lease {fence.lease} was lost: it expired, was released, or was acquired again. Nothing was changed"
    return Error(Code.ABORTED, "LEASE_LOST", message, metadata={"lease": fence.lease, "token": str(fence.token)})

"""Leases: at most one holder at a time, and a token that makes a deposed holder's late writes fail.

A lease alone is not enough: its holder may be stopped for longer than the lease lasts, and then write. So each acquisition
has a token that is larger than all before, and a write that requires the lease (`fence`) names the token. The store refuses
the write when the lease was released, or acquired again.

| call | the lease is free, or has expired | it is held |
|---|---|---|
| acquire | the caller holds it, with a new token | FAILED_PRECONDITION / LEASE_HELD |
| renew | ABORTED / LEASE_LOST | its holder: prolonged, the same token; others: ABORTED / LEASE_LOST |
| release | nothing happens | its holder: free; others: nothing happens |

The time is an argument, in seconds since the epoch. A store with a clock of its own uses that clock instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from controlplane.errors import Code, Error


@dataclass(frozen=True, slots=True)
class Fence:
    """A condition of a write: this acquisition of a lease is the last one, and was not released."""

    lease: str
    token: int


@dataclass(frozen=True, slots=True)
class Lease:
    """One acquisition of a lease."""

    name: str
    # The name of its holder; unique among the processes that use the store.
    holder: str
    # Larger than that of every acquisition before.
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
        """Acquire a lease for so many seconds. Errors: FAILED_PRECONDITION / LEASE_HELD, also for the same holder."""

    async def renew(self, lease: Lease, seconds: float, now: float) -> Lease:
        """Prolong a lease until `seconds` from now, and return it. Errors: ABORTED / LEASE_LOST."""

    async def release(self, lease: Lease) -> None:
        """Give up a lease; nothing happens when it was lost already."""

    async def current(self, name: str, now: float) -> Lease | None:
        """Return the acquisition that holds a lease now, or None."""


def held(lease: Lease, now: float) -> Error:
    """Return the FAILED_PRECONDITION / LEASE_HELD of an acquisition that came too early."""
    message = f"lease {lease.name} is held by {lease.holder} for another {lease.expires - now:.1f} s"
    return Error(Code.FAILED_PRECONDITION, "LEASE_HELD", message, metadata={"holder": lease.holder})


def lost(fence: Fence) -> Error:
    """Return the ABORTED / LEASE_LOST of a call by a holder that was deposed."""
    message = f"lease {fence.lease} was lost: it expired, was released, or was acquired again. Nothing was changed"
    return Error(Code.ABORTED, "LEASE_LOST", message, metadata={"lease": fence.lease, "token": str(fence.token)})

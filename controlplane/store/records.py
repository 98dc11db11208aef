"""Records: small named objects outside history, like nodes or the state of rollouts.

- A record's version is never used again, not even after the record was deleted. Versions grow with time.
- A write names the version that it replaces; 0 means that there is no record. If the live version differs, the write is
  refused.
- Each kind has a bound on the number of its records and on the size of one record.
- A watcher gets the newest value of each record. There is no queue, so it may miss values in between.
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from controlplane.errors import Code, Error
from controlplane.store.lease import Fence

# Maximum length of a record's name in UTF-8, in bytes.
MAX_NAME = 512


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of record, and its bounds."""

    name: str
    max_records: int
    # Maximum size of one record's value, in bytes.
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Record:
    """The content of one record at one version."""

    name: str
    version: int
    value: bytes


@dataclass(frozen=True, slots=True)
class RecordWrite:
    """One write of a batch."""

    name: str
    # The new value; None deletes the record.
    value: bytes | None
    # The version that the write replaces; 0: there is no record.
    expected: int


class Records(Protocol):
    """The second part of the contract."""

    async def get(self, kind: Kind, name: str) -> Record | None:
        """Return a record, or None when there is none."""

    async def list(self, kind: Kind) -> list[Record]:
        """Return all records of a kind, sorted by name."""

    async def put(self, kind: Kind, name: str, value: bytes, expected: int, *, fence: Fence | None = None) -> Record:
        """Replace the record whose version is `expected`, or create it if `expected` is 0. Return the new record.

        Errors: ABORTED / RECORD_CHANGED if the live version is not `expected`; RESOURCE_EXHAUSTED / TOO_MANY_RECORDS or
        RECORD_TOO_LARGE beyond the bounds of the kind; ABORTED / LEASE_LOST.
        """

    async def delete(self, kind: Kind, name: str, expected: int, *, fence: Fence | None = None) -> None:
        """Delete the record whose version is `expected`. Errors: ABORTED / RECORD_CHANGED; ABORTED / LEASE_LOST."""

    async def write(
        self, kind: Kind, writes: Sequence[RecordWrite], *, fence: Fence | None = None
    ) -> builtins.list[Record | Error | None]:
        """Make several writes of one kind in order, at the cost of one. Each succeeds or fails by itself.

        Return the outcome of each write: the new record, None for a record that was deleted, or the error that `put` or
        `delete` would raise. When the method returns, all writes that succeeded are durable. Errors: ABORTED / LEASE_LOST, for
        all writes together.
        """

    def watch(self, kind: Kind) -> AsyncIterator[Mapping[str, Record | None]]:
        """Yield all records of a kind by name, then each time those that changed. The value of a deleted record is None."""


def check_size(kind: Kind, name: str, value: bytes) -> None:
    """Check a name and a value against the bounds of a kind. Errors: RESOURCE_EXHAUSTED / RECORD_TOO_LARGE."""
    size = len(name.encode())
    if not 0 < size <= MAX_NAME:
        raise _exhausted("RECORD_TOO_LARGE", f"the name of a record of {kind.name} has {size} bytes: use 1 to {MAX_NAME}")
    if len(value) > kind.max_bytes:
        description = f"{kind.name}/{name} has {len(value):,} bytes: the limit is {kind.max_bytes:,}"
        raise _exhausted("RECORD_TOO_LARGE", description)


def too_many_records(kind: Kind) -> Error:
    """Return the RESOURCE_EXHAUSTED / TOO_MANY_RECORDS of a new record beyond the bound of its kind."""
    return _exhausted(
        "TOO_MANY_RECORDS", f"there are {kind.max_records:,} {kind.name} already: that is the limit, so delete some first"
    )


def record_changed(kind: Kind, name: str, expected: int, live: int) -> Error:
    """Return the ABORTED / RECORD_CHANGED of a write that is based on version `expected`, when `live` is the newest."""
    state = f"has version {live} now" if live else "does not exist"
    return Error(
        Code.ABORTED,
        "RECORD_CHANGED",
        f"{kind.name}/{name} {state} (the write is based on version {expected}); read it again and retry",
        metadata={"expected": str(expected), "live": str(live)},
    )


def _exhausted(reason: str, message: str) -> Error:
    return Error(Code.RESOURCE_EXHAUSTED, reason, message)

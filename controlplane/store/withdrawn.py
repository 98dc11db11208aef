"""Withdrawn keys: private keys and opaque values that are in the history, and that the newest revision does not use.

They stay, so that going back is possible, until somebody purges them.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class WithdrawnKey:
    """A private key or a value that the newest revision does not use."""

    secret: str  # the label
    # A random id.
    id: str
    # The time of the revision that withdrew it, in seconds since the epoch.
    time: float


class WithdrawnKeys(Protocol):
    """The withdrawn keys of a store."""

    async def list(self) -> list[WithdrawnKey]:
        """Return the withdrawn keys that were not purged, oldest first."""

    async def purge(self, keys: Iterable[WithdrawnKey]) -> builtins.list[WithdrawnKey]:
        """Remove keys that are still withdrawn, and return those. No file of the store has them when the method returns.

        Objects of old revisions that had such a key are read as purged.
        """

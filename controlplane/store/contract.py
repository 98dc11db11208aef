"""The contract of a store: three parts, and what holds for all of them.

| part | holds | written by |
|---|---|---|
| history | revisions of desired state, append-only | compare-and-set on the newest number |
| records | small named objects that are no part of desired state | compare-and-set on the record's version |
| leases | who may do what only one replica may do | acquire, renew, release |

- A write happens whole or not at all, and its method returns only when it is durable.
- Any write can require that a lease is still held (`fence`). The check and the write are one step.
- A write goes on when its caller is cancelled.
"""

from __future__ import annotations

from typing import Protocol

from controlplane.store.history import History
from controlplane.store.lease import Leases
from controlplane.store.records import Records


class Store(History, Protocol):
    """A store that is open. Its methods are called on one event loop. Errors: UNAVAILABLE when the technology is away."""

    @property
    def history_id(self) -> str:
        """A random name of this history: 8 hexadecimal digits, made when the store was initialised."""

    @property
    def records(self) -> Records:
        """The second part of the contract."""

    @property
    def leases(self) -> Leases:
        """The third part of the contract."""

    async def close(self) -> None:
        """Wait for a write under way, and close the technology. Nothing may be called afterwards."""

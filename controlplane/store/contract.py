"""The contract of a store: three parts, and the rules for all of them.

| part | content | written by |
|---|---|---|
| history | revisions of desired state, append-only | compare-and-set on the newest number |
| records | small named objects that are not part of desired state | compare-and-set on the record's version |
| leases | the holder of each right that only one replica may have at a time | acquire, renew, release |

- A write is atomic. Its method returns only when the write is durable.
- Any write can require that a lease is still held (`fence`). The check and the write are one atomic step.
- If the caller of a write is cancelled, the write is still completed.
"""

from __future__ import annotations

from typing import Protocol

from controlplane.store.history import History
from controlplane.store.lease import Leases
from controlplane.store.records import Records
from controlplane.store.withdrawn import WithdrawnKeys


class Store(History, Protocol):
    """An open store. Its methods are called on one event loop. Errors: UNAVAILABLE when the technology does not answer."""

    @property
    def history_id(self) -> str:
        """A random name of this history: 8 hexadecimal digits, chosen when the store was created."""

    @property
    def records(self) -> Records:
        """The second part of the contract."""

    @property
    def leases(self) -> Leases:
        """The third part of the contract."""

    @property
    def withdrawn_keys(self) -> WithdrawnKeys:
        """The private keys of old revisions."""

    async def close(self) -> None:
        """Wait for the write in progress, and close the store. Nothing may be called afterwards."""

"""Purges private keys and opaque values that were withdrawn long ago.

The time counts from the moment when a server first sees that a key is withdrawn, which a record keeps. So neither an upgrade
nor a restored backup makes a server purge at once what could come back a minute before.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog

from controlplane.errors import Error
from controlplane.store import Kind, Records, RecordWrite, WithdrawnKey
from controlplane.writer import Writer

log = structlog.get_logger("purge")

KIND = Kind("withdrawn_keys", max_records=100_000, max_bytes=32)

INTERVAL = 3600.0  # seconds between two checks


async def purge_keys(
    writer: Writer, chosen: Callable[[WithdrawnKey], bool], *, validate_only: bool = False
) -> Sequence[WithdrawnKey]:
    """Remove the withdrawn keys that `chosen` accepts from the store. Return them."""
    async with writer.lock:  # no change is in progress that goes back to one of them
        withdrawn = writer.store.withdrawn_keys
        keys = [key for key in await withdrawn.list() if chosen(key)]
        if keys and not validate_only:
            keys = await withdrawn.purge(keys)
            log.info("keys purged", secrets=sorted({key.secret for key in keys}), keys=len(keys))
        return keys


class KeyPurger:
    """Notes which keys are withdrawn, and purges those that have been for longer than `keep` seconds; 0: none."""

    def __init__(self, writer: Writer, records: Records, keep: float, clock: Callable[[], float] = time.time) -> None:
        self._writer = writer
        self._records = records
        self._keep = keep
        self._clock = clock

    async def run(self) -> None:
        """Check once an hour, or as often as the time asks for, until cancelled."""
        while self._keep:
            try:
                await self.check()
            except Error as error:
                log.warning("withdrawn keys can't be purged now", error=error.message)
            await asyncio.sleep(min(INTERVAL, max(1.0, self._keep / 10)))
        await asyncio.Event().wait()  # the caller ends when one of its tasks does

    async def check(self) -> int:
        """Note and purge withdrawn keys once. Return how many were purged. Errors: those of the store."""
        now = self._clock()
        withdrawn = {f"{key.secret}/{key.id}" for key in await self._writer.store.withdrawn_keys.list()}
        seen = {record.name: record for record in await self._records.list(KIND)}
        due = {name for name, record in seen.items() if name in withdrawn and now - float(record.value) >= self._keep}
        purged = await purge_keys(self._writer, lambda key: f"{key.secret}/{key.id}" in due) if due else []
        writes = [RecordWrite(name, repr(now).encode(), 0) for name in sorted(withdrawn - seen.keys())]
        # A key that is live again, or was purged, is not withdrawn.
        gone = (seen.keys() - withdrawn) | (due & seen.keys())
        writes += [RecordWrite(name, None, seen[name].version) for name in sorted(gone)]
        if writes:
            await self._records.write(KIND, writes)
        return len(purged)

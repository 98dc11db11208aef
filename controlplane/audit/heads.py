"""Keeps the newest entry of the audit log in the store: once a minute, and after each revision.

Whoever cuts the end of the log off must also change the store, whose rows have MACs.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Any

import structlog

from controlplane.aio.latest import Latest
from controlplane.audit.entries import Head
from controlplane.audit.log import AuditLog
from controlplane.errors import Error
from controlplane.store import Kind, Record, Records

log = structlog.get_logger("audit")

# One record for each chain, by its name.
KIND = Kind("audit_heads", max_records=1_000, max_bytes=500)

INTERVAL = 60.0  # seconds
_ATTEMPTS = 3


class HeadKeeper:
    """Writes the head of a log to the store."""

    def __init__(self, audit: AuditLog, records: Records) -> None:
        self._audit = audit
        self._records = records
        self._record: Record | None = None
        self._kept = Head()

    async def start(self) -> None:
        """Compare the number of the newest entry with the one in the store, and write the entry of the start.

        A full disk is no error here: Envoys must be served. Errors: those of reading the store.
        """
        known = [head for record in await self._records.list(KIND) if (head := decode(record)) is not None]
        head = self._audit.head
        self._record = await self._records.get(KIND, head.chain)
        fields: dict[str, Any] = {"pid": os.getpid()}
        if self._audit.created:
            fields["earlier"] = [f"{h.chain}:{h.seq}" for h in known]
            if known:
                log.error("the audit log was replaced: the store knows an earlier one", earlier=fields["earlier"])
        for before in known:
            if before.chain == head.chain and before.seq > head.seq:
                fields["cut"] = before.seq - head.seq
                log.error("the end of the audit log is missing", entries=fields["cut"], last=head.seq, known=before.seq)
        await self._audit.note("begin" if self._audit.created else "start", fields)
        await self._try_to_keep()

    async def run(self, revisions: Latest[Any]) -> None:
        """Write the head after each revision, and once a minute, until cancelled."""
        serial = revisions.serial
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL):
                    serial = await revisions.newer(serial)
            await self._try_to_keep()

    async def _try_to_keep(self) -> None:
        try:
            await self.keep()
        except Error as error:
            log.warning("the head of the audit log is not in the store", error=error.message)

    async def close(self) -> None:
        """Write the head a last time, and close the log."""
        for _ in range(_ATTEMPTS):  # a write that was cancelled may be made meanwhile
            with suppress(Error):
                await self.keep()
                break
        await self._audit.close()

    async def keep(self) -> None:
        """Write the head, if there is a newer entry. Errors: those of the store."""
        head = self._audit.head
        if head != self._kept:
            record = self._record or await self._records.get(KIND, head.chain)
            self._record = None  # read it again, should the write fail or be cancelled
            self._record = await self._records.put(KIND, head.chain, head.to_json(), record.version if record else 0)
            self._kept = head


def decode(record: Record) -> Head | None:
    """Return the head that a record has; None if it has none."""
    try:
        return Head.from_json(record.value)
    except (ValueError, KeyError, TypeError):
        return None

"""The audit log of a running server, for the event loop. The files are written on a thread of their own, in order.

| the entry of | is written | if it can't be |
|---|---|---|
| a change, before it is made | to the disk, before the call goes on | the change is refused |
| an outcome | within a second to the disk | it is kept and written later; until then changes are refused |
| a stranger's refused call | as an outcome, 10 in a minute | the same |
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import structlog

from controlplane.audit.entries import Head, to_line
from controlplane.audit.export import Export
from controlplane.audit.files import AuditFiles
from controlplane.errors import Error

log = structlog.get_logger("audit")

T = TypeVar("T")

# Entries of strangers in a minute.
STRANGERS = 10
_MINUTE = 60.0
# Outcomes that wait until the log can be written again. Changes are refused meanwhile; refused calls still add outcomes.
_MAX_WAITING = 10_000
# Seconds between two lines of the server's log about an export that fails.
_EXPORT_LINES = 60.0


class AuditLog:
    """An open log. `open_log` makes it."""

    def __init__(
        self, files: AuditFiles, thread: ThreadPoolExecutor, export: Export | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._files = files
        self._thread = thread
        self._export = export
        self._clock = clock
        # Bounded: above it, the oldest outcomes are lost, and nothing counts them.
        self._waiting: deque[tuple[str, dict[str, Any]]] = deque(maxlen=_MAX_WAITING)
        self._unsynced = asyncio.Event()
        # The minute of the samples: its start, the entries in it, and the calls since the last entry that have none.
        self._minute, self._samples, self._unlogged = 0.0, 0, 0
        self._export_failed = -_EXPORT_LINES

    @property
    def head(self) -> Head:
        """The newest entry."""
        return self._files.head

    @property
    def created(self) -> bool:
        """True if the log was begun now."""
        return self._files.created

    async def require(self, event: str, fields: Mapping[str, Any]) -> None:
        """Write an entry to the disk. Errors: those of `AuditFiles`."""
        await self._call(lambda: self._append(event, fields, sync=True))

    async def note(self, event: str, fields: Mapping[str, Any]) -> None:
        """Write an entry, now or when the log can be written again."""
        try:
            await self._call(lambda: self._append(event, fields, sync=False))
        except Error as error:
            self._waiting.append((event, dict(fields)))
            log.error("an entry waits", error=error.message, event_of_entry=event, waiting=len(self._waiting))
        self._unsynced.set()

    async def note_stranger(self, fields: Mapping[str, Any]) -> None:
        """Write an entry of a refused call without a valid credential, or count it."""
        now = self._clock()
        if now - self._minute >= _MINUTE:
            self._minute, self._samples = now, 0
        if self._samples >= STRANGERS:
            self._unlogged += 1
            return
        self._samples += 1
        unlogged, self._unlogged = self._unlogged, 0
        await self.note("stranger", {**fields, "unlogged": unlogged})

    async def run(self) -> None:
        """Bring entries to the disk within a second, until cancelled."""
        while True:
            await self._unsynced.wait()
            await asyncio.sleep(1.0)
            self._unsynced.clear()
            try:
                await self._call(self._sync)
            except Error:
                self._unsynced.set()  # reported when the entry was written

    async def close(self) -> None:
        """Write what waits, and close the files."""
        try:
            await self._call(self._sync)
        except Error as error:
            log.error("entries are lost", error=error.message, entries=len(self._waiting))
        await self._call(self._files.close)
        self._thread.shutdown(wait=False)

    async def _call(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _append(self, event: str, fields: Mapping[str, Any], *, sync: bool) -> None:
        self._write_waiting()
        self._send(self._files.append(event, fields, sync=sync))

    def _write_waiting(self) -> None:
        while self._waiting:
            self._send(self._files.append(*self._waiting[0], sync=False))
            self._waiting.popleft()

    def _sync(self) -> None:
        self._write_waiting()
        self._files.sync()

    def _send(self, entry: dict[str, Any]) -> None:
        if self._export is None:
            return
        try:
            self._export.send(to_line(entry), entry)
        except OSError as error:
            if self._clock() - self._export_failed >= _EXPORT_LINES:
                self._export_failed = self._clock()
                log.error("entries are not exported", error=str(error), first=entry["seq"])


async def open_log(directory: Path, max_bytes: int, export: Export | None = None) -> AuditLog:
    """Open the log in a directory, or begin one. Errors: those of `AuditFiles`."""
    thread = ThreadPoolExecutor(1, "audit")
    try:
        files = await asyncio.get_running_loop().run_in_executor(thread, AuditFiles, directory, max_bytes, _now)
    except BaseException:
        thread.shutdown(wait=False)
        raise
    return AuditLog(files, thread, export)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

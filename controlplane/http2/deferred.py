"""Reading from clients that waits while the server is busy sending."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

C = TypeVar("C")

# During a push to all clients their ACKs are not read, so that the last client does not wait for the ACKs of the first.
# Reading is deferred for this long at most. Seconds.
_MAX_DELAY = 0.25
# Deferred bytes are then handled in slices of this length. Seconds.
_SLICE = 0.005


class DeferredReads(Generic[C]):
    """Connections that have received bytes and not handled them yet."""

    def __init__(self, busy: Callable[[], bool], catch_up: Callable[[C], None]) -> None:
        """Call `catch_up` for each deferred connection, when the server is no longer `busy`."""
        self._busy = busy
        self._catch_up = catch_up
        # In the order in which they were deferred. At most one entry a connection.
        self._waiting: dict[C, None] = {}
        # When `_waiting` last became non-empty.
        self._since = 0.0

    def add(self, connection: C) -> bool:
        """Defer a connection. Return False if connections have waited for too long: the caller must read now."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            self._since = loop.time()
            loop.call_soon(self._run)
        elif loop.time() - self._since > _MAX_DELAY:
            return False
        self._waiting[connection] = None
        return True

    def _run(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not self._busy() or now - self._since > _MAX_DELAY:
            while self._waiting and loop.time() - now < _SLICE:
                connection = next(iter(self._waiting))
                del self._waiting[connection]
                self._catch_up(connection)
        if self._waiting:
            loop.call_soon(self._run)

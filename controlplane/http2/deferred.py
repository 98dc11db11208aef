"""Reading from clients that waits while the server is busy sending."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

C = TypeVar("C")

# While every client is sent something new, their answers wait, so that the last client does not wait for the ACKs of the
# first: for this long at most. After that, deferred reads are caught up in slices of this length. Seconds.
_MAX_DELAY, _SLICE = 0.25, 0.005


class DeferredReads(Generic[C]):
    """Connections that have received bytes and not handled them yet."""

    def __init__(self, busy: Callable[[], bool], catch_up: Callable[[C], None]) -> None:
        """Call `catch_up` for each deferred connection, when the server is no longer `busy`."""
        self._busy = busy
        self._catch_up = catch_up
        # In the order of their arrival. At most one entry a connection.
        self._waiting: dict[C, None] = {}
        # When the first of them came.
        self._since = 0.0

    def add(self, connection: C) -> bool:
        """Defer a connection. Return False if the oldest has waited too long: then read now."""
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

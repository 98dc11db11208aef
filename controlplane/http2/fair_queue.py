"""Turns for connections that have used their share, so that the event loop stays free for others.

Work is done in slices of 5 ms, and between two slices the event loop does everything else. A slice is given to addresses in
turn, and within an address to connections in turn. Connections that have used little come first, but not always.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from controlplane.http2.accounts import Account

C = TypeVar("C")

# The length of a slice, and of the pause after it, seconds. A connection that has used little has a part of a slice, since
# there can be many, and such a client waits for all before it.
SLICE, PAUSE = 0.005, 0.003
LIGHT_SLICE = 0.001
# After so many slices of connections that have used little, there is one of another connection.
_FAVOURED = 3
# During a push nothing is read, for this long at most. Seconds.
_MAX_DELAY = 0.25


class FairQueue(Generic[C]):
    """Connections that wait for their turn."""

    def __init__(self, work: Callable[[C, float], None], busy: Callable[[], bool]) -> None:
        """Call `work(connection, deadline)` for each connection. While the server is `busy`, connections wait longer."""
        self._work = work
        self._busy = busy
        # Connections by account, in the order of their turns: those that have used little, and the others.
        self._light: dict[Account, deque[C]] = {}
        self._heavy: dict[Account, deque[C]] = {}
        self._favoured = 0
        self._timer: asyncio.TimerHandle | None = None
        self._since = 0.0

    def add(self, connection: C, account: Account, *, heavy: bool) -> None:
        """Let a connection wait. `heavy`: it has used much already. The caller adds it once at a time."""
        (self._heavy if heavy else self._light).setdefault(account, deque()).append(connection)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._since = loop.time()
            self._timer = loop.call_later(0.001, self._run)

    def _run(self) -> None:
        loop = asyncio.get_running_loop()
        start = now = loop.time()
        if not self._busy() or now - self._since > _MAX_DELAY:
            self._since = start
            while now - start < SLICE and (turn := self._next()) is not None:
                connection, length = turn
                self._work(connection, min(start + SLICE, now + length))
                now = loop.time()
        self._timer = loop.call_later(PAUSE, self._run) if self._light or self._heavy else None

    def _next(self) -> tuple[C, float] | None:
        """Return the next connection, and for how long it may work."""
        first, second = self._light, self._heavy
        self._favoured += 1
        if self._favoured > _FAVOURED:
            first, second, self._favoured = second, first, 0
        waiting = first or second
        account = next(iter(waiting), None)
        if account is None:
            return None
        connections = waiting.pop(account)
        connection = connections.popleft()
        if connections:
            waiting[account] = connections  # at the end: the next address has its turn
        return connection, LIGHT_SLICE if waiting is self._light else SLICE

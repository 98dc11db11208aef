"""The timers of one stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class StreamTimers:
    """Timers that each run once, unless the stream ends first."""

    __slots__ = ("_handles", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handles: list[asyncio.TimerHandle] = []  # a stream sets each of its timers once, so there are about five at most

    def after(self, seconds: float, call: Callable[..., None], *arguments: object) -> None:
        """Call `call(*arguments)` after this many seconds."""
        self._handles.append(self._loop.call_later(seconds, call, *arguments))

    def cancel(self) -> None:
        """Cancel all timers: the stream has ended."""
        for handle in self._handles:
            handle.cancel()
        self._handles.clear()

"""What the event loop's time is on the clock on the wall."""

from __future__ import annotations

import asyncio
import time

# Closer than this two readings are one: so what is said of one moment is the same each time. Seconds.
_SAME = 0.05


class WallClock:
    """Follows the clock on the wall when it is set anew, or the machine has slept."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def ahead(self) -> float:
        """What to add to a time of the running event loop to get seconds since the epoch."""
        ahead = time.time() - asyncio.get_running_loop().time()
        if abs(ahead - self._ahead) > _SAME:
            self._ahead = ahead
        return self._ahead

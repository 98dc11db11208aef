"""Wall clock time for times of the event loop."""

from __future__ import annotations

import asyncio
import time

# Readings that differ by less are equal, so that one moment has the same wall clock time each time. Seconds.
_TOLERANCE = 0.05


class WallClock:
    """Converts times of the event loop. Follows the wall clock when it is set, or when the machine was suspended."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def ahead(self) -> float:
        """Return the number to add to a time of the running event loop to get seconds since the epoch."""
        ahead = time.time() - asyncio.get_running_loop().time()
        if abs(ahead - self._ahead) > _TOLERANCE:
            self._ahead = ahead
        return self._ahead

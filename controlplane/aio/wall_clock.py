"""Converts times of the event loop to wall clock times."""

from __future__ import annotations

import asyncio
import time

# Seconds. Smaller changes are ignored, so that one moment is always converted to the same wall clock time.
_TOLERANCE = 0.05


class WallClock:
    """The difference between the wall clock and the event loop's clock. It changes when the wall clock is set."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def ahead(self) -> float:
        """Return the seconds to add to a time of the running event loop, to get seconds since the epoch."""
        ahead = time.time() - asyncio.get_running_loop().time()
        if abs(ahead - self._ahead) > _TOLERANCE:
            self._ahead = ahead
        return self._ahead

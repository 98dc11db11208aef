"""The policy for replacing workers, and for counting one as hung. Times are arguments, in seconds."""

from __future__ import annotations

# The first worker that fails is replaced after this pause. Each further pause is twice as long, up to the longest one.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 10.0

# A worker that lived longer than this counts as healthy: the pause after it is the first one again.
HEALTHY_LIFETIME = 30.0

# A worker that has sent nothing after this many pings in a row counts as hung. The policy counts pings and does not measure
# time, so that a worker does not count as hung after the main process itself was paused.
MAX_UNANSWERED_PINGS = 4


class RestartPause:
    """The pause before one worker is replaced."""

    def __init__(self) -> None:
        self._next = FIRST_PAUSE

    def after(self, lifetime: float) -> float:
        """Return the pause after a worker that lived this long."""
        pause = FIRST_PAUSE if lifetime > HEALTHY_LIFETIME else self._next
        self._next = min(2 * pause, LONGEST_PAUSE)
        return pause


class HangDetector:
    """A count of the pings that one worker has not answered."""

    def __init__(self) -> None:
        self._unanswered = 0

    def is_hung(self, *, answered: bool) -> bool:
        """Count a ping. Return True when the worker counts as hung: once in a row of unanswered pings."""
        self._unanswered = 0 if answered else self._unanswered + 1
        return self._unanswered == MAX_UNANSWERED_PINGS

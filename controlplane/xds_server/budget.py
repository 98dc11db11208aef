"""A time budget for one client, so that an expensive client does not slow down the others."""

from __future__ import annotations


class Budget:
    """The server's time that one stream or connection may use: a burst of one second, and beyond it a tenth of the time.

    A client that sends without pause is thus answered more and more slowly. There is no clock inside: times are seconds of a
    monotonic clock.
    """

    __slots__ = ("_now", "_spent")

    # Seconds that may be used at once, and the share of the time that refills them.
    BURST = 1.0
    SHARE = 0.1

    def __init__(self) -> None:
        # Seconds that were used and not refilled yet, at the time `_now`.
        self._spent = self._now = 0.0

    def spend(self, seconds: float, now: float) -> float:
        """Record `seconds` of work that ended at `now`. Return for how many seconds the client must wait; 0 for none."""
        unpaid = self._spent - (now - self._now) * self.SHARE
        self._spent = spent = unpaid + seconds if unpaid > 0 else seconds
        self._now = now
        return (spent - self.BURST) / self.SHARE if spent > self.BURST else 0.0

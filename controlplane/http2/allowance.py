"""An allowance of seconds, frames or streams that refills with time. There is no clock inside."""

from __future__ import annotations

from typing import NamedTuple


class Rate(NamedTuple):
    """The amount that may be used at once, and how much of it comes back in each second."""

    burst: float
    per_second: float


class Allowance:
    """A token bucket (GCRA). `now` is in seconds of a monotonic clock."""

    __slots__ = ("_full_at", "_horizon", "_interval")

    def __init__(self, rate: Rate) -> None:
        # Seconds in which one unit comes back, and in which all of it does.
        self._interval = 1.0 / rate.per_second
        self._horizon = rate.burst / rate.per_second
        # When the allowance is full again.
        self._full_at = 0.0

    def spend(self, amount: float, now: float) -> None:
        """Use this much; more than there is counts, too, and makes the time longer until something is left."""
        full_at = self._full_at
        self._full_at = (full_at if full_at > now else now) + amount * self._interval

    def used(self, now: float) -> float:
        """Return how much was used and has not come back."""
        return max(0.0, self._full_at - now) / self._interval

    def exceeded(self, now: float) -> bool:
        """Return True if nothing is left."""
        return self._full_at - now > self._horizon

    def full(self, now: float) -> bool:
        """Return True if everything came back."""
        return self._full_at <= now

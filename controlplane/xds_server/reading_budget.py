"""Decide when a stream stops reading requests, so that other streams are served. Times are seconds of a monotonic clock."""

from __future__ import annotations

from controlplane.xds_server.budget import Budget

# A stream reads for this long; then other streams have their turn, even when it may go on at once. Seconds.
READING_TIME_SLICE = 0.005


class ReadingBudget(Budget):
    """The time that the requests of one stream use: in one slice, and in all (`Budget`)."""

    __slots__ = ("_in_slice",)

    def __init__(self) -> None:
        super().__init__()
        # Seconds used since other streams had their turn.
        self._in_slice = 0.0

    def pause_after(self, start: float, now: float) -> float | None:
        """Record a request that was served from `start` to `now`.

        Return None when the stream may read the next request now, or the seconds to pause before it: 0 lets the others have
        their turn.
        """
        seconds = now - start
        pause = self.spend(seconds, now)
        self._in_slice = in_slice = self._in_slice + seconds
        return pause if pause or in_slice > READING_TIME_SLICE else None

    def start_slice(self) -> None:
        """Begin a new slice: the stream pauses, and other streams have their turn."""
        self._in_slice = 0.0

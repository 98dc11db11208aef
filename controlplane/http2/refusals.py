"""Connections that the server closed because of what their client did: counted by reason, and logged at a limited rate."""

from __future__ import annotations

from collections import Counter

from controlplane.http2.logger import Logger

# Lines in each period, seconds. Attackers must not fill the disk.
_LINES, _PERIOD = 10, 60.0


class Refusals:
    """The counts and the log of closed and refused connections."""

    def __init__(self, log: Logger) -> None:
        self._log = log
        # By reason: a fixed set of short texts.
        self.counts: Counter[str] = Counter()
        self._period_end = 0.0
        self._lines = 0
        # Connections without a line since the last line.
        self._without_line = 0

    def add(self, reason: str, peer: str, error: str, now: float) -> None:
        """Count a connection, and log it unless there were too many lines in this period. `now` is a monotonic time."""
        self.counts[reason] += 1
        if now >= self._period_end:
            self._period_end, self._lines = now + _PERIOD, 0
        if self._lines >= _LINES:
            self._without_line += 1
            return
        self._lines += 1
        more = {"without_a_line": self._without_line} if self._without_line else {}
        self._without_line = 0
        self._log.info(f"connection closed: {reason}", peer=peer, error=error, **more)

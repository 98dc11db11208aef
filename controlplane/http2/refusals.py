"""Connections that the server closed because of what their client did: counted by cause, and reported."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from controlplane.http2.logger import Logger

# Called with the cause, the client's address, and more about the cause.
Report = Callable[[str, str, str], None]

# Lines in each period, seconds. Attackers must not fill the disk.
_LINES, _PERIOD = 10, 60.0


class Refusals:
    """The counts of closed and refused connections, each of which is reported."""

    def __init__(self, report: Report) -> None:
        self._report = report
        # By cause: a fixed set of short texts.
        self.counts: Counter[str] = Counter()

    def add(self, cause: str, address: str, error: str) -> None:
        """Count and report a connection."""
        self.counts[cause] += 1
        self._report(cause, address, error)


class LogLines:
    """Reports with a line in a log, at a limited rate."""

    def __init__(self, log: Logger) -> None:
        self._log = log
        self._period_end = 0.0
        self._lines = 0
        # Connections without a line since the last line.
        self._without_line = 0

    def __call__(self, cause: str, address: str, error: str) -> None:
        """Log a connection, unless there were too many lines in this period."""
        now = asyncio.get_running_loop().time()
        if now >= self._period_end:
            self._period_end, self._lines = now + _PERIOD, 0
        if self._lines >= _LINES:
            self._without_line += 1
            return
        self._lines += 1
        more = {"without_a_line": self._without_line} if self._without_line else {}
        self._without_line = 0
        self._log.info(f"connection closed: {cause}", peer=address, error=error, **more)

"""Log lines that are limited in rate: one line for each node or call, or one a second for many."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

import structlog

# Number of lines of one kind in each second. Further ones are counted in one summary line.
LINES_PER_SECOND = 20


class RateLimitedLog:
    """One kind of log line that a fleet can cause thousands of times in a second."""

    def __init__(
        self,
        event: str,
        summary: str,
        level: int = logging.INFO,
        example: Collection[str] = (),
        *,
        logger: str = "fleet",
        subject: str = "node",
    ) -> None:
        """Write `event` for single nodes, and `summary` for those above the limit.

        `example` names the fields of the first node above the limit that the summary repeats. `subject` is the field that
        names what a line is about.
        """
        self._log = structlog.get_logger(logger)
        self._subject = subject
        self._event, self._summary, self._level, self._example = event, summary, level, example
        # Number of calls in this second, and the fields of the first one that got no line.
        self._count = 0
        self._first: dict[str, object] = {}
        # Ends this second. None if there was no call yet.
        self._second: asyncio.TimerHandle | None = None
        self._open = True

    def log(self, name: str, **fields: object) -> None:
        """Write a line about a node or another subject, or count it. There is no limit without a running event loop."""
        self._count += 1
        if self._count <= LINES_PER_SECOND:
            self._log.log(self._level, self._event, **{self._subject: name}, **fields)
            if self._second is None and self._open:
                try:
                    self._second = asyncio.get_running_loop().call_later(1.0, self._sum_up)
                except RuntimeError:
                    self._count = 0
        elif not self._first:
            self._first = {"first": name, **{key: fields[key] for key in self._example}}

    def close(self) -> None:
        """Write the pending summary. There are no summaries afterwards."""
        self._open = False
        if self._second is not None:
            self._second.cancel()
            self._sum_up()

    def _sum_up(self) -> None:
        self._second = None
        if self._count > LINES_PER_SECOND:
            self._log.log(self._level, self._summary, count=self._count - LINES_PER_SECOND, **self._first)
        self._count, self._first = 0, {}

"""The log that a server writes to. It is passed in, so that the package depends on no logging library."""

from __future__ import annotations

import logging
from typing import Any, Protocol


class Logger(Protocol):
    """A log of events with fields; structlog's loggers are such."""

    def info(self, event: str, **fields: Any) -> Any:
        """Write a line about an event that clients cause."""

    def error(self, event: str, **fields: Any) -> Any:
        """Write a line about a fault of the server; `exc_info` is its exception."""


class StandardLogger:
    """Writes events to the standard library's logger `http2`."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("http2")

    def info(self, event: str, **fields: Any) -> None:
        """Write a line about an event that clients cause."""
        self._logger.info("%s %s", event, fields)

    def error(self, event: str, *, exc_info: BaseException | None = None, **fields: Any) -> None:
        """Write a line about a fault of the server, with its traceback."""
        self._logger.error("%s %s", event, fields, exc_info=exc_info)

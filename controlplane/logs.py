"""Logs to standard error: one line for each event, as JSON for programs or in columns for people."""

from __future__ import annotations

import io
import logging
import sys
from typing import Any, TextIO

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, ExcInfo, Processor

from controlplane.errors import escaped, redacted


def _redact(logger: Any, method: str, line: Any) -> str:
    """Remove private keys from a finished line. This is the last step for each line."""
    return redacted(str(line))


def _escape(logger: Any, method: str, event: EventDict) -> EventDict:
    """Escape control characters, so that a client's text can't move a terminal's cursor or start a new line.

    Strings in lists need no escape here, because structlog writes them with `repr`.
    """
    return {key: escaped(value) if isinstance(value, str) else value for key, value in event.items()}


def _traceback(out: TextIO, exc_info: ExcInfo) -> None:
    lines = io.StringIO()
    structlog.dev.plain_traceback(lines, exc_info)
    out.write(escaped(lines.getvalue(), keep="\n"))


def set_up(log_format: str = "console", level: str = "info") -> None:
    """Configure structlog for the process, and the standard library's logging for the libraries that use it.

    `log_format` is `json` or `console`; `level` is debug, info, warning or error.
    """
    number = getattr(logging, level.upper())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor]
    if log_format == "json":
        # Without local variables, because they can contain keys and certificates.
        tracebacks = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
        last = [tracebacks, structlog.processors.JSONRenderer(), _redact]
    else:
        last = [
            _escape,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_traceback),
            _redact,
        ]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries log warnings and errors through `logging`. They get the same format.
    handler = logging.StreamHandler()
    drop_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[drop_meta, *last], foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)

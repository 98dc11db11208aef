"""The marker `turnout.history` in a data directory: the id of the history and the number of its newest revision, as text.

It is written after each commit, and not flushed. So it is never newer than the database, unless the database was lost, or
replaced by an older copy. It costs a few microseconds, and no write fails because of it.

A known flaw: if the WAL is damaged and only writes of records are lost with it, nothing notices that.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARKER = "turnout.history"

_CONTENT = re.compile(rb"([0-9a-f]{8}) +(\d{1,18})\n")


@dataclass(frozen=True, slots=True)
class Marker:
    """The content of the file."""

    history: str
    revision: int


def read(directory: Path) -> Marker | None:
    """Return the marker; None if there is none, or if it can't be read."""
    try:
        match = _CONTENT.fullmatch((directory / MARKER).read_bytes())
    except OSError:
        return None
    return Marker(match[1].decode(), int(match[2])) if match else None


def write(directory: Path, marker: Marker) -> None:
    """Write the marker in place. Errors are ignored: a marker that is too old does no harm."""
    with suppress(OSError):
        descriptor = os.open(directory / MARKER, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            # Each content has the same length, so no reader sees a part of it.
            os.pwrite(descriptor, f"{marker.history} {marker.revision:>18}\n".encode(), 0)
        finally:
            os.close(descriptor)

"""Files that are read again when they change. What does not pass the checks changes nothing, and the log says why."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from controlplane.errors import Error, invalid

log = structlog.get_logger("api")

# Seconds between two looks at the files.
INTERVAL = 1.0

# Largest file. Bytes.
MAX_BYTES = 4 * 1024 * 1024

T = TypeVar("T")

# State of a file that tells if it changed: device, inode, size, time of the change. None: it can't be read.
_Stamp = tuple[int, int, int, int] | None


class WatchedFiles(Generic[T]):
    """The newest good content of files, which are read together."""

    def __init__(self, paths: Sequence[Path], load: Callable[[], T], name: str) -> None:
        """Read the files with `load`. `name` is for the log. Errors: those of `load`, which name the file."""
        self._paths, self._load, self._name = paths, load, name
        self._stamps = self._look()
        self.content = load()
        # Grows by one each time that the content is replaced.
        self.generation = 1

    async def watch(self) -> None:
        """Read the files again when they change, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            self.refresh()

    def refresh(self) -> bool:
        """Read the files again if one has changed. Return True if their content is replaced."""
        stamps = self._look()
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        try:
            self.content = self._load()
        except Error as error:
            log.error("files not taken over; the earlier ones stay in use", files=self._name, error=error.message)
            return False
        self.generation += 1
        log.info("files taken over", files=self._name, generation=self.generation)
        return True

    def _look(self) -> list[_Stamp]:
        return [_stamp(path) for path in self._paths]


def read_file(path: Path, setting: str) -> bytes:
    """Return the content of a file. Errors: INVALID_ARGUMENT that names the setting and the file."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise invalid(setting, f"{path} can't be read: {(error.strerror or str(error)).lower()}") from None
    if len(data) > MAX_BYTES:
        raise invalid(setting, f"{path} is larger than {MAX_BYTES:,} bytes")
    return data


def read_text(path: Path, setting: str) -> str:
    """Return the text of a file. Errors: INVALID_ARGUMENT that names the setting and the file."""
    try:
        return read_file(path, setting).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise invalid(setting, f"{path} is not UTF-8") from None


def _stamp(path: Path) -> _Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

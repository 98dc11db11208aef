"""The files of the audit log: `audit-000000000001.jsonl`, named after their first entry. All functions block.

Entries are only appended. When a file is full, the next one begins, and when all files together reach the bound, the oldest
one is removed, which is an entry, too. A write that fails half way is cut off, so that the chain stays whole.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from controlplane.audit.entries import Head, line_of, parse
from controlplane.errors import Code, Error

_NAME = re.compile(r"audit-(\d{12})\.jsonl")
# A log has at least this many files, so that removing one never removes most of it.
_FILES = 8


def paths(directory: Path) -> list[Path]:
    """Return the files of a log, oldest first."""
    with suppress(OSError):
        return sorted(path for path in directory.iterdir() if _NAME.fullmatch(path.name))
    return []


class AuditFiles:
    """The files of a log, open for appending."""

    def __init__(self, directory: Path, max_bytes: int, now: Callable[[], str]) -> None:
        """Open the log, or begin a new one, without an entry. `now` returns the time.

        Errors: RESOURCE_EXHAUSTED / AUDIT_FULL; FAILED_PRECONDITION / AUDIT_UNWRITABLE, AUDIT_DAMAGED, AUDIT_HELD.
        """
        self.directory = directory
        self._max_bytes = max_bytes
        self._file_bytes = max_bytes // _FILES
        self._now = now
        self._file = -1
        self._size = 0
        self.head = Head()
        # True if this log was begun now.
        self.created = False
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            existing = paths(directory)
            if existing:
                self._continue(existing)
            else:
                self.created = True
                self.head = Head(chain=os.urandom(4).hex())
                self._open(self._path(1))
        except OSError as error:
            self.close()
            raise unwritable(error, directory) from None

    def append(self, event: str, fields: Mapping[str, Any], *, sync: bool = True) -> dict[str, Any]:
        """Append an entry, and return it. With `sync`, it is on the disk then. Errors: as the constructor."""
        line, entry = line_of(self.head, self._now(), event, fields)
        try:
            if self._size and self._size + len(line) > self._file_bytes:
                self._rotate()
                line, entry = line_of(self.head, self._now(), event, fields)
            self._write(line)
            if sync:
                os.fdatasync(self._file)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise unwritable(error, self.directory) from None
        self._size += len(line)
        self.head = self.head.after(entry)
        return entry

    def sync(self) -> None:
        """Wait until all entries are on the disk. Errors: as the constructor."""
        try:
            os.fdatasync(self._file)
        except OSError as error:
            raise unwritable(error, self.directory) from None

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _continue(self, existing: list[Path]) -> None:
        """Find the head in the files, and open the newest one. An incomplete last line is removed."""
        newest = existing[-1]
        self._open(newest)
        lost = _cut_incomplete_line(self._file)
        self._size = os.fstat(self._file).st_size
        # The newest file is empty if the server stopped when it began the file.
        last = next((line for path in reversed(existing[-2:]) for line in reversed(list(_lines(path)))), b"")
        try:
            self.head = replace(Head().after(parse(last)), first=_first(existing[0]))
        except ValueError as error:
            message = (
                f"the last entry in {newest} {error}. Give the folder {self.directory} another name, and keep it for an "
                "investigation: the server begins a new log then"
            )
            raise Error(Code.FAILED_PRECONDITION, "AUDIT_DAMAGED", message) from None
        if lost:
            with suppress(Error):  # a full disk: changes are refused, and Envoys are served
                self.append("repaired", {"bytes": lost})

    def _rotate(self) -> None:
        os.fdatasync(self._file)
        existing = paths(self.directory)
        total = sum(path.stat().st_size for path in existing)
        self._open(self._path(self.head.seq + 1))
        while total > self._max_bytes - self._file_bytes and len(existing) > 1:
            oldest = existing.pop(0)
            total -= oldest.stat().st_size
            line, entry = line_of(self.head, self._now(), "dropped", {"file": oldest.name, "first": _first(existing[0])})
            self._write(line)
            os.fdatasync(self._file)
            self._size += len(line)
            self.head = self.head.after(entry)
            oldest.unlink()

    def _path(self, seq: int) -> Path:
        return self.directory / f"audit-{seq:012}.jsonl"

    def _open(self, path: Path) -> None:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.close()
        self._file = file
        self._size = os.fstat(file).st_size
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"{path} is in use by another server: give each its own folder with --audit"
            raise Error(Code.FAILED_PRECONDITION, "AUDIT_HELD", message) from None
        directory = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _write(self, line: bytes) -> None:
        if os.write(self._file, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def unwritable(error: OSError, directory: Path) -> Error:
    """Return the `Error` of a log that can't be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        message = f"there is no space left for the audit log in {directory}: free some. Changes are refused until then"
        return Error(Code.RESOURCE_EXHAUSTED, "AUDIT_FULL", message)
    cause = (error.strerror or "unknown error").lower()
    message = f"the audit log in {directory} can't be written ({cause}): changes are refused until it can"
    return Error(Code.FAILED_PRECONDITION, "AUDIT_UNWRITABLE", message)


def lines(directory: Path) -> Iterator[tuple[Path, int, bytes]]:
    """Yield each line of a log with its file and its number in it, oldest first."""
    for path in paths(directory):
        for number, line in enumerate(_lines(path), 1):
            yield path, number, line


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            for line in file:
                yield line.rstrip(b"\n")
    except FileNotFoundError:
        return  # the server has dropped it meanwhile


def _first(path: Path) -> int:
    """Return the number of the first entry of a file, which is its name."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else 0


def _cut_incomplete_line(file: int) -> int:
    """Remove what follows the last line end of a file. Return the number of bytes."""
    size = os.fstat(file).st_size
    kept = size
    while kept:
        block = os.pread(file, min(4096, kept), max(0, kept - 4096))
        end = block.rfind(b"\n")
        if end >= 0:
            kept = kept - len(block) + end + 1
            break
        kept -= len(block)
    if kept < size:
        os.ftruncate(file, kept)
    return size - kept

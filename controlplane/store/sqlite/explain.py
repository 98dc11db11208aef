"""Converts errors of SQLite and of the operating system to `Error`, with a text that says what to do."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

from controlplane.errors import Code, Error


def explain_os(error: OSError, directory: Path) -> Error:
    """Return the `Error` for an error of the operating system about the store's directory."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Error(Code.RESOURCE_EXHAUSTED, "STORE_FULL", f"there is no space left on the disk under {directory}: free some")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        cause = (error.strerror or "no permission").lower()
        return refused("STORE_READ_ONLY", f"{directory} can't be written to ({cause}): make it writable for this user")
    return refused("STORE_CANT_OPEN", f"{directory} can't be opened: {error.strerror}")


def explain(error: sqlite3.Error, path: Path) -> Error:
    """Return the `Error` for an error of SQLite about the store's file."""
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return Error(Code.RESOURCE_EXHAUSTED, "STORE_FULL", f"there is no space left on the disk under {path}: free some")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return refused("STORE_READ_ONLY", f"{path} can't be written to: make it and its directory writable for this user")
        case sqlite3.SQLITE_CANTOPEN:
            return refused("STORE_CANT_OPEN", f"{path} can't be opened: make it and its directory writable for this user")
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return corrupt(path, str(error))
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Error(Code.UNAVAILABLE, "STORE_BUSY", f"{path} is locked by another program; try again")
        case sqlite3.SQLITE_IOERR:
            return Error(
                Code.UNAVAILABLE, "STORE_IO", f"the disk under {path} fails or is full ({error}); check the disk and try again"
            )
        case _:
            return Error(Code.INTERNAL, "STORE_FAILED", f"{path}: {error}")


def refused(reason: str, message: str) -> Error:
    """Return the FAILED_PRECONDITION of a store that can't be used as it is."""
    return Error(Code.FAILED_PRECONDITION, reason, message)


def corrupt(path: Path, problem: str) -> Error:
    """Return the FAILED_PRECONDITION / STORE_CORRUPT of a damaged file."""
    return Error(
        Code.FAILED_PRECONDITION,
        "STORE_CORRUPT",
        f"{path} is damaged, or not a store: {problem}. Nothing was changed, and Envoys keep serving what they have. Restore "
        f"a backup: turnout restore FILE --data {path.parent} --replace",
        metadata={"problem": problem},
    )

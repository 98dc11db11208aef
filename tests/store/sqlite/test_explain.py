"""The `Error` for each error of SQLite and of the operating system."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest

from controlplane.errors import Code
from controlplane.store.sqlite.explain import corrupt, explain, explain_os

PATH = Path("/data/turnout.db")
FAILED = Code.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("sqlite_code", "code", "reason"),
    [
        (sqlite3.SQLITE_FULL, Code.RESOURCE_EXHAUSTED, "STORE_FULL"),
        (sqlite3.SQLITE_READONLY, FAILED, "STORE_READ_ONLY"),
        (sqlite3.SQLITE_PERM, FAILED, "STORE_READ_ONLY"),
        (sqlite3.SQLITE_CANTOPEN, FAILED, "STORE_CANT_OPEN"),
        (sqlite3.SQLITE_NOTADB, FAILED, "STORE_CORRUPT"),
        (sqlite3.SQLITE_CORRUPT, FAILED, "STORE_CORRUPT"),
        (sqlite3.SQLITE_BUSY, Code.UNAVAILABLE, "STORE_BUSY"),
        (sqlite3.SQLITE_LOCKED, Code.UNAVAILABLE, "STORE_BUSY"),
        (sqlite3.SQLITE_IOERR, Code.UNAVAILABLE, "STORE_IO"),
        (sqlite3.SQLITE_IOERR | (7 << 8), Code.UNAVAILABLE, "STORE_IO"),
        (sqlite3.SQLITE_MISUSE, Code.INTERNAL, "STORE_FAILED"),
    ],
)
def test_an_error_of_sqlite_gets_a_code_and_a_reason(sqlite_code: int, code: Code, reason: str) -> None:
    error = sqlite3.OperationalError("words of SQLite")
    error.sqlite_errorcode = sqlite_code
    ours = explain(error, PATH)
    assert (ours.code, ours.reason) == (code, reason)
    assert str(PATH) in ours.message


def test_an_error_without_a_code_is_internal() -> None:
    assert explain(sqlite3.Error("words of Python"), PATH).code is Code.INTERNAL


@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [
        (errno.ENOSPC, Code.RESOURCE_EXHAUSTED, "STORE_FULL"),
        (errno.EDQUOT, Code.RESOURCE_EXHAUSTED, "STORE_FULL"),
        (errno.EACCES, FAILED, "STORE_READ_ONLY"),
        (errno.EROFS, FAILED, "STORE_READ_ONLY"),
        (errno.ENOTDIR, FAILED, "STORE_CANT_OPEN"),
    ],
)
def test_an_error_of_the_operating_system_gets_a_code_and_a_reason(number: int, code: Code, reason: str) -> None:
    ours = explain_os(OSError(number, "Its Words"), PATH.parent)
    assert (ours.code, ours.reason) == (code, reason)
    assert str(PATH.parent) in ours.message


def test_a_damaged_file_is_named() -> None:
    assert corrupt(PATH, "it is short").message.startswith(f"{PATH} is damaged, or not a store: it is short. ")

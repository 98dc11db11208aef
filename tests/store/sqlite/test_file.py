"""The file: new, locked, damaged, read-only, and on a full disk."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from controlplane.errors import Code, Error
from controlplane.store.sqlite import DATABASE
from tests.store.opening import open_store
from tests.store.places import IRIS, changes, commit, draft
from tests.store.sqlite.common import commit_until_refused, create, store_error, without_privileges
from tests.tools import missing


def test_a_missing_directory_is_created(tmp_path: Path) -> None:
    create(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / DATABASE).exists()


def test_a_store_is_locked_in_its_process(tmp_path: Path) -> None:
    async def run() -> None:
        store = await open_store(tmp_path)
        with pytest.raises(Error) as caught:
            await open_store(tmp_path)
        assert (caught.value.code, caught.value.reason) == (Code.FAILED_PRECONDITION, "STORE_HELD")
        assert f"process {os.getpid()}" in caught.value.message
        await store.close()
        await (await open_store(tmp_path)).close()

    asyncio.run(run())


def test_a_store_is_locked_against_another_process(tmp_path: Path) -> None:
    code = f"""
import asyncio, pathlib
from controlplane.errors import Error
from tests.store.opening import open_store
try:
    asyncio.run(open_store(pathlib.Path({str(tmp_path)!r})))
except Error as error:
    print(error.reason, error.message)
"""

    async def run() -> str:
        store = await open_store(tmp_path)
        try:
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
            return (await process.communicate())[0].decode()
        finally:
            await store.close()

    output = asyncio.run(run())
    assert output.startswith("STORE_HELD")
    assert f"process {os.getpid()}" in output


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"gateways:\n- name: edge\n" * 500)
    error = store_error(tmp_path)
    assert (error.code, error.reason) == (Code.FAILED_PRECONDITION, "STORE_CORRUPT")
    assert str(tmp_path / DATABASE) in error.message


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    create(tmp_path)
    file = tmp_path / DATABASE
    data = bytearray(file.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    file.write_bytes(data)
    assert store_error(tmp_path).reason == "STORE_CORRUPT"


def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    assert store_error(tmp_path / "data").reason == "STORE_CANT_OPEN"
    assert store_error(tmp_path / "data" / "below").reason == "STORE_CANT_OPEN"


def test_a_read_only_directory_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    create(directory)
    directory.chmod(0o555)
    for file in directory.iterdir():
        file.chmod(0o444)
    output = without_privileges(directory)
    assert output.startswith("STORE_READ_ONLY"), output
    assert "writable" in output


def test_a_read_only_file_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    create(directory)
    (directory / DATABASE).chmod(0o444)
    output = without_privileges(directory)
    assert output.startswith("STORE_READ_ONLY"), output


def test_a_commit_to_a_full_file_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    """Use SQLite's own limit, which causes the same error as a full disk, in the same calls."""

    def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = sqlite3.connect(*args, **kwargs)
        db.execute("PRAGMA max_page_count = 40")
        return db

    async def run() -> None:
        store = await open_store(tmp_path, connect)
        error = await commit_until_refused(store)
        assert (error.code, error.reason) == (Code.RESOURCE_EXHAUSTED, "STORE_FULL")
        head = store.head.value
        assert head.number > 0
        assert await store.revision(head.number)
        assert await store.recall(str(head.number)) is None
        await store.close()
        store = await open_store(tmp_path)  # there is room again
        assert store.head.value == head
        assert (await commit(store, head.number, changes(IRIS), draft())).number == head.number + 1
        await store.close()

    asyncio.run(run())


def test_a_commit_to_a_full_disk_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    mount = tmp_path / "disk"
    mount.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(mount)], capture_output=True, check=False)
    if mounted.returncode:
        missing("only root can mount a small disk: a commit to a full disk is not tested")

    async def run() -> None:
        store = await open_store(mount)
        error = await commit_until_refused(store)
        assert error.reason in ("STORE_FULL", "STORE_IO"), error.message
        assert "full" in error.message or "no space" in error.message
        head = store.head.value
        assert head.number > 0
        assert await store.at(head.number - 1)
        await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,size=10m", str(mount)], check=True)
        assert (await commit(store, head.number, changes(IRIS), draft())).number == head.number + 1
        newest = store.head.value
        await store.close()
        store = await open_store(mount)
        assert store.head.value == newest
        assert len(await store.revisions(10**9, 10**6)) == newest.number
        await store.close()

    try:
        asyncio.run(run())
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_disk_that_is_full_at_the_start_is_reported(tmp_path: Path) -> None:
    code = f"""
import asyncio, pathlib, resource, signal
from controlplane.errors import Error
from tests.store.opening import open_store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
try:
    asyncio.run(open_store(pathlib.Path({str(tmp_path)!r})))
except Error as error:
    print(error.code.name, error.reason)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert output in (["RESOURCE_EXHAUSTED", "STORE_FULL"], ["UNAVAILABLE", "STORE_IO"])
    create(tmp_path)  # without the limit, the store is created

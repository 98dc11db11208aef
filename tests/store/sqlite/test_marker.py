"""The marker: a database that was lost, rolled back or exchanged is noticed; a marker that is too old does no harm."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from controlplane.errors import Error
from controlplane.store.sqlite import DATABASE, marker
from controlplane.store.sqlite.marker import MARKER, Marker
from tests.store.opening import open_store
from tests.store.places import GREEN, changes, commit, draft
from tests.store.sqlite.common import create, store_error


def test_the_marker_has_the_newest_revision(tmp_path: Path) -> None:
    create(tmp_path)
    written = marker.read(tmp_path)
    assert written is not None
    assert (len(written.history), written.revision) == (8, 5)
    assert (tmp_path / MARKER).stat().st_mode & 0o777 == 0o600
    marker.write(tmp_path, Marker("0a1b2c3d", 123_456))
    assert marker.read(tmp_path) == Marker("0a1b2c3d", 123_456)
    marker.write(tmp_path, Marker("0a1b2c3d", 7))
    assert (tmp_path / MARKER).read_text() == f"0a1b2c3d {7:>18}\n"


@pytest.mark.parametrize("content", [None, b"", b"\0" * 28, b"history 7\n"])
async def test_a_marker_that_cannot_be_read_is_written_again(tmp_path: Path, content: bytes | None) -> None:
    await asyncio.to_thread(create, tmp_path)
    if content is None:
        (tmp_path / MARKER).unlink()
    else:
        (tmp_path / MARKER).write_bytes(content)
    assert marker.read(tmp_path) is None
    await (await open_store(tmp_path)).close()
    written = marker.read(tmp_path)
    assert written is not None
    assert written.revision == 5


async def test_an_older_copy_of_the_database_is_refused(tmp_path: Path) -> None:
    directory, copy = tmp_path / "data", tmp_path / "copy.db"
    store = await open_store(directory)
    await commit(store, 0, changes(GREEN), draft())
    await store.close()
    shutil.copy(directory / DATABASE, copy)
    store = await open_store(directory)
    await commit(store, 1, changes(deleted=("models/iris",)), draft())
    await store.close()
    shutil.copy(copy, directory / DATABASE)
    with pytest.raises(Error, match=r"up to revision 1, but turnout\.history beside it says that history") as caught:
        await open_store(directory)
    assert caught.value.reason == "STORE_REPLACED"
    assert f"turnout restore {directory / DATABASE} --data {directory} --replace" in str(caught.value)


def test_a_database_of_another_history_is_refused(tmp_path: Path) -> None:
    create(tmp_path / "a")
    create(tmp_path / "b")
    shutil.copy(tmp_path / "a" / DATABASE, tmp_path / "b" / DATABASE)
    shutil.copy(tmp_path / "a" / "secret.key", tmp_path / "b" / "secret.key")
    assert store_error(tmp_path / "b").reason == "STORE_REPLACED"


def test_a_lost_wal_is_noticed(tmp_path: Path) -> None:
    """The process is killed, so the newest revisions are only in the WAL. Then the WAL is lost."""
    directory = tmp_path / "data"
    code = os.fork()
    if code == 0:

        async def run() -> None:
            store = await open_store(directory)
            await commit(store, 0, changes(GREEN), draft())
            os._exit(0)

        asyncio.run(run())
    os.waitpid(code, 0)
    assert (directory / f"{DATABASE}-wal").stat().st_size > 0
    (directory / f"{DATABASE}-wal").unlink()
    error = store_error(directory)
    assert error.reason in ("STORE_REPLACED", "STORE_CORRUPT"), error.message


def test_a_directory_that_cannot_be_written_to_is_no_error(tmp_path: Path) -> None:
    marker.write(tmp_path / "missing", Marker("0a1b2c3d", 7))
    assert marker.read(tmp_path / "missing") is None

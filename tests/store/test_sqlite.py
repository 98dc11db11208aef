"""The SQLite store: the contract, and what can happen to a file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.domain import Gateway, Object
from controlplane.domain.state import Changes
from controlplane.errors import Code, Error
from controlplane.store import Store
from controlplane.store.sqlite import DATABASE
from tests.nouns import gateways, models
from tests.store.contract import EDGE, IRIS, Contract, Open, changes, commit, draft, filled
from tests.store.opening import open_store


class TestSqlite(Contract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Open:
        return lambda: open_store(tmp_path / "data")


def store_error(directory: Path) -> Error:
    """The error of opening the store there."""

    async def attempt() -> None:
        store = await open_store(directory)
        await store.close()

    with pytest.raises(Error) as caught:
        asyncio.run(attempt())
    return caught.value


def make(directory: Path) -> None:
    """A store with five revisions."""

    async def fill() -> None:
        store = await open_store(directory)
        await filled(store)
        await store.close()

    asyncio.run(fill())


names = st.sampled_from(["a", "b", "c"])
objects = st.one_of(gateways.flatmap(lambda g: names.map(lambda n: _renamed(g, n))), models(name=names))
steps = st.lists(st.dictionaries(names, objects | st.none(), min_size=1, max_size=3), max_size=6)


def _renamed(gateway: Gateway, name: str) -> Gateway:
    return Gateway(name, gateway.port, gateway.address, gateway.routing, gateway.nodes)


@given(steps)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_history_is_the_same_after_reopening(history: list[dict[str, Object | None]]) -> None:
    async def run(directory: Path) -> None:
        store = await open_store(directory)
        heads = [store.head.value]
        for step in history:
            wanted: dict[str, Object | None] = {}
            for name, obj in step.items():
                wanted[obj.resource_name if obj else f"models/{name}"] = obj
            real = {n: o for n, o in wanted.items() if o is not None or heads[-1].state.get(n) is not None}
            if real:
                heads.append(await commit(store, heads[-1].number, Changes(real), draft(float(len(heads)))))
        revisions = await store.revisions(10**9, 100)
        await store.close()
        store = await open_store(directory)
        assert store.head.value == heads[-1]
        assert await store.revisions(10**9, 100) == revisions
        for head in heads:
            assert await store.at(head.number) == head
        await store.close()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(Path(directory)))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE revisions SET author = 'eve'",
        "DELETE FROM revisions WHERE number = 5",
        "UPDATE objects SET content = NULL",
        "DELETE FROM objects",
        "UPDATE requests SET revision = 1",
        "DELETE FROM requests",
        "INSERT INTO revisions VALUES (7, 0, '', '', 'apply', 0, '', '')",
    ],
)
def test_the_file_itself_keeps_history(tmp_path: Path, statement: str) -> None:
    async def fill() -> None:
        store = await open_store(tmp_path)
        await filled(store)
        await store.remember("id", "digest", 5)
        await store.close()

    asyncio.run(fill())
    db = sqlite3.connect(tmp_path / DATABASE)
    with pytest.raises(sqlite3.IntegrityError):
        db.execute(statement)
    db.close()


# ------------------------------------------------------------------------------------------------------------- files


def test_a_missing_directory_is_made(tmp_path: Path) -> None:
    make(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / DATABASE).exists()


def test_a_store_is_held_by_one(tmp_path: Path) -> None:
    async def run() -> None:
        store = await open_store(tmp_path)
        with pytest.raises(Error) as caught:
            await open_store(tmp_path)
        assert (caught.value.code, caught.value.reason) == (Code.FAILED_PRECONDITION, "STORE_HELD")
        assert f"process {os.getpid()}" in caught.value.message
        await store.close()
        await (await open_store(tmp_path)).close()

    asyncio.run(run())


def test_a_store_is_held_against_another_process(tmp_path: Path) -> None:
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

    said = asyncio.run(run())
    assert said.startswith("STORE_HELD")
    assert f"process {os.getpid()}" in said


def test_a_newer_file(tmp_path: Path) -> None:
    make(tmp_path)
    db = sqlite3.connect(tmp_path / DATABASE)
    db.execute("PRAGMA user_version = 99")
    db.close()
    error = store_error(tmp_path)
    assert (error.code, error.reason) == (Code.FAILED_PRECONDITION, "STORE_NEWER")
    assert "schema 99" in error.message
    # It was left as it was, and is not held.
    assert store_error(tmp_path).reason == "STORE_NEWER"


def rewrite(directory: Path, old: str, new: str) -> None:
    """Changes content behind the triggers' back."""
    db = sqlite3.connect(directory / DATABASE)
    db.execute("DROP TRIGGER objects_stay")
    db.execute("UPDATE objects SET content = replace(content, ?, ?)", (old, new))
    db.commit()
    db.close()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"keys":', '"colour":"red","keys":', "STORE_NEWER"),
        ('"protocol":"http1"', '"protocol":"http9"', "STORE_NEWER"),
        ('"routing":{"path":', '"routing":{"smell":', "STORE_NEWER"),
        ('"segment":3', '"segment":3,"extra":1', "STORE_NEWER"),
        ('"green":10000', '"green":9999', "STORE_CORRUPT"),
        ('"port":8080', '"port":"many"', "STORE_CORRUPT"),
        ('"port":8080', '"port":0', "STORE_CORRUPT"),
        ('{"name":"iris"', '{"name":"iris', "STORE_CORRUPT"),
        ('{"name":"edge"', '{"name":"edge', "STORE_CORRUPT"),
    ],
)
def test_content_that_is_not_known(tmp_path: Path, old: str, new: str, reason: str) -> None:
    make(tmp_path)
    rewrite(tmp_path, old, new)
    error = store_error(tmp_path)
    assert (error.code, error.reason) == (Code.FAILED_PRECONDITION, reason)
    assert "models/iris" in error.message or "gateways/edge" in error.message


def test_content_from_before_a_field_was_there(tmp_path: Path) -> None:
    make(tmp_path)
    rewrite(tmp_path, ',"preview_header":""', "")

    async def run() -> None:
        store = await open_store(tmp_path)
        assert store.head.value.state.models["iris"].preview_header == ""
        await store.close()

    asyncio.run(run())


def test_not_a_database(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"gateways:\n- name: edge\n" * 500)
    error = store_error(tmp_path)
    assert (error.code, error.reason) == (Code.FAILED_PRECONDITION, "STORE_CORRUPT")
    assert str(tmp_path / DATABASE) in error.message


def test_another_programs_database(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / DATABASE)
    db.execute("CREATE TABLE bookmarks (url TEXT)")
    db.close()
    assert store_error(tmp_path).reason == "STORE_FOREIGN"


def test_a_damaged_file(tmp_path: Path) -> None:
    make(tmp_path)
    file = tmp_path / DATABASE
    data = bytearray(file.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    file.write_bytes(data)
    assert store_error(tmp_path).reason == "STORE_CORRUPT"


def test_a_file_that_lacks_a_revision(tmp_path: Path) -> None:
    make(tmp_path)
    db = sqlite3.connect(tmp_path / DATABASE)
    db.execute("DROP TRIGGER revisions_last")
    db.execute("DELETE FROM revisions WHERE number = 2")
    db.commit()
    db.close()
    error = store_error(tmp_path)
    assert error.reason == "STORE_CORRUPT"
    assert "4 revisions" in error.message


def test_the_place_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    assert store_error(tmp_path / "data").reason == "STORE_CANT_OPEN"
    assert store_error(tmp_path / "data" / "below").reason == "STORE_CANT_OPEN"


def without_privileges(directory: Path) -> str:
    """The error of opening the store, also for root, whom permissions don't bind: its capabilities are dropped first."""
    code = f"""
import asyncio, ctypes, pathlib
from controlplane.errors import Error
from tests.store.opening import open_store
header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert ctypes.CDLL(None).capset(header, nothing) == 0
try:
    asyncio.run(open_store(pathlib.Path({str(directory)!r})))
    print("opened")
except Error as error:
    print(error.reason, error.message)
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_a_directory_that_is_read_only(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    make(directory)
    directory.chmod(0o555)
    for file in directory.iterdir():
        file.chmod(0o444)
    said = without_privileges(directory)
    assert said.startswith("STORE_READ_ONLY"), said
    assert "writable" in said


def test_a_file_that_is_read_only(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    make(directory)
    (directory / DATABASE).chmod(0o444)
    said = without_privileges(directory)
    assert said.startswith("STORE_READ_ONLY"), said


# ----------------------------------------------------------------------------------------- disks that fill up, or fail


async def gateway_by_gateway(store: Store, most: int = 2_000) -> Error:
    """Commits until one is refused, and returns why."""
    for _ in range(most):
        head = store.head.value
        try:
            await commit(
                store, head.number, changes(Gateway("edge", 1 + head.number % 60_000)), draft(request_id=str(head.number))
            )
        except Error as error:
            assert store.head.value == head
            return error
    raise AssertionError("never refused")


def test_a_full_file(tmp_path: Path) -> None:
    """SQLite's own limit stands for the disk's: the same code, at the same places."""

    def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = sqlite3.connect(*args, **kwargs)
        db.execute("PRAGMA max_page_count = 40")
        return db

    async def run() -> None:
        store = await open_store(tmp_path, connect)
        error = await gateway_by_gateway(store)
        assert (error.code, error.reason) == (Code.RESOURCE_EXHAUSTED, "STORE_FULL")
        head = store.head.value
        assert head.number > 0
        assert await store.revision(head.number)
        assert await store.recall(str(head.number)) is None
        await store.close()
        store = await open_store(tmp_path)  # somebody made room
        assert store.head.value == head
        assert (await commit(store, head.number, changes(IRIS), draft())).number == head.number + 1
        await store.close()

    asyncio.run(run())


def test_a_full_disk(tmp_path: Path) -> None:
    mount = tmp_path / "disk"
    mount.mkdir()
    tried = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(mount)], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("only root can mount a small disk")

    async def run() -> None:
        store = await open_store(mount)
        error = await gateway_by_gateway(store)
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


def test_a_full_disk_at_the_start(tmp_path: Path) -> None:
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
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said in (["RESOURCE_EXHAUSTED", "STORE_FULL"], ["UNAVAILABLE", "STORE_IO"])
    make(tmp_path)  # with room it goes on from there


class Flaky(sqlite3.Connection):
    """A connection whose COMMIT fails when told to, before or after it happened; and that can be away altogether."""

    mode = ""

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if Flaky.mode == "away" or (Flaky.mode == "after, then away" and sql.startswith("PRAGMA journal_mode")):
            raise _broken()
        if sql == "COMMIT" and Flaky.mode == "before":
            raise _broken()
        if sql == "COMMIT" and Flaky.mode.startswith("after"):
            super().execute(sql)
            raise _broken()
        return super().execute(sql, *args)


def _broken() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    return error


@pytest.fixture
def flaky() -> Iterator[type[Flaky]]:
    Flaky.mode = ""
    yield Flaky
    Flaky.mode = ""


def open_flaky(directory: Path) -> Awaitable[Store]:
    return open_store(directory, lambda *a, **k: sqlite3.connect(*a, factory=Flaky, **k))


async def test_a_commit_that_failed_and_happened(tmp_path: Path, flaky: type[Flaky]) -> None:
    store = await open_flaky(tmp_path)
    flaky.mode = "after"
    head = await commit(store, 0, changes(EDGE), draft(request_id="r", digest="d"))
    assert (head.number, store.head.value) == (1, head)
    flaky.mode = ""
    assert (await commit(store, 1, changes(IRIS), draft())).number == 2
    await store.close()


async def test_a_commit_that_failed_and_did_not_happen(tmp_path: Path, flaky: type[Flaky]) -> None:
    store = await open_flaky(tmp_path)
    flaky.mode = "before"
    with pytest.raises(Error) as caught:
        await commit(store, 0, changes(EDGE), draft(request_id="r", digest="d"))
    assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "STORE_IO")
    assert store.head.value.number == 0
    flaky.mode = ""
    assert await store.recall("r") is None
    assert (await commit(store, 0, changes(EDGE), draft(request_id="r", digest="d"))).number == 1
    await store.close()


async def test_a_commit_of_which_nothing_is_known(tmp_path: Path, flaky: type[Flaky]) -> None:
    """It happened, and the disk went away before that could be seen: it is found out before anything else is written."""
    store = await open_flaky(tmp_path)
    flaky.mode = "after, then away"
    with pytest.raises(Error) as caught:
        await commit(store, 0, changes(EDGE), draft(request_id="r", digest="d"))
    assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "STORE_UNKNOWN_OUTCOME")
    assert store.head.value.number == 0
    with pytest.raises(Error) as caught:
        await commit(store, 0, changes(IRIS), draft())
    assert caught.value.reason == "STORE_IO"
    flaky.mode = ""
    with pytest.raises(Error) as caught:
        await commit(store, 0, changes(IRIS), draft())
    assert caught.value.reason == "CONFLICT"
    assert store.head.value.state.gateways == {"edge": EDGE}
    assert (await commit(store, 1, changes(IRIS), draft())).number == 2
    await store.close()


async def test_a_disk_that_is_away(tmp_path: Path, flaky: type[Flaky]) -> None:
    store = await open_flaky(tmp_path)
    await filled(store)
    head = store.head.value
    flaky.mode = "away"
    for call in (commit(store, 5, changes(IRIS), draft()), store.remember("x", "d", 5), store.recall("x"), store.at(3)):
        with pytest.raises(Error) as caught:
            await call
        assert caught.value.code is Code.UNAVAILABLE
    assert store.head.value == head, "what is in memory goes on being served"
    flaky.mode = ""
    assert (await commit(store, 5, changes(IRIS), draft())).number == 6
    await store.close()


async def test_a_request_that_failed_to_be_remembered(tmp_path: Path, flaky: type[Flaky]) -> None:
    store = await open_flaky(tmp_path)
    await filled(store)
    flaky.mode = "before"
    with pytest.raises(Error):
        await store.remember("x", "d", 5)
    flaky.mode = ""
    assert (await commit(store, 5, changes(IRIS), draft(request_id="x", digest="d"))).number == 6
    await store.close()

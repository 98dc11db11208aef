"""The table at the head of `earlier_use.py`: which directories get a new store, and what is said about the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.errors import Code, Error
from controlplane.store.key_file import key_source
from controlplane.store.sqlite import DATABASE, SqliteStore, earlier_use, open_store
from tests.store.places import filled
from tests.store.sqlite.common import create, store_error


def write(*names: str) -> Callable[[Path], None]:
    """Return a function that writes files into a directory."""

    def put(directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        for name in names:
            (directory / name).write_text("x")

    return put


def lose(*names: str) -> Callable[[Path], None]:
    """Return a function that fills a store in a directory, and deletes files of it."""

    def fill(directory: Path) -> None:
        create(directory)
        for name in names:
            (directory / name).unlink()

    return fill


def emptied(directory: Path) -> None:
    create(directory)
    (directory / DATABASE).write_bytes(b"")


def store_below(directory: Path) -> None:
    create(directory / "turnout")


def store_above(directory: Path) -> None:
    create(directory.parent)


SIGNS = [
    pytest.param(emptied, "turnout.db is empty (truncated, or the disk was full)", "restore a backup", id="empty"),
    pytest.param(lose(DATABASE), "turnout.db is missing, and turnout.history says", "put turnout.db back", id="lost"),
    pytest.param(write("turnout.db-wal"), "turnout.db-wal without turnout.db", "beside turnout.db-wal", id="wal"),
    pytest.param(write("turnout.db-shm"), "turnout.db-shm without turnout.db", "restore a backup", id="shm"),
    pytest.param(write("turnout.db.bak"), "turnout.db.bak without turnout.db", "restore a backup", id="copy"),
    pytest.param(write("secret.key"), "secret.key without turnout.db", "restore a backup", id="key"),
    pytest.param(write("turnout.lock"), "turnout.lock without turnout.db", "restore a backup", id="lock"),
    pytest.param(store_below, "it holds no store, but", "start with --data", id="below"),
    pytest.param(store_above, "it holds no store, but", "start with --data", id="above"),
]


@pytest.mark.parametrize(("prepare", "sign", "advice"), SIGNS)
def test_a_directory_with_a_sign_of_earlier_use_is_refused_and_stays_as_it_is(
    tmp_path: Path, prepare: Callable[[Path], None], sign: str, advice: str
) -> None:
    directory = tmp_path / "data"
    prepare(directory)
    before = listing(directory)
    for _ in range(2):
        error = store_error(directory)
        assert (error.code, error.reason) == (Code.FAILED_PRECONDITION, "STORE_LOST")
        assert f"{directory} shows signs of earlier use" in error.message
        assert sign in error.message
        assert advice in error.message
        assert "start anew with --init" in error.message
        assert listing(directory) == before


@pytest.mark.parametrize(("prepare", "sign", "advice"), SIGNS)
async def test_init_starts_anew_and_keeps_what_was_there(
    tmp_path: Path, prepare: Callable[[Path], None], sign: str, advice: str
) -> None:
    directory = tmp_path / "data"
    await asyncio.to_thread(prepare, directory)
    before = listing(directory)
    key = directory / "secret.key"
    if key.exists() and key.read_text() == "x":
        key.write_text("A" * 43 + "=")
        key.chmod(0o600)
    store = await initialised(directory)
    assert (store.created, store.head.value.number) == (True, 0)
    await filled(store)
    await store.close()
    folders = list(directory.glob("before-init-*"))
    names = {path.name for folder in folders for path in folder.iterdir()} | {path.name for path in directory.iterdir()}
    assert {Path(name).name for name in before} <= names | {"turnout"} | {Path(n).name for n in before if "turnout/" in n}


async def initialised(directory: Path) -> SqliteStore:
    return await open_store(directory, key_source(directory), init=True)


async def test_init_refuses_a_directory_that_holds_a_store(tmp_path: Path) -> None:
    await asyncio.to_thread(create, tmp_path)
    before = listing(tmp_path)
    for _ in range(2):
        with pytest.raises(Error, match="is a store already: start without --init") as caught:
            await initialised(tmp_path)
        assert caught.value.reason == "STORE_EXISTS"
        assert listing(tmp_path) == before


async def test_init_moves_a_damaged_store_aside(tmp_path: Path) -> None:
    await asyncio.to_thread(create, tmp_path)
    damaged = bytearray((tmp_path / DATABASE).read_bytes())
    damaged[5_000:9_000] = bytes(4_000)
    (tmp_path / DATABASE).write_bytes(damaged)
    store = await initialised(tmp_path)
    assert store.head.value.number == 0
    await store.close()
    (name,) = [name for name in listing(tmp_path) if name.startswith("before-init-") and name.endswith(DATABASE)]
    folder = (tmp_path / name).parent
    assert (folder / DATABASE).read_bytes()[5_000:9_000] == bytes(4_000)
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("names", [(), ("lost+found",), ("notes.txt", ".snapshot")])
async def test_a_directory_without_a_sign_gets_a_new_store(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).mkdir()
    store = await open_store(tmp_path, key_source(tmp_path))
    assert store.created
    await store.close()
    store = await open_store(tmp_path, key_source(tmp_path))
    assert not store.created
    await store.close()


def test_a_start_that_failed_leaves_no_sign(tmp_path: Path) -> None:
    directory = tmp_path / "data"

    def full(*args: object, **kwargs: object) -> object:
        raise MemoryError("the first start fails")

    async def attempt() -> None:
        await open_store(directory, key_source(directory), full)  # type: ignore[arg-type]

    for _ in range(2):
        with pytest.raises(MemoryError):
            asyncio.run(attempt())
        assert listing(directory) == []


def test_a_volume_that_is_not_mounted_is_missing(tmp_path: Path) -> None:
    fstab = tmp_path / "fstab"
    volume = tmp_path / "my volume"
    fstab.write_text(f"# comment\n\nUUID=1 / ext4\nUUID=2 {str(volume).replace(' ', chr(92) + '040')} ext4 defaults 0 2\n")
    for directory in (volume, volume / "turnout"):
        error = earlier_use.refusal(directory, fstab)
        assert error is not None
        assert f"{volume} is a mount point in {fstab}, and nothing is mounted there. Nothing" in error.message
        assert "Either mount it, or" in error.message
    assert earlier_use.refusal(tmp_path / "other", fstab) is None
    assert earlier_use.refusal(tmp_path / "other", tmp_path / "no-fstab") is None
    fstab.write_text("proc /proc proc\n")
    assert earlier_use.refusal(Path("/proc/turnout"), fstab) is None, "it is mounted"


def listing(directory: Path) -> list[str]:
    """Return the sorted paths of all files below a directory."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())

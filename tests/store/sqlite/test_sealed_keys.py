"""Private keys in records: moved there from older stores, sealed anew when the sealing key changes, never lost."""

from __future__ import annotations

import asyncio
import base64
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from controlplane.domain import OpaqueValue, Secret
from controlplane.domain.state import Changes
from controlplane.errors import Error
from controlplane.store.key_file import KEY_FILE, add_new_key, drop_old_keys
from controlplane.store.sqlite import DATABASE, SqliteStore
from controlplane.store.sqlite.sealed_keys import sealing_key_ids
from tests.pki import marks, pair
from tests.store import places
from tests.store.opening import open_store
from tests.store.sqlite.common import change, store_error

STORED = Path(__file__).parents[1] / "testdata" / "bddd395"
ONE, TWO = pair("one.example"), pair("two.example")


async def commit(store: SqliteStore, *secrets: Secret) -> None:
    await places.commit(store, store.head.value.number, Changes({s.resource_name: s for s in secrets}), places.draft())


async def fill(directory: Path, count: int = 1) -> None:
    """Create a store with two certificates, of which one was rotated, and opaque values."""
    store = await open_store(directory)
    await commit(store, ONE.secret(), ONE.secret("other"))
    await commit(store, TWO.secret(), *(Secret(f"key-{i}", OpaqueValue(f"value-{i}")) for i in range(count)))
    await store.close()


def objects(directory: Path, query: str) -> list[str]:
    with sqlite3.connect(directory / DATABASE) as db:
        return [str(value) for (value,) in db.execute(query)]


def has(directory: Path, *texts: str) -> bool:
    """Return True if a file of the directory has one of the texts."""
    contents = [path.read_bytes() for path in directory.iterdir() if path.is_file()]
    return any(text.encode() in content for text in texts for content in contents)


async def everything(directory: Path) -> list[object]:
    """Return all that can be read from a store."""
    store = await open_store(directory)
    try:
        heads = [(await store.at(number)).state for number in range(store.head.value.number + 1)]
        return [store.history_id, heads, await store.revisions(10, 10)]
    finally:
        await store.close()


async def test_the_history_has_references_and_revisions_with_the_same_key_share_a_record(tmp_path: Path) -> None:
    await fill(tmp_path)
    store = await open_store(tmp_path)
    await commit(store, ONE.secret())  # back to the first key
    await store.close()
    contents = objects(tmp_path, "SELECT content FROM objects WHERE name = 'secrets/edge' ORDER BY revision")
    assert all(":stored:" not in c and '"stored:' in c for c in contents)
    assert contents[0] == contents[2] != contents[1]
    names = objects(tmp_path, "SELECT name FROM records WHERE kind = 'sealed_keys'")
    assert sorted(name.partition("/")[0] for name in names) == ["edge", "edge", "key-0", "other"]


async def test_the_keys_of_a_refused_revision_are_not_written(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    draft = places.draft(request_id="same")
    a, b = (Changes({f"secrets/{name}": Secret(name, OpaqueValue("value"))}) for name in ("a", "b"))
    await places.commit(store, 0, a, draft)
    with pytest.raises(Error, match="was used already"):
        await places.commit(store, 1, b, draft)
    await commit(store, Secret("c", OpaqueValue("value")))
    await store.close()
    names = objects(tmp_path, "SELECT name FROM records WHERE kind = 'sealed_keys'")
    assert sorted(name.partition("/")[0] for name in names) == ["a", "c"]


async def test_the_keys_of_a_store_of_an_earlier_version_become_records_and_nothing_is_lost(tmp_path: Path) -> None:
    """`test_stored.py` compares every revision of this store with what the earlier version wrote."""
    directory = tmp_path / "data"
    shutil.copytree(STORED, directory)
    (directory / KEY_FILE).chmod(0o600)
    with sqlite3.connect(directory / DATABASE) as db:
        used = sealing_key_ids(db)
        (before,) = db.execute("SELECT count(*) FROM objects WHERE content LIKE '%sealed_private_key%'").fetchone()
    assert (len(used), before > 0) == (1, True)
    store = await open_store(directory)
    assert (store.upkeep.moved > 0, store.upkeep.had_macs, store.upkeep.is_new_store) == (True, False, False)
    await store.close()
    contents = objects(directory, "SELECT content FROM objects WHERE content LIKE '%sealed_%'")
    assert len(contents) == before
    assert all('"stored:' in content for content in contents)
    with sqlite3.connect(directory / DATABASE) as db:
        assert sealing_key_ids(db) == used
    store = await open_store(directory)
    assert (store.upkeep.moved, store.upkeep.new_macs) == (0, False)
    await store.close()


async def test_a_new_first_key_seals_everything_anew_and_the_old_one_is_not_needed_any_more(tmp_path: Path) -> None:
    await fill(tmp_path, 3)
    before = await everything(tmp_path)
    old = (tmp_path / KEY_FILE).read_bytes()
    sealed = objects(tmp_path, "SELECT CAST(value AS TEXT) FROM records WHERE kind = 'sealed_keys'")
    add_new_key(tmp_path / KEY_FILE)
    store = await open_store(tmp_path)
    assert (store.upkeep.resealed, store.upkeep.had_macs) == (6, True)
    await store.close()
    drop_old_keys(tmp_path / KEY_FILE)
    assert await everything(tmp_path) == before
    # Neither the old sealed texts nor anything in the clear is left in a file.
    assert not has(tmp_path, *sealed, "value-1", *marks(ONE.key), *marks(TWO.key))
    (tmp_path / KEY_FILE).write_bytes(old)
    with pytest.raises(Error) as caught:
        await open_store(tmp_path)
    assert caught.value.reason == "SECRET_KEY_WRONG"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE objects SET content = replace(content, '10.0.0.1', '6.6.6.6')",
        "UPDATE revisions SET author = 'somebody else' WHERE number = 1",
        "UPDATE records SET value = CAST(replace(CAST(value AS TEXT), 'A', 'B') AS BLOB) WHERE kind = 'sealed_keys'",
        "UPDATE records SET name = replace(name, 'other/', 'edge/') WHERE kind = 'sealed_keys'",
    ],
)
def test_an_edit_is_found_even_if_its_digests_fit(tmp_path: Path, statement: str) -> None:
    asyncio.run(fill(tmp_path))

    async def gateway() -> None:
        store = await open_store(tmp_path)
        change_of = places.changes(places.EDGE, places.IRIS)
        await places.commit(store, store.head.value.number, change_of, places.draft())
        await store.close()

    asyncio.run(gateway())
    mac_key = objects(tmp_path, "SELECT mac_key FROM layout")[0]
    change(tmp_path, statement)
    # `change` writes the digests and leaves the MACs out, as only Turnout can make them. An attacker keeps the old ones.
    with sqlite3.connect(tmp_path / DATABASE) as db:
        db.execute("UPDATE layout SET mac_key = ?", (mac_key,))
    error = store_error(tmp_path)
    assert (error.reason, "differs from its MAC" in error.message) == ("STORE_CORRUPT", True), error.message


async def test_a_secret_of_the_newest_revision_without_its_key_is_damage(tmp_path: Path) -> None:
    await fill(tmp_path)
    change(tmp_path, "DELETE FROM records WHERE name LIKE 'other/%'")
    with pytest.raises(Error, match="secrets/other: its private key is missing") as caught:
        await open_store(tmp_path)
    assert caught.value.reason == "STORE_CORRUPT"


def test_nothing_is_lost_when_a_rotation_is_killed(tmp_path: Path) -> None:
    rotate_and_kill(tmp_path, 4, random.Random(1))


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_nothing_is_lost_in_hundreds_of_killed_rotations(tmp_path: Path) -> None:
    rotate_and_kill(tmp_path, 200, random.Random())


def rotate_and_kill(tmp_path: Path, kills: int, rng: random.Random) -> None:
    """Kill processes that seal a store anew, at random moments, and check that nothing is lost."""
    asyncio.run(fill(tmp_path / "data", 100))
    before = asyncio.run(everything(tmp_path / "data"))
    resealed: set[int] = set()
    code = (
        "import asyncio, os, sys, pathlib\n"
        "from tests.store.opening import open_store\n"
        "os.write(1, b'go')\n"
        "asyncio.run(open_store(pathlib.Path(sys.argv[1])))\n"
        "os.write(1, b'done')\n"
    )
    for i in range(kills):
        directory = tmp_path / str(i)
        shutil.copytree(tmp_path / "data", directory)
        add_new_key(directory / KEY_FILE)
        with subprocess.Popen([sys.executable, "-c", code, str(directory)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.read(2)
            time.sleep(rng.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
        resealed.add(asyncio.run(_resealed(directory)))
        assert asyncio.run(everything(directory)) == before
        keys = (directory / KEY_FILE).read_bytes().split()
        assert [len(base64.b64decode(key)) for key in keys] == [32, 32]
        assert os.listdir(directory).count(KEY_FILE) == 1
    # Either nothing or everything was sealed anew when the process was killed.
    assert resealed <= {0, 103}


async def _resealed(directory: Path) -> int:
    store = await open_store(directory)
    await store.close()
    return store.upkeep.resealed

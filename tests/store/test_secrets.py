"""Secrets in the SQLite store: read back equal, and unreadable in its files."""

from __future__ import annotations

import json
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest

from controlplane.domain import OpaqueValue, Secret, TlsCertificate
from controlplane.domain.state import Changes
from controlplane.errors import Error
from controlplane.store.key_file import KEY_FILE
from controlplane.store.sqlite import DATABASE, SqliteStore
from tests.pki import authority, marks, pair
from tests.store import places
from tests.store.opening import open_store
from tests.store.places import draft
from tests.store.sqlite.common import change

OLD, NEW = pair("old.example"), pair("new.example")


async def commit(store: SqliteStore, *secrets: Secret, deleted: tuple[str, ...] = ()) -> None:
    objects = {**{s.resource_name: s for s in secrets}, **dict.fromkeys(deleted)}
    await places.commit(store, store.head.value.number, Changes(objects), draft())


async def fill(directory: Path) -> None:
    """Create a certificate and authorities, rotate the certificate, and delete it."""
    store = await open_store(directory)
    await commit(store, OLD.secret(), authority().secret())
    await commit(store, NEW.secret())
    await commit(store, deleted=("secrets/edge",))
    await store.close()


async def reason(directory: Path, key_file: Path | None = None) -> str:
    with pytest.raises(Error) as caught:
        await open_store(directory, key_file=key_file)
    assert not any(mark in caught.value.message for p in (OLD, NEW) for mark in marks(p.key))
    return caught.value.reason


async def test_every_revision_has_its_certificate_and_key(tmp_path: Path) -> None:
    await fill(tmp_path / "data")
    store = await open_store(tmp_path / "data")
    assert [(await store.at(n)).state.secrets.get("edge") for n in (1, 2, 3)] == [OLD.secret(), NEW.secret(), None]
    content = (await store.at(1)).state.secrets["edge"].content
    assert isinstance(content, TlsCertificate)
    assert content.private_key_pem == OLD.key
    assert (await store.revision(2)).changes == {"secrets/edge": (OLD.secret(), NEW.secret())}
    assert store.head.value.state.secrets == {"ca": authority().secret()}
    await store.close()


async def test_no_file_contains_a_private_key_and_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    store = await open_store(directory)
    await commit(store, OLD.secret(), NEW.secret("other"))
    files = [p for p in directory.iterdir() if p.is_file()]
    assert {DATABASE, f"{DATABASE}-wal", KEY_FILE} <= {p.name for p in files}
    for path in files:
        assert not any(m.encode() in path.read_bytes() for p in (OLD, NEW) for m in marks(p.key)), path
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    await store.close()


async def test_an_opaque_value_is_sealed_like_a_private_key(tmp_path: Path) -> None:
    secret = Secret("key", OpaqueValue("sk-1234"))
    directory = tmp_path / "data"
    store = await open_store(directory)
    await commit(store, secret)
    await store.close()
    assert not any(b"sk-1234" in p.read_bytes() for p in directory.rglob("*") if p.is_file())
    store = await open_store(directory)
    assert store.head.value.state.secrets == {"key": secret}
    await store.close()
    (directory / KEY_FILE).rename(tmp_path / KEY_FILE)
    assert await reason(directory) == "SECRET_KEY_MISSING"


async def test_permissions_of_files_that_others_can_read_are_corrected(tmp_path: Path) -> None:
    await fill(tmp_path / "data")
    (tmp_path / "data" / DATABASE).chmod(0o644)
    await (await open_store(tmp_path / "data")).close()
    assert stat.S_IMODE((tmp_path / "data" / DATABASE).stat().st_mode) == 0o600


async def test_all_but_private_keys_is_readable_without_the_sealing_key(tmp_path: Path) -> None:
    await fill(tmp_path / "data")
    with sqlite3.connect(tmp_path / "data" / DATABASE) as db:
        rows = db.execute("SELECT content FROM objects WHERE name = 'secrets/edge' AND content IS NOT NULL").fetchall()
    contents = [json.loads(content)["tls_certificate"] for (content,) in rows]
    assert [content["certificate_chain_pem"] for content in contents] == [OLD.certificate, NEW.certificate]


async def test_a_store_without_its_sealing_key_does_not_open_and_stays_unchanged(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    await fill(directory)
    backup = tmp_path / "backup.key"
    shutil.move(directory / KEY_FILE, backup)
    before = (directory / DATABASE).read_bytes()
    assert await reason(directory) == "SECRET_KEY_MISSING"
    assert not (directory / KEY_FILE).exists()  # a new key would open nothing
    other = tmp_path / "other"
    await (await open_store(other)).close()
    shutil.copy(other / KEY_FILE, directory / KEY_FILE)
    # No live object has a private key any more, but the history has.
    assert await reason(directory) == "SECRET_KEY_WRONG"
    assert await reason(directory, tmp_path / "nowhere.key") == "SECRET_KEY_MISSING"
    assert (directory / DATABASE).read_bytes() == before
    store = await open_store(directory, key_file=backup)
    assert (await store.at(1)).state.secrets["edge"] == OLD.secret()
    await store.close()


async def test_after_a_new_key_is_added_the_old_one_still_opens(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    await fill(directory)
    other = tmp_path / "other"
    await (await open_store(other)).close()
    path = directory / KEY_FILE
    path.write_bytes((other / KEY_FILE).read_bytes() + path.read_bytes())
    store = await open_store(directory)
    await commit(store, NEW.secret())
    await store.close()
    store = await open_store(directory)
    assert [(await store.at(n)).state.secrets["edge"] for n in (1, 4)] == [OLD.secret(), NEW.secret()]
    await store.close()


async def test_a_sealed_key_cannot_be_moved_to_another_secret(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    store = await open_store(directory)
    await commit(store, OLD.secret(), OLD.secret("other"))
    await store.close()
    other = "(SELECT content FROM objects WHERE name = 'secrets/other')"
    change(
        directory,
        f"UPDATE objects SET content = replace({other}, '\"other\"', '\"edge\"') WHERE name = 'secrets/edge'",
    )
    assert await reason(directory) == "STORE_CORRUPT"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"name": "edge"}', "STORE_NEWER"),
        ('{"name": "edge", "password": {}}', "STORE_NEWER"),
        ('{"name": "edge", "ca_certificates": {"ca_certificates_pem": "x", "more": "y"}}', "STORE_NEWER"),
        ('{"name": "edge", "ca_certificates": {"ca_certificates_pem": "x"}}', "STORE_CORRUPT"),
        ('{"name": "edge", "ca_certificates": {"ca_certificates_pem": 1}}', "STORE_CORRUPT"),
        ('{"name": 1, "ca_certificates": {}}', "STORE_CORRUPT"),
        ('{"name": "edge", "tls_certificate": {"certificate_chain_pem": "x"}}', "SECRET_KEY_WRONG"),
        ("[]", "STORE_CORRUPT"),
    ],
)
async def test_newer_and_damaged_content_is_refused(tmp_path: Path, content: str, expected: str) -> None:
    directory = tmp_path / "data"
    store = await open_store(directory)
    await commit(store, authority().secret("edge"))
    await store.close()
    change(directory, "UPDATE objects SET content = ?", content)
    assert await reason(directory) == expected

"""The file of sealing keys: created for its owner only, and refused if it is missing, invalid or exposed."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest

from controlplane.errors import Error
from controlplane.store.key_file import KEY_FILE, add_new_key, drop_old_keys, key_source, load


def refused(path: Path, *, create: bool = False) -> str:
    """Return the reason of the error that loading raises."""
    with pytest.raises(Error) as caught:
        load(path, create=create)
    assert str(path) in caught.value.message
    return caught.value.reason


def test_a_created_key_file_is_readable_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    sealed = load(path, create=True).seal("a key", "secrets/edge")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load(path, create=True).open(sealed, "secrets/edge") == "a key"
    assert os.listdir(tmp_path) == ["secret.key"]


def test_an_incomplete_file_of_a_stopped_process_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "secret.key.new").write_bytes(b"half")
    load(tmp_path / "secret.key", create=True)
    assert os.listdir(tmp_path) == ["secret.key"]


def test_a_new_first_line_seals_and_the_old_one_still_opens(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    old = load(path, create=True).seal("old", "secrets/edge")
    path.write_bytes(base64.b64encode(b"n" * 32) + b"\n" + path.read_bytes())
    keys = load(path, create=True)
    new = keys.seal("new", "secrets/edge")
    assert new.partition(":")[0] != old.partition(":")[0]
    assert [keys.open(sealed, "secrets/edge") for sealed in (old, new)] == ["old", "new"]
    path.write_bytes(path.read_bytes().splitlines()[0])
    with pytest.raises(Error, match="sealed with another key"):
        load(path, create=True).open(old, "secrets/edge")


def test_missing_invalid_exposed_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    assert refused(path) == "SECRET_KEY_MISSING"
    for content in (b"", b"c2hvcnQ=", b"not base64!", base64.b64encode(b"k" * 32) + b"\nx"):
        path.write_bytes(content)
        path.chmod(0o600)
        assert refused(path, create=True) == "SECRET_KEY_INVALID"
        assert path.read_bytes() == content
    path.chmod(0o644)
    assert refused(path, create=True) == "SECRET_KEY_EXPOSED"
    assert refused(tmp_path) == "SECRET_KEY_UNREADABLE"


def test_only_the_stores_own_file_is_created_and_only_if_nothing_is_sealed(tmp_path: Path) -> None:
    with pytest.raises(Error) as caught:
        key_source(tmp_path)({"some key"})
    assert caught.value.reason == "SECRET_KEY_MISSING"
    with pytest.raises(Error) as caught:
        key_source(tmp_path, tmp_path / "other.key")(set())
    assert caught.value.reason == "SECRET_KEY_MISSING"
    assert os.listdir(tmp_path) == []
    sealed = key_source(tmp_path)(set()).seal("a key", "secrets/edge")
    assert os.listdir(tmp_path) == [KEY_FILE]
    assert key_source(tmp_path)({"any"}).open(sealed, "secrets/edge") == "a key"


def test_a_text_and_a_command_are_sources_too(tmp_path: Path) -> None:
    key = base64.b64encode(b"k" * 32)
    (tmp_path / "key").write_bytes(key)
    sealed = key_source(tmp_path, text=key.decode())(set()).seal("a key", "secrets/edge")
    assert key_source(tmp_path, command=f"cat {tmp_path / 'key'}")({"any"}).open(sealed, "secrets/edge") == "a key"
    for source in (key_source(tmp_path, text="x"), key_source(tmp_path, command="echo x")):
        with pytest.raises(Error, match="must hold one key on each line") as caught:
            source(set())
        assert caught.value.reason == "SECRET_KEY_INVALID"
    assert os.listdir(tmp_path) == ["key"]


def test_a_new_key_is_added_first_and_old_ones_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    load(path, create=True)
    path.chmod(0o640)
    old = path.read_bytes()
    add_new_key(path)
    new, kept = path.read_bytes().split()
    assert (kept, len(new)) == (old.strip(), len(kept))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert drop_old_keys(path) == 1
    assert path.read_bytes() == new + b"\n"
    assert drop_old_keys(path) == 0
    assert os.listdir(tmp_path) == ["secret.key"]


def test_keys_have_no_text_form(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    keys = load(path, create=True)
    assert path.read_text().strip() not in repr(keys) + str(vars(keys))

"""The file of sealing keys: made for its owner only, and refused where it is not as it should be."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest

from controlplane.errors import Error
from controlplane.store.key_file import KEY_FILE, key_source, load


def refused(path: Path, *, make: bool = False) -> str:
    """Return the reason of the error that loading raises."""
    with pytest.raises(Error) as caught:
        load(path, make=make)
    assert str(path) in caught.value.message
    return caught.value.reason


def test_a_key_is_made_for_its_owner_only_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    sealed = load(path, make=True).seal("a key", "secrets/edge")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load(path, make=True).open(sealed, "secrets/edge") == "a key"
    assert os.listdir(tmp_path) == ["secret.key"]


def test_a_half_made_file_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "secret.key.new").write_bytes(b"half")
    load(tmp_path / "secret.key", make=True)
    assert os.listdir(tmp_path) == ["secret.key"]


def test_a_new_first_line_seals_and_the_old_one_still_opens(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    old = load(path, make=True).seal("old", "secrets/edge")
    path.write_bytes(base64.b64encode(b"n" * 32) + b"\n" + path.read_bytes())
    keys = load(path, make=True)
    new = keys.seal("new", "secrets/edge")
    assert new.partition(":")[0] != old.partition(":")[0]
    assert [keys.open(sealed, "secrets/edge") for sealed in (old, new)] == ["old", "new"]
    path.write_bytes(path.read_bytes().splitlines()[0])
    with pytest.raises(Error, match="sealed with another key"):
        load(path, make=True).open(old, "secrets/edge")


def test_files_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    assert refused(path) == "SECRET_KEY_MISSING"
    for content in (b"", b"c2hvcnQ=", b"not base64!", base64.b64encode(b"k" * 32) + b"\nx"):
        path.write_bytes(content)
        path.chmod(0o600)
        assert refused(path, make=True) == "SECRET_KEY_INVALID"
        assert path.read_bytes() == content
    path.chmod(0o644)
    assert refused(path, make=True) == "SECRET_KEY_EXPOSED"
    assert refused(tmp_path) == "SECRET_KEY_UNREADABLE"


def test_only_the_stores_own_file_is_made_and_only_while_nothing_is_sealed(tmp_path: Path) -> None:
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


def test_keys_have_no_text_form(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    keys = load(path, make=True)
    assert path.read_text().strip() not in repr(keys) + str(vars(keys))

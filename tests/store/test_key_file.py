"""The file of keys, and what is sealed with them; what becomes of it in a store is in `test_secrets.py`."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest

from controlplane.errors import Error
from controlplane.store import key_file


def refused(path: Path, *, make: bool = False) -> str:
    with pytest.raises(Error) as caught:
        key_file.load(path, make=make)
    return caught.value.reason


def test_a_key_is_made_for_its_owner_only_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    sealed = key_file.load(path, make=True).seal("a key", "secrets/edge")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "a key" not in sealed
    assert key_file.load(path, make=True).open(sealed, "secrets/edge") == "a key"
    assert os.listdir(tmp_path) == ["secret.key"]


def test_what_is_sealed_twice_is_not_the_same_and_opens_under_its_name_only(tmp_path: Path) -> None:
    keys = key_file.load(tmp_path / "secret.key", make=True)
    one, two = (keys.seal("a key", "secrets/edge") for _ in range(2))
    assert one != two
    with pytest.raises(ValueError, match="changed, or moved here"):
        keys.open(one, "secrets/other")
    changed = base64.b64decode(one.partition(":")[2])
    changed = changed[:-1] + bytes([changed[-1] ^ 1])
    with pytest.raises(ValueError, match="changed"):
        keys.open(f"{one.partition(':')[0]}:{base64.b64encode(changed).decode()}", "secrets/edge")


def test_a_new_first_line_seals_and_the_old_one_still_opens(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    old = key_file.load(path, make=True).seal("old", "secrets/edge")
    path.write_bytes(base64.b64encode(b"n" * 32) + b"\n" + path.read_bytes())
    keys = key_file.load(path, make=True)
    new = keys.seal("new", "secrets/edge")
    assert new.partition(":")[0] != old.partition(":")[0]
    assert [keys.open(s, "secrets/edge") for s in (old, new)] == ["old", "new"]
    path.write_bytes(path.read_bytes().splitlines()[0])
    with pytest.raises(Error, match="sealed with another key"):
        key_file.load(path, make=True).open(old, "secrets/edge")


def test_a_file_that_is_no_key_is_said_to_be_none(tmp_path: Path) -> None:
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


def test_keys_have_no_text_form(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    keys = key_file.load(path, make=True)
    assert path.read_text().strip() not in repr(keys) + str(vars(keys))

"""Sealing: a sealed private key opens with its sealing key, under its own name only."""

from __future__ import annotations

import base64

import pytest

from controlplane.errors import Code, Error
from controlplane.store.sealing import Keys, wrong_key

OLD, NEW = b"o" * 32, b"n" * 32


def test_a_sealed_text_opens() -> None:
    sealed = Keys([OLD]).seal("a key", "secrets/edge")
    assert "a key" not in sealed
    assert Keys([OLD]).open(sealed, "secrets/edge") == "a key"


def test_the_same_text_seals_differently_each_time() -> None:
    keys = Keys([OLD])
    assert keys.seal("a key", "secrets/edge") != keys.seal("a key", "secrets/edge")


def test_a_sealed_text_opens_under_its_name_only() -> None:
    keys = Keys([OLD])
    sealed = keys.seal("a key", "secrets/edge")
    with pytest.raises(ValueError, match="changed, or moved here"):
        keys.open(sealed, "secrets/other")


@pytest.mark.parametrize("position", [0, 11, 12, -1])
def test_a_changed_text_does_not_open(position: int) -> None:
    keys = Keys([OLD])
    key_id, _, text = keys.seal("a key", "secrets/edge").partition(":")
    data = bytearray(base64.b64decode(text))
    data[position] ^= 1
    with pytest.raises(ValueError, match="changed"):
        keys.open(f"{key_id}:{base64.b64encode(data).decode()}", "secrets/edge")


def test_the_first_key_seals_and_all_open() -> None:
    old = Keys([OLD]).seal("old", "secrets/edge")
    keys = Keys([NEW, OLD])
    new = keys.seal("new", "secrets/edge")
    assert new.partition(":")[0] != old.partition(":")[0]
    assert [keys.open(sealed, "secrets/edge") for sealed in (old, new)] == ["old", "new"]
    with pytest.raises(Error, match="sealed with another key") as caught:
        Keys([NEW]).open(old, "secrets/edge")
    assert caught.value.reason == "SECRET_KEY_WRONG"


def test_missing_keys_are_found_by_their_ids() -> None:
    old, new = (Keys([key]).seal("", "x").partition(":")[0] for key in (OLD, NEW))
    assert Keys([OLD]).lacks({old, new}) == {new}
    assert Keys([NEW, OLD]).lacks({old, new}) == set()
    error = wrong_key({"b" * 40, "a"})
    assert error.code is Code.FAILED_PRECONDITION
    assert f"(a, {'b' * 16})" in error.message


def test_keys_have_no_text_form() -> None:
    keys = Keys([OLD])
    assert "oooo" not in repr(keys) + str(vars(keys))

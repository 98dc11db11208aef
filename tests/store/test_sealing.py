"""Sealing: a sealed private key can be opened only with its sealing key and its name."""

from __future__ import annotations

import base64

import pytest

from controlplane.errors import Code, Error
from controlplane.store.sealing import Keys, wrong_key

OLD, NEW = b"o" * 32, b"n" * 32


def test_a_sealed_text_can_be_opened() -> None:
    sealed = Keys([OLD]).seal("a key", "secrets/edge")
    assert "a key" not in sealed
    assert Keys([OLD]).open(sealed, "secrets/edge") == "a key"


def test_sealing_the_same_text_twice_gives_different_results() -> None:
    keys = Keys([OLD])
    assert keys.seal("a key", "secrets/edge") != keys.seal("a key", "secrets/edge")


def test_a_sealed_text_cannot_be_opened_with_another_name() -> None:
    keys = Keys([OLD])
    sealed = keys.seal("a key", "secrets/edge")
    with pytest.raises(ValueError, match="changed, or copied from another secret"):
        keys.open(sealed, "secrets/other")


@pytest.mark.parametrize("position", [0, 11, 12, -1])
def test_a_changed_text_cannot_be_opened(position: int) -> None:
    keys = Keys([OLD])
    key_id, _, text = keys.seal("a key", "secrets/edge").partition(":")
    data = bytearray(base64.b64decode(text))
    data[position] ^= 1
    with pytest.raises(ValueError, match="changed"):
        keys.open(f"{key_id}:{base64.b64encode(data).decode()}", "secrets/edge")


def test_the_first_key_seals_and_every_key_opens() -> None:
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
    assert Keys([OLD]).missing({old, new}) == {new}
    assert Keys([NEW, OLD]).missing({old, new}) == set()
    error = wrong_key({"b" * 40, "a"})
    assert error.code is Code.FAILED_PRECONDITION
    assert f"(a, {'b' * 16})" in error.message


def test_keys_have_no_text_form() -> None:
    keys = Keys([OLD])
    assert "oooo" not in repr(keys) + str(vars(keys))

"""Sealing: private keys in the store are encrypted with a key that is not in the store or in its backups.

The cipher is AES-256-GCM with a new nonce each time (NIST SP 800-38D). The name of the secret is authenticated too, so that
nobody can exchange the sealed keys of two secrets. The first sealing key seals, and every key opens what it sealed. A store
gets the sealing keys from its caller, and never creates one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Callable
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from controlplane.errors import Code, Error

KEY_BYTES = 32
_NONCE_BYTES = 12


class Purged(Exception):
    """A private key or value was removed from the store. Its text is the id of what was removed."""


class Sealer(Protocol):
    """Stores private keys and values, so that the JSON of an object does not contain them."""

    def seal(self, text: str, name: str) -> str:
        """Return what stands for `text` in the JSON of the secret with a resource name."""

    def open(self, sealed: str, name: str) -> str:
        """Return the text. Errors: FAILED_PRECONDITION / SECRET_KEY_WRONG; Purged; ValueError if it was changed."""


class Keys:
    """The sealing keys. `repr` does not show them."""

    def __init__(self, keys: list[bytes]) -> None:
        """Take at least one key of 32 bytes; the first one seals."""
        self._keys = {_id_of(key): AESGCM(key) for key in keys}
        self._first = _id_of(keys[0])

    def seal(self, text: str, name: str) -> str:
        """Return `text` sealed. `open` accepts it only with the same `name`."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._keys[self._first].encrypt(nonce, text.encode(), name.encode())
        return f"{self._first}:{base64.b64encode(sealed).decode()}"

    def open(self, sealed: str, name: str) -> str:
        """Return the text that was sealed.

        Errors: FAILED_PRECONDITION / SECRET_KEY_WRONG; ValueError when the sealed text was changed.
        """
        sealed_with, _, text = sealed.partition(":")
        if sealed_with not in self._keys:
            raise wrong_key({sealed_with})
        try:
            data = base64.b64decode(text, validate=True)
            return self._keys[sealed_with].decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], name.encode()).decode()
        except (InvalidTag, ValueError):
            raise ValueError("the sealed key can't be opened: it was changed, or copied from another secret") from None

    @property
    def first(self) -> str:
        """The id of the key that seals."""
        return self._first

    def resealed(self, sealed: str, name: str) -> str:
        """Return the same text, sealed with the first key. Errors: as `open`."""
        return sealed if key_id(sealed) == self._first else self.seal(self.open(sealed, name), name)

    def missing(self, key_ids: set[str]) -> set[str]:
        """Return those of `key_ids` whose sealing keys are not among these keys."""
        return key_ids - self._keys.keys()


# Returns the sealing keys. A store calls it when it opens, with the ids of the sealing keys that its history needs. Errors:
# those of `key_file.load`.
KeySource = Callable[[set[str]], Keys]


def wrong_key(key_ids: set[str]) -> Error:
    """Return the FAILED_PRECONDITION / SECRET_KEY_WRONG of a store that needs the sealing keys with these ids."""
    names = ", ".join(sorted(key_id[:16] for key_id in key_ids))
    return Error(
        Code.FAILED_PRECONDITION,
        "SECRET_KEY_WRONG",
        f"the store was sealed with another key ({names}): start it with the sealing key that it was started with before, or "
        "add that key as a further line. Nothing was changed",
    )


def parse_keys(text: bytes) -> Keys | None:
    """Return the keys of a text that has one on each line, in base64; None if it has none, or something else."""
    try:
        keys = [base64.b64decode(line, validate=True) for line in text.split()]
    except (binascii.Error, ValueError):
        return None
    return Keys(keys) if keys and all(len(key) == KEY_BYTES for key in keys) else None


def new_key() -> bytes:
    """Return a new random key, in base64."""
    return base64.b64encode(os.urandom(KEY_BYTES))


def key_id(sealed: str) -> str:
    """Return the id of the sealing key of a sealed text."""
    return sealed.partition(":")[0]


def _id_of(key: bytes) -> str:
    """Return an id of a sealing key that does not reveal the key."""
    return hashlib.sha256(b"turnout secret key\0" + key).hexdigest()[:16]

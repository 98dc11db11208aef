"""Private keys at rest: sealed with a key that is in a file of its own, so that the store and its backups don't show them.

AES-256-GCM with a new nonce each time (NIST SP 800-38D); the name of the secret is authenticated with it, so that what is
sealed for one can't be put in the place of another. The file holds one key a line, 32 random bytes in base64. The first line
seals; all of them open. So a new key is a new first line, and the old ones stay for as long as there is history sealed with
them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from controlplane.errors import Code, Error

KEY_FILE = "secret.key"
_BYTES = 32
_NONCE = 12


class Keys:
    """What seals and opens. It has no text form."""

    def __init__(self, keys: list[bytes]) -> None:
        """At least one key of 32 bytes; the first one seals."""
        self._keys = {_id(key): AESGCM(key) for key in keys}
        self._first = _id(keys[0])

    def seal(self, text: str, name: str) -> str:
        """`text`, to be opened under the same `name` only."""
        nonce = os.urandom(_NONCE)
        sealed = nonce + self._keys[self._first].encrypt(nonce, text.encode(), name.encode())
        return f"{self._first}:{base64.b64encode(sealed).decode()}"

    def open(self, sealed: str, name: str) -> str:
        """What was sealed. Errors: FAILED_PRECONDITION / SECRET_KEY_WRONG; ValueError when it was changed since."""
        key, _, text = sealed.partition(":")
        if key not in self._keys:
            raise wrong_key({key})
        try:
            data = base64.b64decode(text, validate=True)
            return self._keys[key].decrypt(data[:_NONCE], data[_NONCE:], name.encode()).decode()
        except (InvalidTag, ValueError):
            raise ValueError("what is sealed does not open: it was changed, or moved here") from None

    def lacks(self, ids: set[str]) -> set[str]:
        """Those of some keys' ids that are not among these."""
        return ids - self._keys.keys()


def load(path: Path, *, make: bool) -> Keys:
    """The keys of a file; `make` makes the file where it is missing, for its owner only.

    Errors: FAILED_PRECONDITION / SECRET_KEY_MISSING, SECRET_KEY_UNREADABLE, SECRET_KEY_EXPOSED, SECRET_KEY_INVALID.
    """
    try:
        if make:
            _make(path)
        with path.open("rb") as file:
            exposed = stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o007
            lines = file.read(64 * 1024).split()
    except FileNotFoundError:
        raise _refused(
            "SECRET_KEY_MISSING",
            f"{path} does not exist: it holds the key that private keys are sealed with. Put it back from your backup; "
            f"where there never was one, make it: (umask 077 && head -c 32 /dev/urandom | base64 > {path})",
        ) from None
    except OSError as error:
        raise _refused("SECRET_KEY_UNREADABLE", f"{path} can't be read: {(error.strerror or '').lower()}") from None
    if exposed:
        raise _refused("SECRET_KEY_EXPOSED", f"{path} can be read by anyone on this machine: chmod 600 {path}")
    try:
        keys = [base64.b64decode(line, validate=True) for line in lines]
    except (binascii.Error, ValueError):
        keys = []
    if not keys or any(len(key) != _BYTES for key in keys):
        raise _refused("SECRET_KEY_INVALID", f"{path} must hold a key a line, {_BYTES} bytes in base64 each")
    return Keys(keys)


def wrong_key(ids: set[str]) -> Error:
    """What is said when private keys were sealed with keys that are not there."""
    named = ", ".join(sorted(i[:16] for i in ids))
    return _refused(
        "SECRET_KEY_WRONG",
        f"the store holds private keys that were sealed with another key ({named}): start it with the file that it was "
        "started with before, or add that file's lines to the one in use. Nothing was changed",
    )


def _make(path: Path) -> None:
    """A file with a new key, unless there is one."""
    if path.exists():
        return
    # Whole or not at all, also when the machine goes down meanwhile: what is sealed with half a key is lost.
    new = path.with_name(f"{path.name}.new")
    with suppress(FileNotFoundError):
        new.unlink()
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64encode(os.urandom(_BYTES)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(new, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _id(key: bytes) -> str:
    """A name for a key that says nothing of it."""
    return hashlib.sha256(b"turnout secret key\0" + key).hexdigest()[:16]


def _refused(reason: str, message: str) -> Error:
    return Error(Code.FAILED_PRECONDITION, reason, message)

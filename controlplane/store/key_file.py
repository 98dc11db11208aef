"""The file of sealing keys.

Each line of the file is a key: 32 random bytes in base64. The first key seals, and every key opens what it sealed. To change
the key, add a new first line. Keep an old line for as long as the history has private keys that were sealed with it.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from contextlib import suppress
from pathlib import Path

from controlplane.errors import Code, Error
from controlplane.store.sealing import KEY_BYTES, Keys, KeySource

KEY_FILE = "secret.key"


def key_source(directory: Path, key_file: Path | None = None) -> KeySource:
    """Return the source of a store's sealing keys: `key_file`, or `secret.key` in the store's directory.

    The source creates `secret.key` if it is missing, but only if the store holds no sealed key yet: a new key could not open
    that one. The source never creates `key_file`.
    """

    def source(used_key_ids: set[str]) -> Keys:
        return load(key_file or directory / KEY_FILE, create=key_file is None and not used_key_ids)

    return source


def load(path: Path, *, create: bool) -> Keys:
    """Return the keys of a file. With `create`, create a missing file, readable for its owner only.

    Errors: FAILED_PRECONDITION / SECRET_KEY_MISSING, SECRET_KEY_UNREADABLE, SECRET_KEY_EXPOSED, SECRET_KEY_INVALID.
    """
    try:
        if create:
            _create(path)
        with path.open("rb") as file:
            exposed = stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o007
            lines = file.read(64 * 1024).split()
    except FileNotFoundError:
        raise _refused(
            "SECRET_KEY_MISSING",
            f"{path} does not exist: it holds the key that private keys are sealed with. Restore it from your backup; "
            f"if there never was one, create it: (umask 077 && head -c 32 /dev/urandom | base64 > {path})",
        ) from None
    except OSError as error:
        raise _refused("SECRET_KEY_UNREADABLE", f"{path} can't be read: {(error.strerror or '').lower()}") from None
    if exposed:
        raise _refused("SECRET_KEY_EXPOSED", f"{path} can be read by anyone on this machine: chmod 600 {path}")
    try:
        keys = [base64.b64decode(line, validate=True) for line in lines]
    except (binascii.Error, ValueError):
        keys = []
    if not keys or any(len(key) != KEY_BYTES for key in keys):
        raise _refused("SECRET_KEY_INVALID", f"{path} must hold one key on each line: {KEY_BYTES} bytes in base64")
    return Keys(keys)


def _create(path: Path) -> None:
    """Create a file with a new key, if there is no file."""
    if path.exists():
        return
    # Atomic and durable, even if the machine stops. If a key file were lost, nothing could open what its key has sealed.
    new = path.with_name(f"{path.name}.new")
    with suppress(FileNotFoundError):
        new.unlink()
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64encode(os.urandom(KEY_BYTES)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(new, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _refused(reason: str, message: str) -> Error:
    return Error(Code.FAILED_PRECONDITION, reason, message)

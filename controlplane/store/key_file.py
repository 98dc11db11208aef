"""The sources of sealing keys: a file, a text that the environment has, or the output of a command.

Each line is a key: 32 random bytes in base64. The first key seals, and every key opens what it sealed. When a store is
opened, everything in it is sealed anew with the first key. So to change the key, add a new first line. The old line is needed
until the store was opened once, and for older backups.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from controlplane.errors import Code, Error
from controlplane.store.key_command import output_of
from controlplane.store.sealing import KEY_BYTES, Keys, KeySource, new_key, parse_keys

KEY_FILE = "secret.key"

_FORM = f"one key on each line: {KEY_BYTES} bytes in base64, as `head -c {KEY_BYTES} /dev/urandom | base64` prints them"


def key_source(directory: Path, key_file: Path | None = None, *, text: str = "", command: str = "") -> KeySource:
    """Return the source of a store's sealing keys: a text, a command, `key_file`, or `secret.key` in the store's directory.

    The source creates `secret.key` if it is missing, but only if the store does not need an earlier key: a new key could not
    open what that one sealed. The source creates no other key.
    """

    def source(used_key_ids: set[str]) -> Keys:
        if text:
            return _parsed(text.encode(), "the variable TURNOUT_SECRET_KEY")
        if command:
            return _parsed(output_of(command), "the output of the command that prints the sealing key")
        return load(key_file or directory / KEY_FILE, create=key_file is None and not used_key_ids)

    return source


def load(path: Path, *, create: bool) -> Keys:
    """Return the keys of a file. With `create`, create a missing file, readable for its owner only.

    Errors: FAILED_PRECONDITION / SECRET_KEY_MISSING, SECRET_KEY_UNREADABLE, SECRET_KEY_EXPOSED, SECRET_KEY_INVALID.
    """
    try:
        if create and not path.exists():
            _write(path, new_key() + b"\n")
        with path.open("rb") as file:
            exposed = stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o007
            content = file.read(64 * 1024)
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
    return _parsed(content, str(path))


def add_new_key(path: Path) -> None:
    """Add a new key as the first line of a file. Errors: those of `load`; SECRET_KEY_UNREADABLE if it can't be written."""
    load(path, create=False)
    _edit(path, lambda lines: [new_key(), *lines])


def drop_old_keys(path: Path) -> int:
    """Remove all keys of a file but the first one, and return how many. Errors: as `add_new_key`."""
    load(path, create=False)
    count = len(path.read_bytes().split()) - 1
    if count:
        _edit(path, lambda lines: lines[:1])
    return count


def _edit(path: Path, edited: Callable[[list[bytes]], list[bytes]]) -> None:
    try:
        owner = path.stat()
        _write(path, b"".join(line + b"\n" for line in edited(path.read_bytes().split())), owner)
    except OSError as error:
        raise _refused("SECRET_KEY_UNREADABLE", f"{path} can't be changed: {(error.strerror or '').lower()}") from None


def _write(path: Path, content: bytes, owner: os.stat_result | None = None) -> None:
    """Create or replace a file. It gets the owner and the mode of the file that it replaces."""
    # Atomic and durable, even if the machine stops. If a key file were lost, nothing could open what its key has sealed.
    new = path.with_name(f"{path.name}.new")
    with suppress(FileNotFoundError):
        new.unlink()
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        if owner is not None:
            os.fchmod(file.fileno(), stat.S_IMODE(owner.st_mode))
            if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(new, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _parsed(text: bytes, source: str) -> Keys:
    keys = parse_keys(text)
    if keys is None:
        raise _refused("SECRET_KEY_INVALID", f"{source} must hold {_FORM}")
    return keys


def _refused(reason: str, message: str) -> Error:
    return Error(Code.FAILED_PRECONDITION, reason, message)

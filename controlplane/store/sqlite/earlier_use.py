"""Signs that a data directory was used before, although it holds no store.

A control plane on a new store has nothing to serve. If the store was lost, or if `--data` names the wrong directory, it must
not start: the first change would replace everything that the fleet has. So a new store is created only where no sign of an
earlier one is found:

| directory | means | result |
|---|---|---|
| does not exist, or is empty | a new machine, container or volume | a new store |
| has files of other programs only (`lost+found`) | the same | a new store |
| `turnout.db` is empty | the file was truncated, or the disk was full | refused |
| `turnout.db-wal`, `-shm` or a copy like `turnout.db.bak`, no `turnout.db` | the database was lost or moved | refused |
| `turnout.history` without `turnout.db` | a store was here | refused |
| `secret.key` without `turnout.db` | a store was here, or somebody has put a key there for a new one | refused |
| `turnout.lock` without `turnout.db` | a store was here, or the first start was killed | refused |
| is listed in /etc/fstab and not mounted | the volume is missing | refused |
| the directory above, or one below, has a `turnout.db` | `--data` is one level too high or too low | refused |
| is the new default, and `./turnout-data`, the earlier default, holds a store | an upgrade | refused (`cli/settings.py`) |

A mounted volume that is empty is new: nothing distinguishes it from a lost one. `--init` starts anew in spite of a sign. It
moves the files that it would overwrite into a new folder, and keeps the sealing key. It refuses a directory that holds a
store, so that it can't stay in a unit file.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path

from controlplane.errors import Error
from controlplane.store.key_file import KEY_FILE
from controlplane.store.sqlite.explain import refused
from controlplane.store.sqlite.marker import MARKER

DATABASE = "turnout.db"
LOCK = "turnout.lock"

# Entries of a directory that are looked at.
_MAX_ENTRIES = 1_000

# The smallest page of a database, in bytes.
_SMALLEST = 512

_RESTORE = "restore a backup (`turnout restore FILE --data {directory}`)"


def has_database(directory: Path) -> bool:
    """Return True if there is a database that SQLite does not take for an empty one."""
    try:
        return (directory / DATABASE).stat().st_size >= _SMALLEST
    except OSError:
        return False


def refusal(directory: Path, fstab: Path = Path("/etc/fstab")) -> Error | None:
    """Return FAILED_PRECONDITION / STORE_LOST if a directory without a store shows signs of earlier use, else None.

    The text says what is missing and what to do.
    """
    if (unmounted := _unmounted(directory, fstab)) is not None:
        return _lost(directory, f"{unmounted} is a mount point in {fstab}, and nothing is mounted there", "mount it")
    if (sign := _sign(directory)) is not None:
        return _lost(directory, *sign)
    if (other := _neighbour(directory)) is not None:
        return _lost(directory, f"it holds no store, but {other} does", f"start with --data {other}")
    return None


def set_aside(directory: Path, reason: str) -> Path | None:
    """Move the files of an earlier store into a new folder in the directory, and return the folder; None if there are none.

    The lock, which the caller holds, and the sealing key stay.
    """
    names = [name for name in _entries(directory) if name.startswith(DATABASE) or name == MARKER]
    if not names:
        return None
    stem = f"before-{reason}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    folder = next(f for i in range(1_000) if not (f := directory / (f"{stem}-{i}" if i else stem)).exists())
    folder.mkdir(mode=0o700)
    for name in names:
        os.rename(directory / name, folder / name)
    return folder


def _lost(directory: Path, sign: str, advice: str) -> Error:
    return refused(
        "STORE_LOST",
        f"{directory} shows signs of earlier use, and there is no store in it: {sign}. Nothing was changed, and Envoys keep "
        f"serving what they have. Either {advice}, or, if there is nothing to keep, start anew with --init",
    )


def _sign(directory: Path) -> tuple[str, str] | None:
    """Return what shows that a directory was used, and what to do; None if nothing does."""
    names = _entries(directory)
    restore = _RESTORE.format(directory=directory)
    if DATABASE in names:
        return f"{DATABASE} is empty (truncated, or the disk was full)", restore
    if copies := [name for name in names if name.startswith(DATABASE)]:
        return f"{', '.join(copies)} without {DATABASE}", f"put {DATABASE} back beside {copies[0]}, or {restore}"
    for name, sign in (
        (MARKER, f"{DATABASE} is missing, and {MARKER} says that a store was here"),
        (KEY_FILE, f"{KEY_FILE} without {DATABASE}"),
        (LOCK, f"{LOCK} without {DATABASE}"),
    ):
        if name in names:
            return sign, f"put {DATABASE} back, or {restore}"
    return None


def _entries(directory: Path) -> list[str]:
    """Return the sorted names of the entries of a directory. A file that is missing has none."""
    try:
        with os.scandir(directory) as entries:
            names = {entry.name for entry in islice(entries, _MAX_ENTRIES)}
    except OSError:
        return []  # opening the store will report it
    # The signs could be among the entries beyond the limit.
    return sorted(names | {name for name in (DATABASE, MARKER, KEY_FILE, LOCK) if os.path.lexists(directory / name)})


def _neighbour(directory: Path) -> Path | None:
    """Return the directory above or below that holds a store."""
    below = [directory / name for name in _entries(directory)]
    with suppress(OSError):
        return next((d for d in (directory.absolute().parent, *below) if has_database(d)), None)
    return None


def _unmounted(directory: Path, fstab: Path) -> Path | None:
    """Return the mount point of the directory that fstab(5) lists and that is not mounted."""
    try:
        lines = fstab.read_text(errors="replace").splitlines()
    except OSError:
        return None
    listed = {fields[1] for line in lines if len(fields := line.split()) > 1 and not fields[0].startswith("#")}
    path = directory.absolute()
    for point in (path, *path.parents):
        # Escapes in fstab(5), like \040 for a space.
        if str(point).replace(" ", "\\040") in listed and str(point) != "/":
            return None if os.path.ismount(point) else point
    return None

"""Plug-ins: the files of Python modules, known by the hash of their content, and the copies of them that a server keeps."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from controlplane.errors import invalid

# The group of entry points whose modules are a plug-in, if `--patches` names none.
GROUP = "turnout.patches"
_MAX_FILES, _MAX_BYTES = 1_000, 16 << 20


@dataclass(frozen=True)
class Plugin:
    """The files of a plug-in, by path. Paths begin with the name of a module, as in `team.py` or `team/tags.py`."""

    files: Mapping[str, bytes]

    @cached_property
    def hash(self) -> str:
        """The hash of all paths and contents, 32 hex digits."""
        digest = hashlib.blake2b(digest_size=16)
        for path, content in sorted(self.files.items()):
            digest.update(f"{len(path)}:{path}{len(content)}:".encode() + content)
        return digest.hexdigest()

    @staticmethod
    def read(places: Iterable[Path], name: str = "patches") -> Plugin:
        """Read modules: files, or folders of packages. Errors: INVALID_ARGUMENT at `name`."""
        files: dict[str, bytes] = {}
        for place in places:
            found = [place] if place.is_file() else [p for p in sorted(place.rglob("*")) if p.is_file()]
            for path in found:
                if "__pycache__" not in path.parts and not path.name.startswith("."):
                    files[path.relative_to(place.parent).as_posix()] = path.read_bytes()
        size = sum(map(len, files.values()))
        if len(files) > _MAX_FILES or size > _MAX_BYTES:
            text = f"has {len(files):,} files of {size:,} bytes, but may have {_MAX_FILES:,} of {_MAX_BYTES:,}"
            raise invalid(name, f"the plug-in {text}")
        return Plugin(files)


def installed(module: str, setting: str = "patches") -> Plugin | None:
    """Return the plug-in of a server: of `module`, or of the entry points if it is ""; None if there is none.

    `module` is the name of a module, or the path of its file or folder. Errors: INVALID_ARGUMENT at `setting`.
    """
    if module:
        return Plugin.read([_place(module, setting)], setting)
    names = sorted({point.module.partition(".")[0] for point in entry_points(group=GROUP)})
    return Plugin.read([_place(name, GROUP) for name in names], GROUP) if names else None


def _place(module: str, setting: str) -> Path:
    """Return the file or the folder of a module. Errors: INVALID_ARGUMENT."""
    path = Path(module)
    if "/" in module or path.suffix == ".py":
        if (path.suffix == ".py" and path.is_file()) or (path / "__init__.py").is_file():
            return path.absolute()
        raise invalid(setting, f"'{module[:200]}' is neither a file of Python nor the folder of a package")
    if not module.isidentifier():
        raise invalid(setting, f"'{module[:200]}' is not the name of a module: give that, or the path of its file or folder")
    spec = find_spec(module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        text = f"there is no module '{module[:200]}' that is written in Python: install it, or give the path of its file"
        raise invalid(setting, text)
    return Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)


class PluginStore:
    """The copies of plug-ins in a folder, one folder for each hash. Revisions of the past may name any of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, plugin: Plugin) -> None:
        """Keep a copy of a plug-in. Errors: OSError."""
        if self.find(plugin.hash) is not None:
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".new-") as new:
            for name, content in plugin.files.items():
                path = Path(new, "files", name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            target = self._folder / plugin.hash
            if target.exists():  # damaged
                shutil.rmtree(target)
            Path(new, "files").rename(target)

    def find(self, digest: str) -> Path | None:
        """Return the folder of a plug-in's copy; None if there is no copy, or if it is damaged."""
        folder = self._folder / digest
        try:
            found = Plugin.read(sorted(folder.iterdir()))
        except OSError:
            return None
        return folder if found.hash == digest else None

    def results(self, digest: str) -> Path:
        """Return the path of the file for the results of a plug-in's functions."""
        return self._folder / f"{digest}.results"

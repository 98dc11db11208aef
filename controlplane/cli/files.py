"""Read files of desired state, and map the server's errors back to their lines."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.cli.decode import KEYS, KEYS_TEXT, Decoder, is_null
from controlplane.cli.document import documents
from controlplane.cli.exits import FilesError, Place, Problem, file_error, unreadable
from controlplane.errors import Error
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest

MAX_BYTES = 16 * 2**20
SUFFIXES = (".yaml", ".yml", ".json")
STDIN = "-"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Objects from files, and the place of each of their fields."""

    manifest: Manifest
    # Path of a field, like `models[0].versions[1].port` -> its place.
    places: dict[str, Place] = field(default_factory=dict)
    # Resource name -> path of the object.
    paths: dict[str, str] = field(default_factory=dict)

    def located(self, error: Error) -> Error:
        """Return the error with the place of each field; unchanged if none of the fields is in these files."""
        problems = [Problem(self.place(v.field), _within_manifest(v.field), v.description) for v in error.violations]
        if not any(p.place for p in problems):
            return error
        return FilesError(problems, error.code, error.reason)

    def resource_name(self, path: str) -> str:
        """Return the resource name of the object that a field belongs to; the field's path if the object has no name."""
        object_path = _within_manifest(path).partition(".")[0]
        return next((name for name, start in self.paths.items() if start == object_path), object_path)

    def place(self, path: str) -> Place | None:
        """Return the place of a field, or of the nearest field around it; None if it is in no file."""
        path = _within_manifest(path)
        if named := re.match(rf"({'|'.join(KEYS)})/[^.\[]+", path):
            # "?" is no path: an object that is in no file has no place.
            path = self.paths.get(named[0], "?") + path[named.end() :]
        while path:
            if path in self.places:
                return self.places[path]
            # Drop the last part: an index, or the name of a field.
            path = re.sub(r"(\[[^\[\]]*\]|\.?[^.\[\]]+|.)$", "", path)
        return None


def load(names: list[str]) -> Loaded:
    """Read files, folders and `-`. Errors: FilesError with the problems of all files."""
    decoder = Decoder()
    problems: list[Problem] = []
    for name in names:
        try:
            for file in _files(name):
                _load_one(file, decoder, problems)
        except FilesError as error:
            problems += error.problems
    problems += decoder.problems
    if not problems and not decoder.paths and not decoder.manifest.ListFields():
        description = f"contains no objects: there is nothing under {KEYS_TEXT}"
        problems.append(Problem(Place(_display_name(names[0]), 1), "", description))
    if problems:
        raise FilesError(problems)
    return Loaded(decoder.manifest, decoder.places, decoder.paths)


def _display_name(file: str) -> str:
    return "<stdin>" if file == STDIN else file


def _load_one(file: str, decoder: Decoder, problems: list[Problem]) -> None:
    display_name = _display_name(file)
    try:
        trees = documents(_text(_bytes(file, display_name), display_name), display_name)
    except FilesError as error:
        problems += error.problems
        return
    if all(is_null(tree) for tree in trees):
        problems.append(Problem(Place(display_name, 1), "", "is empty"))
    for tree in trees:
        decoder.add(tree, display_name)


def _files(name: str) -> list[str]:
    if name == STDIN or not os.path.isdir(name):
        return [name]
    files = sorted(str(p) for p in Path(name).iterdir() if p.suffix in SUFFIXES and not p.name.startswith("."))
    if not files:
        raise file_error(name, 0, f"is a folder without files that end in {', '.join(SUFFIXES)}")
    return files


def _bytes(file: str, display_name: str) -> bytes:
    try:
        if file == STDIN:
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            size = os.stat(file).st_size
            if size > MAX_BYTES:
                raise file_error(display_name, 0, f"is {size / 2**20:.1f} MB; the limit is {MAX_BYTES // 2**20} MB")
            # Devices and pipes have no size, so the read is limited too.
            with open(file, "rb") as opened:
                data = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise unreadable(display_name, error) from None
    if len(data) > MAX_BYTES:
        raise file_error(display_name, 0, f"is larger than the limit of {MAX_BYTES // 2**20} MB")
    return data


def _text(data: bytes, display_name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        description = f"is not UTF-8: byte {data[error.start]:#04x} at offset {error.start}"
        raise file_error(display_name, line, description) from None


def _within_manifest(path: str) -> str:
    """Return a path from the top of the manifest. The server's paths begin at the request, whose field is `manifest`."""
    return path.removeprefix("manifest.")

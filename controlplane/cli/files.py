"""Files of desired state: found, bounded, read, decoded, and named again in what the server says of them."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.cli.decode import Decoder, is_null
from controlplane.cli.document import documents
from controlplane.cli.exits import FilesError, Place, Problem
from controlplane.errors import Error
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest

MAX_BYTES = 16 * 2**20
SUFFIXES = (".yaml", ".yml", ".json")
STDIN = "-"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What files say, and where each field of it was written."""

    manifest: Manifest
    # Path of a field, like `models[0].versions[1].port` -> its place.
    places: dict[str, Place] = field(default_factory=dict)
    # Resource name -> path of the object.
    paths: dict[str, str] = field(default_factory=dict)

    def located(self, error: Error) -> Error:
        """The same error with the places of its fields, as far as they are of these files."""
        problems = [Problem(self.place(v.field), _without_call(v.field), v.description) for v in error.violations]
        if not any(p.place for p in problems):
            return error
        return FilesError(problems, error.code, error.reason)

    def place(self, path: str) -> Place | None:
        """Where a field was written, or the nearest one around it; None when it is of no file."""
        path = _without_call(path)
        if named := re.match(r"(gateways|models|secrets)/[^.\[]+", path):
            path = self.paths.get(named[0], "?") + path[named.end() :]
        while path:
            if path in self.places:
                return self.places[path]
            path = re.sub(r"(\[[^\[\]]*\]|\.?[^.\[\]]+|.)$", "", path)
        return None


def load(names: list[str]) -> Loaded:
    """Reads files, folders and `-`. Errors: FilesError with all that is wrong in all of them."""
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
        nothing = "holds no objects: there is nothing under `gateways:`, `models:` or `secrets:`"
        problems.append(Problem(Place(_shown(names[0]), 1), "", nothing))
    if problems:
        raise FilesError(problems)
    return Loaded(decoder.manifest, decoder.places, decoder.paths)


def _shown(file: str) -> str:
    return "<stdin>" if file == STDIN else file


def _load_one(file: str, decoder: Decoder, problems: list[Problem]) -> None:
    shown = _shown(file)
    try:
        found = documents(_text(_bytes(file, shown), shown), shown)
    except FilesError as error:
        problems += error.problems
        return
    if all(is_null(d) for d in found):
        problems.append(Problem(Place(shown, 1), "", "is empty"))
    for document in found:
        decoder.add(document, shown)


def _files(name: str) -> list[str]:
    if name == STDIN or not os.path.isdir(name):
        return [name]
    found = sorted(str(p) for p in Path(name).iterdir() if p.suffix in SUFFIXES and not p.name.startswith("."))
    if not found:
        raise _wrong(name, f"is a folder without files that end in {', '.join(SUFFIXES)}")
    return found


def _bytes(file: str, shown: str) -> bytes:
    try:
        if file == STDIN:
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            size = os.stat(file).st_size
            if size > MAX_BYTES:
                raise _wrong(shown, f"file is {size / 2**20:.1f} MB; the limit is {MAX_BYTES // 2**20} MB")
            # Devices and pipes have no size: what is read is bounded as well.
            with open(file, "rb") as opened:
                data = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise _wrong(shown, f"can't be read: {(error.strerror or str(error)).lower()}") from None
    if len(data) > MAX_BYTES:
        raise _wrong(shown, f"file is more than {MAX_BYTES // 2**20} MB; that is the limit")
    return data


def _text(data: bytes, shown: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FilesError(
            [Problem(Place(shown, line), "", f"is not UTF-8: byte {data[error.start]:#04x} at offset {error.start}")]
        ) from None


def _wrong(file: str, description: str) -> FilesError:
    return FilesError([Problem(Place(file, 0), "", description)])


def _without_call(path: str) -> str:
    return path.removeprefix("manifest.")

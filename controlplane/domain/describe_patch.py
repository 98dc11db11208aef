"""Descriptions of patches, one line for each value in their content."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from controlplane.domain.patch import Patch
from controlplane.errors import shortened

# Characters of one value, such as a script.
_MAX_VALUE = 500
_PATCH = re.compile(r"(?:^|.*\.)patches\.[a-z0-9-]+")


def patch_fields(path: str, patches: Iterable[Patch]) -> Iterator[tuple[str, str, bool]]:
    """Yield (path, text, False) of the names of patches, and of each patch and each value in it."""
    patches = list(patches)
    yield path, ", ".join(patch.name for patch in patches) or "none", False
    for patch in patches:
        place = f" before {patch.before}" if patch.before else f" after {patch.after}" if patch.after else ""
        yield f"{path}.{patch.name}", f"{patch.target.value}{place}", False
        if patch.function:
            yield f"{path}.{patch.name}.name", patch.function, False
            yield f"{path}.{patch.name}.hash", patch.hash or "that of the installed plug-in", False
            for at, text in _values(f"{path}.{patch.name}.settings", patch.form):
                yield at, text, False
            continue
        for at, text in _values(f"{path}.{patch.name}", patch.form):
            yield at, text, False


def is_of_removed(path: str, before: Collection[str], after: Collection[str]) -> bool:
    """Return True if a path is in a patch that exists only before a change."""
    match = _PATCH.match(path)
    return match is not None and match[0] != path and match[0] in before and match[0] not in after


def _values(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _values(f"{path}.{key}", item)
    elif isinstance(value, list) and value:
        for i, item in enumerate(value):
            yield from _values(f"{path}[{i}]", item)
    else:
        yield path, shortened(json.dumps(value, ensure_ascii=False), _MAX_VALUE)

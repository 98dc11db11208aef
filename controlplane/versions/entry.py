"""One version of one type, encoded: the names of its resources, their versions, and the names that they refer to.

The content is JSON, compressed: `{"has": {name: [version, [[type, name], …]]}, "lacks": [name, …]}`. Types of references are
the abbreviations of `envoy_types.py`. A version is either *whole*, or relative to another version, its *base*: then `has` are
the resources that are new or different, and `lacks` the names that only the base has.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from controlplane.envoy_types import COMPILED
from controlplane.snapshot import NOTHING, Resource, Resources

# A content of fewer bytes is not compressed. Compressed contents begin with the byte 0x78, and JSON with `{`.
_SMALL = 200

_URLS = {t.abbreviation: t.url for t in COMPILED.values()}


@dataclass(frozen=True, slots=True)
class IndexedVersion:
    """A version of a type that was published."""

    type_url: str
    version: str
    # The version that `content` is relative to. "": this version is whole.
    base: str
    # When it was published, in seconds since the epoch.
    time: float
    content: bytes = field(repr=False)

    @property
    def key(self) -> tuple[str, str]:
        """Return type URL and version, which name the entry."""
        return self.type_url, self.version

    def changed(self) -> Iterable[tuple[str, str]]:
        """Yield name and version of each resource in `content`."""
        for name, (version, _) in _decoded(self.content)["has"].items():
            yield name, version

    def resources(self, base: Resources = NOTHING) -> Resources:
        """Return the resources of the version, without bodies. `base` are those of its base."""
        content = _decoded(self.content)
        resources = dict(base)
        for name in content["lacks"]:
            resources.pop(name, None)
        for name, (version, refs) in content["has"].items():
            named = frozenset((_URLS[t], n) for t, n in refs if t in _URLS)
            resources[name] = Resource(self.type_url, name, version, b"", named)
        return resources


def encoded(
    type_url: str, version: str, base: str, time: float, has: Iterable[Resource], lacks: Iterable[str] = ()
) -> IndexedVersion:
    """Return a version that has these resources, relative to `base`; "" for a whole version."""
    resources = {r.name: [r.version, sorted([COMPILED[t].abbreviation, n] for t, n in r.refs)] for r in has}
    text = json.dumps({"has": resources, "lacks": sorted(lacks)}, separators=(",", ":"), sort_keys=True).encode()
    return IndexedVersion(type_url, version, base, time, text if len(text) < _SMALL else zlib.compress(text))


def _decoded(content: bytes) -> Any:
    return json.loads(content if content[:1] == b"{" else zlib.decompress(content))

"""The versions of resources in the index of published versions, as a set of numbers, so that a look-up is fast."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.versions.entry import IndexedVersion

# The set may also have resources of entries that were dropped. It is stale once its size is above twice the size that it had
# when it was fresh, plus this number.
MORE_RESOURCES = 100_000


class ResourceVersions:
    """All versions of resources in some entries, by type URL."""

    def __init__(self, entries: Iterable[IndexedVersion] = ()) -> None:
        self._numbers: dict[str, set[int]] = {}
        for entry in entries:
            self.add(entry.type_url, entry.changed())
        self.mark_fresh()

    def __contains__(self, resource: tuple[str, str]) -> bool:
        """Return whether an entry has a resource of this type URL and version."""
        type_url, version = resource
        return _number(version) in self._numbers.get(type_url, ())

    def add(self, type_url: str, versions: Iterable[str]) -> None:
        """Add versions of resources of a type."""
        self._numbers.setdefault(type_url, set()).update(map(_number, versions))

    def mark_fresh(self) -> None:
        """Note that the set has only resources of entries that exist now."""
        self._most = 2 * self._count() + MORE_RESOURCES

    @property
    def is_stale(self) -> bool:
        """Return True if so many versions were added that the set should be built anew, if entries were dropped."""
        return self._count() > self._most

    def _count(self) -> int:
        return sum(map(len, self._numbers.values()))


def _number(version: str) -> int:
    """Return a resource's version as a number, which takes less memory; -1 if Turnout does not make such versions."""
    try:
        return int(version, 16)
    except ValueError:
        return -1

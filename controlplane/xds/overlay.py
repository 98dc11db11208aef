"""Store a stream's resources and names as a reference to a shared mapping and the differences from it.

Thousands of streams hold the same snapshot. So each stream's content is a base (a mapping of a snapshot, shared and never
changed) and the few names at which the client differs from it. The difference between two bases is computed once for all
streams (`DiffCache`). An unchanged resource costs a stream nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.snapshot import NOTHING, DiffCache, IdentityCache, Resource, Resources

# Overlays with more differences than this have no fingerprint.
_MOST_COMPARED = 256


def same(a: Resource | None, b: Resource | None) -> bool:
    """Return whether two resources have the same content, or both are None."""
    return a is b or (a is not None and b is not None and a.version == b.version)


class Overlay:
    """Resources by name: those of `base`, except for the names in `over` (None: absent)."""

    __slots__ = ("_diffs", "base", "over")

    def __init__(self, diffs: DiffCache) -> None:
        self._diffs = diffs
        self.base: Resources = NOTHING
        self.over: dict[str, Resource | None] = {}

    def fork(self) -> Overlay:
        """Return a copy."""
        other = Overlay(self._diffs)
        other.base, other.over = self.base, dict(self.over)
        return other

    def fingerprint(self) -> tuple[object, ...] | None:
        """Return a value, made of identities, that is equal for equal overlays; None if it would be long."""
        if len(self.over) > _MOST_COMPARED:
            return None
        return (id(self.base), frozenset((n, id(r)) for n, r in self.over.items()))

    def get(self, name: str) -> Resource | None:
        """Return the resource of this name."""
        return self.over[name] if name in self.over else self.base.get(name)

    def set(self, name: str, resource: Resource | None) -> None:
        """Put a resource in, or with None take it out."""
        below = self.base.get(name)
        if resource is below:
            self.over.pop(name, None)
        else:
            self.over[name] = resource

    def replace(self, resources: Resources) -> None:
        """Become exactly this mapping, which must never change again."""
        self.base, self.over = resources, {}

    def differing(self, other: Resources) -> Iterator[str]:
        """Yield every name at which this differs from `other`; possibly more names, and some twice."""
        yield from self._diffs.diff(self.base, other).names
        yield from self.over

    def rebase(self, other: Resources) -> None:
        """Keep the content, but express it as a difference from `other`."""
        if self.base is other and not self.over:
            return
        over = {n: self.get(n) for n in self.differing(other)}
        self.over = {n: r for n, r in over.items() if not same(r, other.get(n))}
        self.base = other


class Names:
    """A set of names: those of a shared mapping, with a few more and without a few."""

    __slots__ = ("_among", "_covered", "_diffs", "base", "less", "more")

    def __init__(self, diffs: DiffCache) -> None:
        self._diffs = diffs
        self.base: Resources = NOTHING
        self.more: set[str] = set()
        self.less: set[str] = set()
        # The arguments of the newest `covers` that was true; None after a name was taken out.
        self._covered: frozenset[str] | None = None
        self._among: Resources = NOTHING

    def fork(self) -> Names:
        """Return a copy."""
        other = Names(self._diffs)
        other.base, other.more, other.less = self.base, set(self.more), set(self.less)
        return other

    def fingerprint(self) -> tuple[object, ...] | None:
        """Return a value, made of identities, that is equal for equal sets; None if it would be long."""
        if len(self.more) + len(self.less) > _MOST_COMPARED:
            return None
        return (id(self.base), frozenset(self.more), frozenset(self.less))

    def __contains__(self, name: str) -> bool:
        return name in self.more or (name in self.base and name not in self.less)

    def __iter__(self) -> Iterator[str]:
        yield from self.more
        yield from (n for n in self.base if n not in self.less)

    def __len__(self) -> int:
        return len(self.more) + len(self.base) - len(self.less)

    def add(self, name: str) -> None:
        """Put a name in."""
        self.less.discard(name)
        if name not in self.base:
            self.more.add(name)

    def discard(self, name: str) -> None:
        """Take a name out."""
        self.more.discard(name)
        if name in self.base:
            self.less.add(name)
        self._covered = None

    def same(self, names: set[str]) -> bool:
        """Return True only if the set is exactly these names. It is cheap, and may be False although they are equal."""
        return not self.more and not self.less and names == self.base.keys()

    def all_of(self, names: Resources) -> bool:
        """Return True only if each of `names` is in the set. It is cheap, and may be False although they are."""
        return self.base is names and not self.less

    def covers(self, names: frozenset[str], among: Resources) -> bool:
        """Return whether each of `names` that is a key of `among` is in the set. It is cheap when asked again."""
        if (self._covered is names and self._among is among) or self.all_of(among):
            return True
        covered = all(n in self for n in names if n in among)
        if covered:
            self._covered, self._among = names, among
        return covered

    def rebase(self, other: Resources) -> None:
        """Keep the names, but express them as a difference from `other` if that is shorter."""
        if self.base is other or len(self) < len(other) // 2:
            return
        doubtful = {*self._diffs.diff(self.base, other).names, *self.more, *self.less}
        inside = {n for n in doubtful if n in self}
        self.base, self.more, self.less = other, inside - other.keys(), (doubtful - inside) & other.keys()


class ReferenceCache(IdentityCache[dict[str, frozenset[str]]]):
    """The names that the resources of a mapping refer to, by type URL: computed once a mapping."""

    def references(self, resources: Resources) -> dict[str, frozenset[str]]:
        """Return the names that `resources` refer to."""
        key = (id(resources),)
        names = self.find(key)
        return self.keep(key, _references(resources), resources) if names is None else names


def _references(resources: Resources) -> dict[str, frozenset[str]]:
    names: dict[str, set[str]] = {}
    for r in resources.values():
        for type_url, name in r.refs:
            names.setdefault(type_url, set()).add(name)
    return {t: frozenset(ns) for t, ns in names.items()}

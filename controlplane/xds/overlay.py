"""Mappings that point into a shared one: a stream keeps a reference and what differs, never a copy.

Thousands of streams hold the same snapshot. What each of them holds is therefore a base (a mapping of a snapshot, shared,
never written to) and the few names at which the client differs from it; and what lies between two bases is worked out once
for all streams. An unchanged resource costs a stream nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, Protocol, TypeVar

from controlplane.snapshot import Resource, diff

Resources = Mapping[str, Resource]
NOTHING: Resources = {}
# What differs from a shared mapping is compared name by name where it is no more than this.
_FEW = 256
# What is remembered of shared mappings, at most: that each takes up to 100 bytes a name, and comes anew with each revision,
# is what counts where there are thousands of models. The newest few stay, however large they are.
_MOST, _MOST_NAMES, _FEWEST = 256, 500_000, 4


def same(a: Resource | None, b: Resource | None) -> bool:
    """Whether two are the same content, or both nothing."""
    return a is b or (a is not None and b is not None and a.version == b.version)


class Overlay:
    """What a client has, by name: `base`, but for the names in `over` (None: it has not got that one)."""

    __slots__ = ("base", "over")

    def __init__(self) -> None:
        self.base: Resources = NOTHING
        self.over: dict[str, Resource | None] = {}

    def fork(self) -> Overlay:
        other = Overlay()
        other.base, other.over = self.base, dict(self.over)
        return other

    def fingerprint(self) -> tuple[object, ...] | None:
        """Equal for equal content, said alike; None where it would be long. Of identities."""
        return (id(self.base), frozenset((n, id(r)) for n, r in self.over.items())) if len(self.over) <= _FEW else None

    def get(self, name: str) -> Resource | None:
        return self.over[name] if name in self.over else self.base.get(name)

    def set(self, name: str, resource: Resource | None) -> None:
        below = self.base.get(name)
        if resource is below:
            self.over.pop(name, None)
        else:
            self.over[name] = resource

    def replace(self, resources: Resources) -> None:
        """From now on it is exactly these; the mapping must never change again."""
        self.base, self.over = resources, {}

    def differing(self, other: Resources) -> Iterator[str]:
        """The names at which this may differ from `other`; every name at which it does is among them, some twice."""
        yield from between(self.base, other).names
        yield from self.over

    def rebase(self, other: Resources) -> None:
        """The same content, said as a difference from `other`."""
        if self.base is other and not self.over:
            return
        over = {n: self.get(n) for n in self.differing(other)}
        self.over = {n: r for n, r in over.items() if not same(r, other.get(n))}
        self.base = other


class Names:
    """A set of names: those of a shared mapping, but for a few more and a few less."""

    __slots__ = ("_among", "_covered", "base", "less", "more")

    def __init__(self) -> None:
        self.base: Resources = NOTHING
        self.more: set[str] = set()
        self.less: set[str] = set()
        # The arguments of the newest `covers` that was true; None after a name was taken out.
        self._covered: frozenset[str] | None = None
        self._among: Resources = NOTHING

    def fork(self) -> Names:
        other = Names()
        other.base, other.more, other.less = self.base, set(self.more), set(self.less)
        return other

    def fingerprint(self) -> tuple[object, ...] | None:
        """As of an overlay."""
        few = len(self.more) + len(self.less) <= _FEW
        return (id(self.base), frozenset(self.more), frozenset(self.less)) if few else None

    def __contains__(self, name: str) -> bool:
        return name in self.more or (name in self.base and name not in self.less)

    def __iter__(self) -> Iterator[str]:
        yield from self.more
        yield from (n for n in self.base if n not in self.less)

    def __len__(self) -> int:
        return len(self.more) + len(self.base) - len(self.less)

    def add(self, name: str) -> None:
        self.less.discard(name)
        if name not in self.base:
            self.more.add(name)

    def discard(self, name: str) -> None:
        self.more.discard(name)
        if name in self.base:
            self.less.add(name)
        self._covered = None

    def same(self, names: set[str]) -> bool:
        """Whether it is exactly these. Cheap, and so it may say no where it is."""
        return not self.more and not self.less and names == self.base.keys()

    def all_of(self, names: Resources) -> bool:
        """Whether each of `names` is in here. Cheap, and so it may say no where it is."""
        return self.base is names and not self.less

    def covers(self, names: frozenset[str], among: Resources) -> bool:
        """Whether each of `names` that is `among` these is in here. Cheap when asked again."""
        if (self._covered is names and self._among is among) or self.all_of(among):
            return True
        found = all(n in self for n in names if n in among)
        if found:
            self._covered, self._among = names, among
        return found

    def rebase(self, other: Resources) -> None:
        """The same names, said as a difference from `other` when that is the shorter way to say it."""
        if self.base is other or len(self) < len(other) // 2:
            return
        doubtful = {*between(self.base, other).names, *self.more, *self.less}
        inside = {n for n in doubtful if n in self}
        self.base, self.more, self.less = other, inside - other.keys(), (doubtful - inside) & other.keys()


class MappingDiff:
    """What makes one shared mapping of another, worked out once for all streams."""

    def __init__(self, old: Resources, new: Resources) -> None:
        self.old, self.new = old, new
        found = diff(old, new)
        self.names: tuple[str, ...] = (*(r.name for r in found.changed), *found.removed)
        self.size = len(old) + len(new)


class References:
    """What the resources of a shared mapping name, by type."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.size = len(resources)

    @cached_property
    def by_type(self) -> dict[str, frozenset[str]]:
        found: dict[str, set[str]] = {}
        for r in self.resources.values():
            for type_url, name in r.refs:
                found.setdefault(type_url, set()).add(name)
        return {t: frozenset(names) for t, names in found.items()}


class _Kept(Protocol):
    @property
    def size(self) -> int:
        """Of how many names it was made."""


K = TypeVar("K", bound=_Kept)


class _Memo:
    """Values by the identity of what they were made of. At most `_MOST`, of `_MOST_NAMES` in all, but for the newest few.

    The one made first goes first. A value must keep what it was made of alive, so that an identity is not given to something
    else meanwhile.
    """

    def __init__(self) -> None:
        self._values: dict[tuple[int, ...], Any] = {}
        self._names = 0

    def get(self, make: Callable[..., K], *of: object) -> K:
        key = tuple(map(id, of))
        value: K | None = self._values.get(key)
        if value is None:
            value = self._values[key] = make(*of)
            self._names += value.size
            while (count := len(self._values)) > _MOST or (self._names > _MOST_NAMES and count > _FEWEST):
                self._names -= self._values.pop(next(iter(self._values))).size
        return value


_transitions, _references = _Memo(), _Memo()


def between(old: Resources, new: Resources) -> MappingDiff:
    """What makes `new` of `old`. Both are mappings that never change."""
    return _transitions.get(MappingDiff, old, new)


def references(resources: Resources) -> dict[str, frozenset[str]]:
    """The names that `resources` refer to, by type URL."""
    return _references.get(References, resources).by_type

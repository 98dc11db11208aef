"""The content for one group of clients, as a value: resources by type. A version is a hash of the content.

Equal content has an equal version, on every replica and after every restart. A resource is serialised once, when it is made,
and whoever sends it sends those bytes.

**The same object means unchanged.** A resource, a mapping of resources and a snapshot never change once they are made, and who
makes the next one reuses the object for whatever is equal. So `a is b` is the first comparison everywhere, and caches look up
objects by identity (`DiffCache`, `ReferenceCache`, the memo of the protocol): they keep the object alive, so that nothing else
can get its identity.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Generic, TypeVar

from controlplane.envoy_types import ORDER, short_name

Resources = Mapping[str, "Resource"]
NOTHING: Resources = {}

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Resource:
    """One Envoy resource, serialised."""

    type_url: str
    name: str
    # 16 hex digits of a hash of `body`.
    version: str
    # The message, serialised deterministically; without its `google.protobuf.Any` wrapper.
    body: bytes = field(repr=False)
    # (type URL, name) of the resources that this one names: a cluster its endpoints (if they come over EDS) and its secrets, a
    # listener its secrets, a scope its RouteConfiguration, a RouteConfiguration the clusters that it sends traffic to.
    refs: frozenset[tuple[str, str]] = frozenset()

    def __hash__(self) -> int:
        return hash(self.name) ^ hash(self.version)

    @staticmethod
    def of(type_url: str, name: str, body: bytes, refs: Iterable[tuple[str, str]] = ()) -> Resource:
        """Return a resource with its version."""
        return Resource(type_url, name, hashlib.blake2b(body, digest_size=8).hexdigest(), body, frozenset(refs))


class Client(StrEnum):
    """A kind of client. Each refuses some of what the other needs."""

    ENVOY = "envoy"
    GRPC = "grpc"  # gRPC's own client, without a proxy

    # Enum's own hash is not implemented in C, and audiences are looked up all the time.
    __hash__ = str.__hash__


@dataclass(frozen=True, slots=True)
class Audience:
    """A group of nodes that get the same content: they share one snapshot."""

    # Labels of the gateways that select the nodes, sorted; () if none does.
    gateways: tuple[str, ...] = ()
    client: Client = Client.ENVOY
    # The nodes get these models, as far as they exist and belong to those gateways; None: all models of the gateways.
    models: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that one audience should hold as of one revision. A resource that is not in it should not be held."""

    revision: int
    audience: Audience
    # By type URL, then by name. Every type of ORDER is a key.
    resources: Mapping[str, Resources]
    # By type URL: the version changes exactly when a resource of the type does, whatever their order.
    versions: Mapping[str, str]

    @staticmethod
    def of(revision: int, audience: Audience, resources: Iterable[Resource]) -> Snapshot:
        """Return a snapshot of these resources. Errors: ValueError if two of one type have the same name."""
        by_type: dict[str, dict[str, Resource]] = {t: {} for t in ORDER}
        for r in resources:
            if by_type[r.type_url].setdefault(r.name, r) is not r:
                raise ValueError(f"two resources of type {short_name(r.type_url)} are named {r.name}")
        return Snapshot(revision, audience, by_type, {t: type_version(rs.values()) for t, rs in by_type.items()})


@dataclass(frozen=True)
class Diff:
    """The difference between two mappings of resources of one type."""

    changed: tuple[Resource, ...] = ()  # new or different
    removed: tuple[str, ...] = ()  # names that are only in the old mapping

    def __bool__(self) -> bool:
        return bool(self.changed or self.removed)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All names at which the two mappings differ."""
        return (*(r.name for r in self.changed), *self.removed)


_SAME = Diff()


def diff(old: Resources, new: Resources) -> Diff:
    """Return what changes from `old` to `new`."""
    if old is new:
        return _SAME
    if not old:
        return Diff(tuple(new.values()))
    changed = tuple(r for n, r in new.items() if (o := old.get(n)) is not r and (o is None or o.version != r.version))
    removed = tuple(n for n in old if n not in new)
    return Diff(changed, removed)


class IdentityCache(Generic[V]):
    """Values that were computed from mappings, by the identity of those mappings.

    Bound: at most MOST values, of at most MOST_NAMES names together, except that the newest FEWEST stay however large they
    are. The oldest value goes first. A mapping takes up to 100 bytes a name and a new one comes with each revision, so with
    thousands of models the number of names is what counts.

    Several threads may use one cache: at worst a value is computed twice, or the number of names is a little wrong.
    """

    MOST, MOST_NAMES, FEWEST = 256, 500_000, 4

    def __init__(self) -> None:
        # By identities: the value, and the mappings, which it keeps alive.
        self._entries: OrderedDict[tuple[int, ...], tuple[V, tuple[Resources, ...]]] = OrderedDict()
        self._names = 0

    def find(self, key: tuple[int, ...]) -> V | None:
        """Return the value that was computed from the mappings with these identities."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def keep(self, key: tuple[int, ...], value: V, *sources: Resources) -> V:
        """Remember and return a value. `key` is made of the identities of its sources."""
        self._entries[key] = value, sources
        self._names += sum(map(len, sources))
        while len(self._entries) > self.FEWEST and (len(self._entries) > self.MOST or self._names > self.MOST_NAMES):
            _, (_, forgotten) = self._entries.popitem(last=False)
            self._names -= sum(map(len, forgotten))
        return value


class DiffCache(IdentityCache[Diff]):
    """Diffs of mappings that never change: each is computed once, whoever needs it."""

    def diff(self, old: Resources, new: Resources) -> Diff:
        """Return what changes from `old` to `new`."""
        if old is new:
            return _SAME
        key = id(old), id(new)
        known = self.find(key)
        return self.keep(key, diff(old, new), old, new) if known is None else known


def type_version(resources: Iterable[Resource]) -> str:
    """Return a version for a set of resources: the sum of their hashes, so that it can be updated with one of them."""
    return f"{sum(resource_hash(r) for r in resources) & _MASK:032x}"


def resource_hash(resource: Resource) -> int:
    """Return a number for a resource's name and content. A type's version is the sum of these numbers, modulo 2**128."""
    text = f"{resource.name}\0{resource.version}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "big")


_MASK = (1 << 128) - 1

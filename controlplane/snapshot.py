"""Snapshots: the resources that one group of clients should hold, by type. A version is a hash of the content.

Equal content has an equal version, on every replica and after every restart. A resource is serialised once, when it is
created, and every stream sends those bytes.

**The same object means unchanged.** A resource, a mapping of resources and a snapshot never change after they were created.
For everything that is equal to the snapshot before, the compiler reuses the object of that snapshot. So `a is b` is the first
comparison everywhere, and caches (`DiffCache`, `ReferenceCache`, the memo of the protocol) look up objects by identity. Each
cache keeps its objects alive, so that no other object can get the same identity.
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
    # (type URL, name) of the resources that this resource names. A cluster names its endpoints (with EDS) and its secrets, a
    # listener its secrets, a scope its RouteConfiguration, a RouteConfiguration the clusters that it sends traffic to.
    refs: frozenset[tuple[str, str]] = frozenset()

    def __hash__(self) -> int:
        return hash(self.name) ^ hash(self.version)

    @staticmethod
    def of(type_url: str, name: str, body: bytes, refs: Iterable[tuple[str, str]] = ()) -> Resource:
        """Return a resource whose version is the hash of `body`."""
        return Resource(type_url, name, hashlib.blake2b(body, digest_size=8).hexdigest(), body, frozenset(refs))


class Client(StrEnum):
    """A kind of client. Each kind refuses some configuration that the other kind needs."""

    ENVOY = "envoy"
    GRPC = "grpc"  # gRPC's own client, without a proxy

    # Enum's own hash is not implemented in C, and would slow down every look-up of an audience.
    __hash__ = str.__hash__


@dataclass(frozen=True, slots=True)
class Audience:
    """A group of nodes that share one snapshot."""

    # Labels of the gateways that select the nodes, sorted; () if no gateway does.
    gateways: tuple[str, ...] = ()
    client: Client = Client.ENVOY
    # Labels of the models that the nodes ask for. The nodes get those that exist and belong to the gateways. None: all models
    # of the gateways.
    models: frozenset[str] | None = None
    # Region and zone of the nodes, which decide which endpoints are near; "" if they report none.
    place: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All resources of one audience at one revision. A client should hold exactly these."""

    revision: int
    audience: Audience
    # By type URL, then by name. Every type of ORDER is a key.
    resources: Mapping[str, Resources]
    # By type URL. A version changes exactly when a resource of the type changes. The order of resources does not matter.
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


_NO_DIFFERENCE = Diff()


def diff(old: Resources, new: Resources) -> Diff:
    """Return the difference from `old` to `new`."""
    if old is new:
        return _NO_DIFFERENCE
    if not old:
        return Diff(tuple(new.values()))
    changed = tuple(r for n, r in new.items() if (o := old.get(n)) is not r and (o is None or o.version != r.version))
    removed = tuple(n for n in old if n not in new)
    return Diff(changed, removed)


class IdentityCache(Generic[V]):
    """A cache of values that were computed from mappings. Its key is the identity of these mappings.

    Bound: at most MAX_VALUES values, whose mappings have at most MAX_NAMES names together. The newest MIN_VALUES values always
    stay. The oldest value is dropped first. A mapping takes up to 100 bytes for each name, and each revision brings a new
    mapping. So with thousands of models, the number of names decides how much memory the cache takes.

    Several threads may use one cache. At worst a value is computed twice, or the number of names is a little wrong.
    """

    MAX_VALUES, MAX_NAMES, MIN_VALUES = 256, 500_000, 4

    def __init__(self) -> None:
        # By the identities of the mappings: the value, and the mappings themselves, so that they stay alive.
        self._entries: OrderedDict[tuple[int, ...], tuple[V, tuple[Resources, ...]]] = OrderedDict()
        self._names = 0

    def find(self, key: tuple[int, ...]) -> V | None:
        """Return the value that was computed from the mappings with these identities, or None."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def keep(self, key: tuple[int, ...], value: V, *sources: Resources) -> V:
        """Remember and return a value. `key` holds the identities of `sources`, the mappings that it was computed from."""
        self._entries[key] = value, sources
        self._names += sum(map(len, sources))
        entries = self._entries
        while len(entries) > self.MIN_VALUES and (len(entries) > self.MAX_VALUES or self._names > self.MAX_NAMES):
            _, (_, dropped_sources) = entries.popitem(last=False)
            self._names -= sum(map(len, dropped_sources))
        return value


class DiffCache(IdentityCache[Diff]):
    """A cache of diffs: the diff of two mappings is computed once for all streams."""

    def diff(self, old: Resources, new: Resources) -> Diff:
        """Return the difference from `old` to `new`."""
        if old is new:
            return _NO_DIFFERENCE
        key = id(old), id(new)
        cached = self.find(key)
        return self.keep(key, diff(old, new), old, new) if cached is None else cached


def type_version(resources: Iterable[Resource]) -> str:
    """Return the version of a set of resources: the sum of their hashes. A sum can be updated when one resource changes."""
    return f"{sum(resource_hash(r) for r in resources) & _MASK:032x}"


def resource_hash(resource: Resource) -> int:
    """Return a number for a resource's name and content. A type's version is the sum of these numbers, modulo 2**128."""
    text = f"{resource.name}\0{resource.version}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "big")


_MASK = (1 << 128) - 1

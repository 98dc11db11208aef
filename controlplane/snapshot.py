"""What a group of clients should hold, as a value: resources by type, each with a version that is a hash of its content.

Equal content has an equal version, on every replica and after every restart. A resource is serialised once, when it is
made; whoever sends it sends those bytes.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from controlplane.envoy_types import ORDER, short_name


@dataclass(frozen=True, slots=True)
class Resource:
    """One Envoy resource, serialised."""

    type_url: str
    name: str
    # 16 hex digits of a hash of `body`.
    version: str
    # The message, serialised deterministically; without its `google.protobuf.Any` wrapper.
    body: bytes = field(repr=False)
    # (type URL, name) of what it names: a cluster its endpoints (if they come over EDS) and its secrets, a listener its
    # secrets, a scope its RouteConfiguration, a RouteConfiguration the clusters it sends traffic to.
    refs: frozenset[tuple[str, str]] = frozenset()

    def __hash__(self) -> int:
        return hash(self.name) ^ hash(self.version)

    @staticmethod
    def of(type_url: str, name: str, body: bytes, refs: Iterable[tuple[str, str]] = ()) -> Resource:
        """A resource with its version."""
        return Resource(type_url, name, hashlib.blake2b(body, digest_size=8).hexdigest(), body, frozenset(refs))


class Client(StrEnum):
    """A kind of client: what suits one, the other refuses."""

    ENVOY = "envoy"
    GRPC = "grpc"  # gRPC's own, without a proxy

    # That of an Enum is not in C, and audiences are looked up all the time.
    __hash__ = str.__hash__


@dataclass(frozen=True, slots=True)
class Audience:
    """What a node is given follows from this alone: nodes of one audience share one snapshot."""

    # Labels of the gateways that select it, sorted; () where none does.
    gateways: tuple[str, ...] = ()
    client: Client = Client.ENVOY
    # The models that it is given, of those that its gateways have; None: all. Some may not exist.
    models: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one audience should hold as of one revision. Whole: what is not in it should not be held."""

    revision: int
    audience: Audience
    # By type URL, then by name. Every type of ORDER is there, if empty.
    resources: Mapping[str, Mapping[str, Resource]]
    # By type URL: changes exactly when a resource of the type does, whatever the order they came in.
    versions: Mapping[str, str]

    @staticmethod
    def of(revision: int, audience: Audience, resources: Iterable[Resource]) -> Snapshot:
        """A snapshot of these resources. ValueError when two have one name."""
        by_type: dict[str, dict[str, Resource]] = {t: {} for t in ORDER}
        for r in resources:
            if by_type[r.type_url].setdefault(r.name, r) is not r:
                raise ValueError(f"two resources of type {short_name(r.type_url)} are named {r.name}")
        return Snapshot(revision, audience, by_type, {t: type_version(rs.values()) for t, rs in by_type.items()})


@dataclass(frozen=True, slots=True)
class Diff:
    """What lies between two snapshots, for one type."""

    changed: tuple[Resource, ...] = ()  # new or different
    removed: tuple[str, ...] = ()  # names that are gone

    def __bool__(self) -> bool:
        return bool(self.changed or self.removed)


def diff(old: Mapping[str, Resource], new: Mapping[str, Resource]) -> Diff:
    """What makes `new` of `old`, which never change. Several ask for it at each revision; it is found once."""
    if old is new:
        return Diff()
    if not old:
        return Diff(tuple(new.values()))
    key = id(old), id(new)
    if (known := _diffs.get(key)) is not None:
        return known[2]
    found = _diff(old, new)
    _diffs[key] = old, new, found  # as long as it is there, so are they
    if len(_diffs) > _DIFFS:
        _diffs.popitem(last=False)  # whole in itself: the writer compiles on a thread of its own
    return found


# The newest differences, by the identities of what they are between.
_DIFFS = 32
_diffs: OrderedDict[tuple[int, int], tuple[Mapping[str, Resource], Mapping[str, Resource], Diff]] = OrderedDict()


def _diff(old: Mapping[str, Resource], new: Mapping[str, Resource]) -> Diff:
    changed = tuple(r for n, r in new.items() if (o := old.get(n)) is not r and (o is None or o.version != r.version))
    removed = tuple(n for n in old if n not in new)
    return Diff(changed, removed)


def type_version(resources: Iterable[Resource]) -> str:
    """A version for a set of resources: the sum of their hashes, so that it can be kept up without reading all of them."""
    return f"{sum(resource_hash(r) for r in resources) & _MASK:032x}"


def resource_hash(resource: Resource) -> int:
    """A number for one named content; a type's version is the sum of them, modulo 2**128."""
    text = f"{resource.name}\0{resource.version}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "big")


_MASK = (1 << 128) - 1

"""The index of published versions: from a type and a version to the names of the resources, and the names that they refer to.

A client that comes back says with versions what it holds. In delta this is a version of each resource, in SotW one version of
the type. Both are hashes of content that some revision had, perhaps long ago. The index has every version that was served, so
it answers without compiling anything. It is saved, so it also has the versions from before a restart, and those of an earlier
Turnout that compiled other bytes.

The index has the types that the table of Envoy types marks as indexed. A whole version lists all resources. Most versions are
relative to one that was served to the same audience before: with 5,000 models, a switch adds some 100 bytes. An entry stays
encoded until it is asked for.

Bounds: at most `MAX_VERSIONS` entries of at most `MAX_BYTES` bytes together. The entry that was published longest ago is
dropped first. Versions that are served now, and bases of others, are kept.

The index is complete since the time `known_since`: it has every version that was served from then on. `known_since` is 0 if
the index has every version that was ever served.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from controlplane.envoy_types import INDEXED
from controlplane.snapshot import NOTHING, Audience, Resources, Snapshot, diff, type_version
from controlplane.versions.announced import AnnouncedSnapshots
from controlplane.versions.entry import IndexedVersion, encode, run
from controlplane.versions.removed_clusters import RemovedClusters
from controlplane.versions.resources import ResourceVersions

Key = tuple[str, str]  # type URL and version
# By key: entries that are new or different. None: the entry was dropped.
VersionChanges = Mapping[Key, IndexedVersion | None]

# An index that was begun later than its history is trusted after this time. Seconds.
TRUSTED_AFTER = 24 * 3600.0
# A version that differs from its base in more names than this, and in more than an eighth of them, becomes a whole one.
_MOST_DIFFERENCES = 16
# The number of decoded versions that are kept, so that one version is decoded once for thousands of clients.
_MOST_DECODED = 16
# At a bound, entries are dropped until the index is at this part of the bound.
_LOW_WATER = 0.95
# The length of a chain of bases: a version is relative to its base, which is relative to another one, and so on. Each restart
# may add one, because the first version that an audience is served then is the base of the next ones. A version with a longer
# chain becomes a whole one.
_MOST_BASES = 4
# Audiences whose newest version is remembered to compare the next one with. At the bound the oldest is forgotten, and its next
# version is a whole one.
_MOST_AUDIENCES = 4_096

_EMPTY = type_version(())


@dataclass(slots=True)
class _LastServed:
    """The version of one type that one audience was served last."""

    version: str
    # The version that the audience's next version can be relative to.
    base: str
    base_resources: Resources


class VersionIndex:
    """All versions that were served, within the bounds. `take_changes` returns the changes, for copies of the index."""

    MAX_VERSIONS, MAX_BYTES = 8_192, 16 * 1024 * 1024

    def __init__(self) -> None:
        self.known_since = 0.0
        # True if the owner vouches that the index `is_trusted` now. Streams use it, because they have no clock.
        self.vouches = False
        # By key, in the order of their last publication.
        self._entries: OrderedDict[Key, IndexedVersion] = OrderedDict()
        # The size of all contents.
        self.bytes = 0
        # By base: the number of entries that are relative to it; no zero counts.
        self._dependents: Counter[Key] = Counter()
        self._last_served: OrderedDict[tuple[Audience, str], _LastServed] = OrderedDict()
        # Snapshots are announced as soon as they are served, because adding them takes longer.
        self.announced = AnnouncedSnapshots()
        # The bodies of removed clusters, which entries do not have.
        self.removed_clusters = RemovedClusters()
        self._decoded: OrderedDict[Key, Resources] = OrderedDict()
        self._resource_versions = ResourceVersions()
        # True if `_resource_versions` may have resources of dropped entries.
        self._has_dropped_resources = False
        self._changes: dict[Key, IndexedVersion | None] = {}

    # ------------------------------------------------------------------------------------------------------ reading

    def find(self, type_url: str, version: str) -> Resources | None:
        """Return the resources of a version, by name and without bodies; None if the index does not have the version.

        The references of each resource are complete. Nothing is compiled. Repeated calls return the same object for a while.
        """
        key = type_url, version
        resources = self._decoded.get(key)
        if resources is not None:
            return resources
        chain = self._chain(key)
        if chain is None:
            return NOTHING if version == _EMPTY and type_url in INDEXED else self.announced.find(type_url, version)
        resources = NOTHING
        for entry in reversed(chain):
            decoded = self._decoded.get(entry.key)
            resources = self._decoded[entry.key] = entry.resources(resources) if decoded is None else decoded
        while len(self._decoded) > _MOST_DECODED:
            self._decoded.popitem(last=False)
        return resources

    def is_trusted(self, now: float) -> bool:
        """Return True if a version that is not in the index is one that this history never made.

        That is so if the index has all versions, or was complete for so long that every client has reconnected since.
        """
        return not self.known_since or now - self.known_since >= TRUSTED_AFTER

    def made(self, type_url: str, resource_version: str) -> bool:
        """Return whether a resource of this version was served, as far as the index goes back."""
        return (type_url, resource_version) in self._resource_versions or self.announced.has_resource(
            type_url, resource_version
        )

    def has(self, type_url: str, version: str) -> bool:
        """Return whether this version, of the type or of a resource of the type, was served, as far as the index goes back."""
        if (type_url, version) in self._entries or version == _EMPTY or self.made(type_url, version):
            return True
        return self.announced.find(type_url, version) is not None

    # --------------------------------------------------------------------------------------------------- writing

    def add(self, snapshot: Snapshot, now: float) -> None:
        """Add the versions of a snapshot that is served from now on."""
        for _ in self.add_in_steps(snapshot, now):
            pass

    def add_in_steps(self, snapshot: Snapshot, now: float) -> Iterator[None]:
        """Add a snapshot like `add`, in steps of about a millisecond. Iterate to the end before the next snapshot is added."""
        for type_url in INDEXED:
            resources, version = snapshot.resources[type_url], snapshot.versions[type_url]
            key = snapshot.audience, type_url
            last = self._last_served.get(key)
            if last is not None and last.version == version:
                continue
            self._last_served[key] = yield from self._add_version(last, type_url, version, resources, now)
            self._last_served.move_to_end(key)
            if len(self._last_served) > _MOST_AUDIENCES * len(INDEXED):
                self._last_served.popitem(last=False)
        self.announced.remove(snapshot)
        self._shrink(now)

    def add_mixed(self, type_url: str, version: str, resources: Resources, newest_version: str, newest: Resources) -> None:
        """Add a version that a stream sent between two snapshots: a SotW state with resources of both.

        `newest_version` and `newest` are those of the newer snapshot.
        """
        if type_url in INDEXED and (type_url, version) not in self._entries and newest_version != _EMPTY:
            now = next(reversed(self._entries.values())).time if self._entries else 0.0
            difference = diff(newest, resources)
            content = run(encode(difference.changed, difference.removed))
            self._put(IndexedVersion(type_url, version, newest_version, now, content))
            self._shrink(now)

    def apply(self, changes: VersionChanges) -> None:
        """Take over the changes of another copy of this index. `take_changes` returns them, too."""
        for key, entry in changes.items():
            if entry is None:
                self._drop(key)
            elif key not in self._entries:
                self._put(entry)

    def follow(self, changes: VersionChanges) -> None:
        """Take over the changes of the copy that this one follows. `take_changes` does not return them."""
        own, self._changes = self._changes, {}
        self.apply(changes)
        self._changes = own

    def load(self, entries: Iterable[IndexedVersion]) -> None:
        """Take over saved entries, in the order in which they were published."""
        self.follow({entry.key: entry for entry in entries})

    def entries(self) -> VersionChanges:
        """Return all entries, for a copy that has none."""
        return dict(self._entries)

    def take_changes(self) -> VersionChanges:
        """Return the changes since the previous call."""
        changes, self._changes = self._changes, {}
        return changes

    # ------------------------------------------------------------------------------------------------------ private

    def _add_version(
        self, last: _LastServed | None, type_url: str, version: str, resources: Resources, now: float
    ) -> Generator[None, None, _LastServed]:
        """Add a version of an audience if it is new. `last` is the audience's version before. Return the new one."""
        entry = self._entries.get((type_url, version))
        if entry is not None:
            self._note_served_again(entry, now)
        if last is not None and self._chain((type_url, last.base)) is not None:
            difference = diff(last.base_resources, resources)
            if len(difference.names) <= max(_MOST_DIFFERENCES, len(last.base_resources) // 8):
                if entry is None and version != _EMPTY:
                    content = yield from encode(difference.changed, difference.removed)
                    relative = IndexedVersion(type_url, version, last.base, now, content)
                    self._put(relative, (r.version for r in difference.changed))
                return _LastServed(version, last.base, last.base_resources)
        chain = self._chain((type_url, version))
        if version != _EMPTY and (chain is None or len(chain) > _MOST_BASES + 1):
            content = yield from encode(resources.values())
            self._put(IndexedVersion(type_url, version, "", now, content), (r.version for r in resources.values()))
        return _LastServed(version, version, resources)

    def _chain(self, key: Key) -> list[IndexedVersion] | None:
        """Return an entry, its base, the base of that, and so on to a whole version; None if the index lacks one of them."""
        chain: list[IndexedVersion] = []
        while len(chain) <= 2 * _MOST_BASES:
            entry = self._entries.get(key)
            if entry is None:
                return None
            chain.append(entry)
            if not entry.base:
                return chain
            key = entry.type_url, entry.base
        return None

    def _note_served_again(self, entry: IndexedVersion, now: float) -> None:
        self._entries[entry.key] = replace(entry, time=now)
        self._entries.move_to_end(entry.key)

    def _put(self, entry: IndexedVersion, resource_versions: Iterable[str] | None = None) -> None:
        """Put an entry in. `resource_versions` are those that its base does not have; None: they are read from its content."""
        self._drop(entry.key)
        self._entries[entry.key] = self._changes[entry.key] = entry
        self.bytes += len(entry.content)
        if entry.base:
            self._dependents[entry.type_url, entry.base] += 1
        self._resource_versions.add(entry.type_url, entry.changed() if resource_versions is None else resource_versions)
        if self._resource_versions.is_stale:
            if self._has_dropped_resources:
                self._resource_versions = ResourceVersions(self._entries.values())
                self._has_dropped_resources = False
            else:
                self._resource_versions.mark_fresh()

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self._has_dropped_resources = True
        self.bytes -= len(entry.content)
        self._decoded.pop(key, None)
        if entry.base:
            base = entry.type_url, entry.base
            self._dependents[base] -= 1
            if not self._dependents[base]:
                del self._dependents[base]
        self._changes[key] = None

    def _shrink(self, now: float) -> None:
        """If the index is above a bound, drop the oldest entries until it is well below."""
        if not self._is_too_large():
            return
        served = {(t, v) for (_, t), last in self._last_served.items() for v in (last.version, last.base)}
        # Types of which an entry was dropped. The dropped version was served until about the time of the type's next entry.
        dropped_types: set[str] = set()
        for key, entry in list(self._entries.items()):
            if entry.type_url in dropped_types:
                dropped_types.discard(entry.type_url)
                self.known_since = max(self.known_since, entry.time)
            if self._is_too_large(_LOW_WATER):
                if key not in served and key not in self._dependents:
                    self._drop(key)
                    dropped_types.add(entry.type_url)
            elif not dropped_types:
                return
        # All remaining versions are served now, so there are too many audiences. Versions of some of them are dropped.
        while self._is_too_large():
            self._drop(next(iter(self._entries)))
            self.known_since = now
        if dropped_types:
            self.known_since = now

    def _is_too_large(self, part: float = 1.0) -> bool:
        return len(self._entries) > part * self.MAX_VERSIONS or self.bytes > part * self.MAX_BYTES

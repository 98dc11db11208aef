"""Keeps the index of published versions: adds what is served, saves the changes as records, and reads them at the start.

It also adds each cluster that a revision removes to the removed clusters, before the revision is served: an Envoy that comes
back at once needs it. If a revision changes many models, most are added some time later.

Nothing else here delays a change or a stream: snapshots are added to the index, and its changes saved, some time after the
snapshots were served. If the server is killed in that time, some versions are missing. Then the index counts as complete only
from the next start on.

A record is one version: its name is `TYPE/VERSION`, for example `cds/00ff…`. The record `index` has the time from which on the
index is complete (`known_since`), and the newest revision that is in it (`through`). The record of a removed cluster is named
`removed/VERSION/NAME`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice

import structlog

from controlplane.aio.time_sliced import time_sliced
from controlplane.compiler.functions import NO_FUNCTIONS, Functions
from controlplane.compiler.removed import removed_clusters
from controlplane.domain.revision import Head
from controlplane.domain.state import State
from controlplane.envoy_types import CLUSTER, COMPILED
from controlplane.errors import Error
from controlplane.snapshot import Resource, Snapshot
from controlplane.store import Kind, Record, Records, RecordWrite
from controlplane.versions import TRUSTED_AFTER, ClusterChanges, IndexedVersion, RemovedClusters, VersionChanges, VersionIndex

log = structlog.get_logger("versions")

# Bounds of the records: somewhat above those of the index and the removed clusters, which drop the oldest by themselves.
KIND = Kind("versions", VersionIndex.MAX_VERSIONS + RemovedClusters.MAX_CLUSTERS + 1_024, 4 * 1024 * 1024)

# Seconds between the first change and the write. Further changes in this time are saved in the same write.
DELAY = 0.3
# Seconds until a write that failed is tried again.
RETRY = 10.0
# Changed models whose removed clusters are added before the revision is served.
AT_ONCE = 100

_STATE, _REMOVED = "index", "removed"
_ABBREVIATIONS = {t.url: t.abbreviation for t in COMPILED.values()}
_URLS = {abbreviation: url for url, abbreviation in _ABBREVIATIONS.items()}


class VersionRecorder:
    """The owner of the index in the main process."""

    def __init__(
        self,
        index: VersionIndex,
        records: Records,
        clock: Callable[[], float] = time.time,
        functions: Functions = NO_FUNCTIONS,
    ) -> None:
        """`clock` returns seconds since the epoch. `functions` are those that patches may name, as the compiler has them."""
        self._functions = functions
        self._index = index
        self._records = records
        self._clock = clock
        # Called with each batch of changes of the index and of the removed clusters; the worker processes need them.
        self.on_changes: Callable[[VersionChanges], None] = lambda changes: None
        self.on_removed: Callable[[ClusterChanges], None] = lambda changes: None
        # Snapshots that are not added yet. Bounded by the audiences and revisions that are served in DELAY; in RETRY after a
        # write failed.
        self._served: list[Snapshot] = []
        # The newest published revision.
        self._published = 0
        # Its state; None before `published` was called.
        self._state: State | None = None
        # Removed clusters that are still to be added.
        self._removals: list[Iterator[list[Resource]]] = []
        # Values to save by name of the record; None: delete it. Bounded like the index.
        self._unsaved: dict[str, bytes | None] = {}
        # The live version of each record.
        self._live: dict[str, int] = {}
        self._wake = asyncio.Event()
        self._saving = asyncio.Lock()

    async def load(self, newest: int) -> None:
        """Read the saved index. `newest` is the newest revision of the store. Errors: those of the store."""
        records = sorted(await self._records.list(KIND), key=lambda record: record.version)
        self._live = {record.name: record.version for record in records}
        self._index.load(_entries(records))
        self._index.removed_clusters.load(_removed(records))
        saved = next((json.loads(record.value) for record in records if record.name == _STATE), None)
        if saved is not None:
            self._index.known_since = saved["known_since"]
        # The newest revision may be missing, because it is published again now.
        if newest > (saved["through"] + 1 if saved is not None else 0):
            # The versions of older revisions are missing: they were published by a Turnout without the index, or the server
            # was killed before it saved them.
            self._index.known_since = self._clock()
            log.info(
                "index of versions is incomplete: nodes of another history are reported again after a while",
                revision=newest,
                h=round(TRUSTED_AFTER / 3600),
            )
        self._index.vouches = self._index.is_trusted(self._clock())
        self._published = newest
        self._wake.set()

    def published(self, head: Head) -> None:
        """Note that a revision is published from now on, and what it removes. Call it before the revision is served."""
        before, self._state = self._state, head.state
        self._published = head.number
        if before is not None and before.models is not head.state.models:
            removals = removed_clusters(before, head.state, self._functions)
            for clusters in islice(removals, AT_ONCE):
                self._index.removed_clusters.add(clusters)
            self._send_removed()
            self._removals.append(removals)
        self._wake.set()

    def served(self, snapshot: Snapshot) -> None:
        """Note that a client is served a snapshot."""
        if snapshot.revision:
            self._served.append(snapshot)
            self._index.announced.add(snapshot)
            self._wake.set()

    async def run(self) -> None:
        """Add and save, until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(DELAY)
            self._wake.clear()
            if not await asyncio.shield(self.save()):
                await asyncio.sleep(RETRY)
                self._wake.set()

    async def save(self) -> bool:
        """Add what was served, and save all changes. Return False if some could not be saved."""
        async with self._saving:
            return await self._save()

    async def close(self) -> None:
        """Save the remaining changes. Call it after `run` was cancelled, and before the store is closed."""
        await self.save()

    async def _save(self) -> bool:
        published, served, self._served = self._published, self._served, []
        for snapshot in served:
            async for _ in time_sliced(self._index.add_in_steps(snapshot, self._clock())):
                pass
        self._index.vouches = self._index.is_trusted(self._clock())
        removals, self._removals = self._removals, []
        async for clusters in time_sliced(chain.from_iterable(removals)):
            self._index.removed_clusters.add(clusters)
        self._send_removed()
        if changes := self._index.take_changes():
            self.on_changes(changes)
        for (type_url, version), entry in changes.items():
            name = f"{_ABBREVIATIONS[type_url]}/{version}"
            if entry is not None:
                self._unsaved[name] = _value(entry)
            elif name in self._live or name in self._unsaved:
                self._unsaved[name] = None
        state = {"known_since": self._index.known_since, "through": published}
        self._unsaved[_STATE] = json.dumps(state).encode()
        return await self._write()

    def _send_removed(self) -> None:
        """Send the changes of the removed clusters to the worker processes, and note them as unsaved."""
        changes = self._index.removed_clusters.take_changes()
        if changes:
            self.on_removed(changes)
        for (cluster, version), resource in changes.items():
            name = f"{_REMOVED}/{version}/{cluster}"
            if resource is not None:
                self._unsaved[name] = _removed_value(resource)
            elif name in self._live or name in self._unsaved:
                self._unsaved[name] = None

    async def _write(self) -> bool:
        """Write `_unsaved` in one batch. Records to delete come first, so that the bound of the kind holds."""
        unsaved = sorted(self._unsaved.items(), key=lambda item: (item[1] is not None, item[0] == _STATE))
        writes = [RecordWrite(n, v, self._live.get(n, 0)) for n, v in unsaved if v is not None or n in self._live]
        try:
            outcomes = await self._records.write(KIND, writes)
        except Error as error:
            log.warning("index of versions not saved; the write is repeated", error=error.message, s=RETRY)
            return False
        problem: Error | None = None
        for write, outcome in zip(writes, outcomes, strict=True):
            if isinstance(outcome, Error):
                problem = outcome
            # After an error, another process may have written the record: the next attempt replaces that.
            live = int(outcome.metadata.get("live", 0)) if isinstance(outcome, Error) else outcome.version if outcome else 0
            self._live[write.name] = live
            if not live:
                del self._live[write.name]
            can_retry = isinstance(outcome, Error) and outcome.reason != "RECORD_TOO_LARGE"
            if not can_retry and self._unsaved.get(write.name) == write.value:
                del self._unsaved[write.name]
        if problem is not None:
            log.warning("some versions not saved; the write is repeated", error=problem.message, s=RETRY)
        return problem is None


def _value(entry: IndexedVersion) -> bytes:
    return f"{entry.base} {entry.time}\n".encode() + entry.content


def _entries(records: list[Record]) -> Iterator[IndexedVersion]:
    for record in records:
        abbreviation, separator, version = record.name.partition("/")
        if separator and abbreviation in _URLS:
            head, _, content = record.value.partition(b"\n")
            base, _, published = head.decode().partition(" ")
            yield IndexedVersion(_URLS[abbreviation], version, base, float(published), content)


def _removed_value(cluster: Resource) -> bytes:
    refs = sorted((_ABBREVIATIONS[type_url], name) for type_url, name in cluster.refs)
    return json.dumps(refs).encode() + b"\n" + cluster.body


def _removed(records: list[Record]) -> Iterator[Resource]:
    for record in records:
        kind, _, version_and_name = record.name.partition("/")
        if kind == _REMOVED:
            version, _, name = version_and_name.partition("/")
            refs, _, body = record.value.partition(b"\n")
            named = frozenset((_URLS[t], n) for t, n in json.loads(refs) if t in _URLS)
            yield Resource(CLUSTER, name, version, body, named)

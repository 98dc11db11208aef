"""A worker's end of replication: apply updates, subscribe to the audiences of its streams. `replication.py` has the theory."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from controlplane.compiler.audience import AudienceResolver, Node
from controlplane.domain import Gateway
from controlplane.domain.state import State
from controlplane.errors import Code, Error
from controlplane.published import IDLE_REVISIONS
from controlplane.snapshot import Audience, Snapshot
from controlplane.workers.replication import AudienceUpdate, Update
from controlplane.workers.resource_pool import ResourcePool


@dataclass(slots=True)
class ReceivedSnapshot:
    """An audience's snapshot in a worker."""

    # None: it does not compile.
    snapshot: Snapshot | None
    note: str
    # Number of revisions in a row in which no stream has asked for the snapshot.
    idle: int = 0


class ReceivedRevision:
    """A revision in a worker: the snapshots of the audiences that the worker subscribed to. More of them can arrive later."""

    def __init__(
        self,
        revision: int,
        gateways: Mapping[str, Gateway],
        snapshots: dict[Audience, ReceivedSnapshot],
        audiences: AudienceResolver,
        subscribe: Callable[[Audience], None],
    ) -> None:
        self.revision = revision
        # The same object in one revision after another, as long as no gateway changes.
        self.gateways = gateways
        # Has only the gateways, from which audiences are computed.
        self._state = State(gateways)
        self._snapshots = snapshots
        self._audiences = audiences
        self._subscribe = subscribe

    def audience(self, node: Node) -> Audience:
        """Return a node's audience: the same object for all nodes of it. It changes only with `gateways`."""
        return self._audiences.resolve(self._state, node)

    def snapshot(self, audience: Audience) -> Snapshot | None:
        """Return an audience's snapshot. If it is not here, subscribe to it and return None: it comes with a later update.

        Errors: INTERNAL when it does not compile.
        """
        received = self._snapshots.get(audience)
        if received is None:
            self._subscribe(audience)
            return None
        received.idle = 0
        if received.snapshot is None:
            raise Error(
                Code.INTERNAL, "NOT_COMPILED", "this client's resources do not compile; the control plane's log says why"
            )
        return received.snapshot

    def note(self, audience: Audience) -> str:
        """Return the reason why an audience is not served more; "" when there is none."""
        received = self._snapshots.get(audience)
        return "" if received is None else received.note


class SnapshotReceiver:
    """The snapshots that a worker has received. `subscribe` and `unsubscribe` send the main process an audience."""

    def __init__(self, subscribe: Callable[[Audience], None], unsubscribe: Callable[[Audience], None]) -> None:
        self._send_subscribe = subscribe
        self._send_unsubscribe = unsubscribe
        # An audience that no stream asked for in `IDLE_REVISIONS` revisions is dropped.
        self._snapshots: dict[Audience, ReceivedSnapshot] = {}
        # Audiences that are subscribed to, and whose snapshots have not come yet.
        self._pending: set[Audience] = set()
        self._gateways: Mapping[str, Gateway] = {}
        self._published: ReceivedRevision | None = None
        self._audiences = AudienceResolver()
        self._pool = ResourcePool()

    def apply(self, update: Update) -> ReceivedRevision:
        """Return the revision that an update leads to: the same object with more snapshots when the revision is not new."""
        if update.gateways is not None:
            self._gateways = update.gateways
        published = self._published
        is_new = published is None or update.revision != published.revision or update.gateways is not None
        if is_new:
            self._move_to(update.revision)
        for encoded in update.audience_updates:
            self._apply_audience(pickle.loads(encoded), update.revision)
        self._pool.prune(s.snapshot for s in self._snapshots.values() if s.snapshot is not None)
        if published is None or is_new:
            published = self._published = ReceivedRevision(
                update.revision, self._gateways, self._snapshots, self._audiences, self._subscribe
            )
        return published

    def _subscribe(self, audience: Audience) -> None:
        if audience not in self._pending:
            self._pending.add(audience)
            self._send_subscribe(audience)

    def _move_to(self, revision: int) -> None:
        """Move the snapshots to a new revision, and unsubscribe from audiences that no stream asks for."""
        kept: dict[Audience, ReceivedSnapshot] = {}
        for audience, received in self._snapshots.items():
            if received.idle < IDLE_REVISIONS:
                kept[audience] = _at_revision(received, revision)
            else:
                self._send_unsubscribe(audience)
        self._snapshots = kept

    def _apply_audience(self, update: AudienceUpdate, revision: int) -> None:
        # One of three things happens: the snapshot is new, it changes, or it was dropped while the update was on its way.
        if update.whole:
            self._pending.discard(update.audience)
            self._snapshots[update.audience] = self._whole(update, revision)
        elif update.audience in self._snapshots:
            self._snapshots[update.audience] = self._changed(update, self._snapshots[update.audience], revision)

    def _whole(self, update: AudienceUpdate, revision: int) -> ReceivedSnapshot:
        if update.changes is None:
            return ReceivedSnapshot(None, "")
        intern = self._pool.intern
        resources = {t: {r.name: intern(r) for r in change.changed} for t, change in update.changes.items()}
        versions = {t: change.version for t, change in update.changes.items()}
        return ReceivedSnapshot(Snapshot(revision, update.audience, resources, versions), update.note)

    def _changed(self, update: AudienceUpdate, received: ReceivedSnapshot, revision: int) -> ReceivedSnapshot:
        old = received.snapshot
        assert old is not None, "a snapshot after one that does not compile is sent whole"
        assert update.changes is not None
        resources, versions = dict(old.resources), dict(old.versions)
        for type_url, change in update.changes.items():
            mapping = dict(old.resources.get(type_url, {}))
            mapping.update((r.name, self._pool.intern(r)) for r in change.changed)
            for name in change.removed:
                del mapping[name]
            resources[type_url], versions[type_url] = mapping, change.version
        return ReceivedSnapshot(Snapshot(revision, update.audience, resources, versions), update.note, received.idle)


def _at_revision(received: ReceivedSnapshot, revision: int) -> ReceivedSnapshot:
    """Return the same resources under another revision, in which no stream has asked for them yet."""
    old = received.snapshot
    snapshot = None if old is None else Snapshot(revision, old.audience, old.resources, old.versions)
    return ReceivedSnapshot(snapshot, received.note, received.idle + 1)

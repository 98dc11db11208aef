"""The main process' end of replication: make the updates for a worker. `replication.py` has the theory."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass

from controlplane.published import CompiledRevision
from controlplane.snapshot import Audience, Snapshot, diff
from controlplane.workers.replication import AudienceUpdate, TypeChange, Update


@dataclass(frozen=True, slots=True)
class SentSnapshot:
    """An audience's snapshot as a worker has it."""

    # None: it does not compile.
    snapshot: Snapshot | None
    note: str


class UpdateEncoder:
    """Encode audience updates, each once for all workers. Call `on_compile_error` for an audience that does not compile."""

    def __init__(self, on_compile_error: Callable[[Audience, Exception], None]) -> None:
        self._on_compile_error = on_compile_error
        # Both caches are for this revision only, which bounds them.
        self._published: CompiledRevision | None = None
        self._snapshots: dict[Audience, SentSnapshot] = {}
        # By audience and id of the snapshot that the worker has. The values refer to that snapshot, so that no other object
        # gets its id.
        self._encoded: dict[tuple[Audience, int], tuple[SentSnapshot | None, bytes | None]] = {}

    def snapshot(self, published: CompiledRevision, audience: Audience) -> SentSnapshot:
        """Return the snapshot that a worker should have of an audience in a revision."""
        if self._published is not published:
            self._published, self._snapshots, self._encoded = published, {}, {}
        current = self._snapshots.get(audience)
        if current is None:
            try:
                current = SentSnapshot(published.snapshot(audience), published.note(audience))
            except Exception as error:  # noqa: BLE001  whatever the compiler raises, only streams of this audience end
                self._on_compile_error(audience, error)
                current = SentSnapshot(None, "")
            self._snapshots[audience] = current
        return current

    def encode(self, audience: Audience, previous: SentSnapshot | None, current: SentSnapshot) -> bytes | None:
        """Return the update from `previous` to `current`, which `snapshot` returned; None when they are equal."""
        key = audience, id(previous)
        cached = self._encoded.get(key)
        if cached is None:
            update = _audience_update(audience, previous, current)
            cached = self._encoded[key] = previous, pickle.dumps(update, pickle.HIGHEST_PROTOCOL) if update else None
        return cached[1]


def _audience_update(audience: Audience, previous: SentSnapshot | None, current: SentSnapshot) -> AudienceUpdate | None:
    new = current.snapshot
    if new is None:
        return None if previous is not None and previous.snapshot is None else AudienceUpdate(audience, "", None, True)
    old = None if previous is None else previous.snapshot
    changes: dict[str, TypeChange] = {}
    for type_url, resources in new.resources.items():
        old_resources = {} if old is None else old.resources.get(type_url, {})
        if old is None or old_resources is not resources:
            difference = diff(old_resources, resources)
            if difference or old is None:
                changes[type_url] = TypeChange(new.versions[type_url], difference.changed, difference.removed)
    if changes or old is None or (previous is not None and previous.note != current.note):
        return AudienceUpdate(audience, current.note, changes, old is None)
    return None


class SnapshotSender:
    """Make the updates for one worker, relative to the snapshots that it was sent before."""

    def __init__(self, encoder: UpdateEncoder) -> None:
        self._encoder = encoder
        # The snapshot that the worker has, by audience that it subscribed to; None: it was not sent yet.
        self._sent: dict[Audience, SentSnapshot | None] = {}
        # Audiences that the worker subscribed to after the newest update.
        self._new: list[Audience] = []
        # The revision of the newest update.
        self._published: CompiledRevision | None = None

    def subscribe(self, audience: Audience) -> None:
        """Include an audience in all updates from now on."""
        if audience not in self._sent:
            self._sent[audience] = None
            self._new.append(audience)

    def unsubscribe(self, audience: Audience) -> None:
        """Leave an audience out of all updates from now on."""
        self._sent.pop(audience, None)

    def update(self, published: CompiledRevision) -> Update | None:
        """Return the update to this revision; None when the worker needs none. The update counts as sent."""
        previous, same = self._published, published is self._published
        candidates, self._new = self._new if same else list(self._sent), []
        audience_updates: list[bytes] = []
        for audience in candidates:
            if audience in self._sent:
                current = self._encoder.snapshot(published, audience)
                encoded = self._encoder.encode(audience, self._sent[audience], current)
                if encoded is not None:
                    audience_updates.append(encoded)
                self._sent[audience] = current
        if same and not audience_updates:
            return None
        self._published = published
        same_gateways = previous is not None and published.gateways is previous.gateways
        return Update(published.revision, None if same_gateways else published.gateways, tuple(audience_updates))

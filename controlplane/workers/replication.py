"""What a worker process serves, kept up by the process that holds the state: whole once, then only what changed.

    worker                                                   main
    `SnapshotReceiver.take`                  ◀─ Update ──     `SnapshotSender.update`: from what was sent last to the newest
    a stream is of an audience not known    ── Ask ─▶        the next update has its snapshot whole
    an audience that nobody asks for        ── Forget ─▶     is left out of the updates

Both directions keep their order, and that is all that is relied upon. An update goes from what the worker was sent last to
the newest world, however many there were in between, so a worker that is slow to read is sent one update and nothing queues.

In a worker, what did not change stays the same object, as it does between the snapshots of one process: the streams rely on
it for what is not to be looked at (`xds/overlay.py`). No I/O in here.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from controlplane.compiler.audience import AudienceResolver, Node
from controlplane.domain import Gateway
from controlplane.domain.state import State
from controlplane.errors import Code, Error
from controlplane.published import IDLE_REVISIONS
from controlplane.snapshot import Audience, Resource, Snapshot, diff


class Served(Protocol):
    """What is needed of a world that has everything."""

    @property
    def revision(self) -> int: ...
    @property
    def gateways(self) -> Mapping[str, Gateway]: ...
    def snapshot(self, audience: Audience) -> Snapshot: ...
    def note(self, audience: Audience) -> str: ...


@dataclass(frozen=True, slots=True)
class Change:
    """What makes one mapping of a snapshot of the one before."""

    version: str
    changed: tuple[Resource, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """One audience's part in an update."""

    audience: Audience
    note: str
    # By type URL; what is left out is as before. None: the snapshot can't be made.
    changes: Mapping[str, Change] | None
    # There is no before.
    whole: bool


@dataclass(frozen=True, slots=True)
class Update:
    """What makes what a worker has of the newest world. Audiences without a part are as they were, at the new revision."""

    revision: int
    # None: the same as before.
    gateways: Mapping[str, Gateway] | None
    # Parts, each pickled on its own: workers that lack the same are sent the same bytes.
    parts: tuple[bytes, ...] = field(repr=False)


# ------------------------------------------------------------------------------------------------------------------- main


@dataclass(frozen=True, slots=True)
class _Sent:
    # None: it could not be made.
    snapshot: Snapshot | None
    note: str


class UpdateEncoder:
    """Parts as bytes, made once for all workers. `failed` is told of an audience whose snapshot can't be made."""

    def __init__(self, failed: Callable[[Audience, Exception], None]) -> None:
        self._failed = failed
        # Of the newest world only. The values keep alive what the keys are identities of.
        self._world: Served | None = None
        self._snapshots: dict[Audience, _Sent] = {}
        self._parts: dict[tuple[Audience, int], tuple[_Sent | None, bytes | None]] = {}

    def now(self, world: Served, audience: Audience) -> _Sent:
        """What an audience should be sent of a world."""
        if self._world is not world:
            self._world, self._snapshots, self._parts = world, {}, {}
        sent = self._snapshots.get(audience)
        if sent is None:
            try:
                sent = _Sent(world.snapshot(audience), world.note(audience))
            except Exception as error:  # noqa: BLE001 -- whatever the compiler met, it ends the streams of this audience only
                self._failed(audience, error)
                sent = _Sent(None, "")
            self._snapshots[audience] = sent
        return sent

    def part(self, audience: Audience, old: _Sent | None, new: _Sent) -> bytes | None:
        """What makes `new`, which came of `now`, of `old`; None when nothing does."""
        key = audience, id(old)
        made = self._parts.get(key)
        if made is None:
            part = _part(audience, old, new)
            made = self._parts[key] = old, pickle.dumps(part, pickle.HIGHEST_PROTOCOL) if part else None
        return made[1]


def _part(audience: Audience, old: _Sent | None, new: _Sent) -> Part | None:
    if new.snapshot is None:
        return None if old is not None and old.snapshot is None else Part(audience, "", None, True)
    before = None if old is None else old.snapshot
    changes: dict[str, Change] = {}
    for type_url, resources in new.snapshot.resources.items():
        had = {} if before is None else before.resources.get(type_url, {})
        if before is None or had is not resources:
            found = diff(had, resources)
            if found or before is None:
                changes[type_url] = Change(new.snapshot.versions[type_url], found.changed, found.removed)
    if changes or before is None or (old is not None and old.note != new.note):
        return Part(audience, new.note, changes, before is None)
    return None


class SnapshotSender:
    """What one worker was sent, and is to be sent next."""

    def __init__(self, packer: UpdateEncoder) -> None:
        self._packer = packer
        # By audience that it asked for; None: it was not sent anything yet.
        self._sent: dict[Audience, _Sent | None] = {}
        # Those that were asked for since the newest update.
        self._asked: list[Audience] = []
        self._world: Served | None = None

    def ask(self, audience: Audience) -> None:
        """The worker has a stream of this audience."""
        if audience not in self._sent:
            self._sent[audience] = None
            self._asked.append(audience)

    def forget(self, audience: Audience) -> None:
        """The worker has dropped an audience."""
        self._sent.pop(audience, None)

    def update(self, world: Served) -> Update | None:
        """What brings the worker to this world; None when it is there. It counts as sent."""
        before, same = self._world, world is self._world
        doubtful, self._asked = self._asked if same else list(self._sent), []
        parts: list[bytes] = []
        for audience in doubtful:
            if audience in self._sent:
                old, new = self._sent[audience], self._packer.now(world, audience)
                part = self._packer.part(audience, old, new)
                if part is not None:
                    parts.append(part)
                self._sent[audience] = new
        if same and not parts:
            return None
        self._world = world
        same_gateways = before is not None and world.gateways is before.gateways
        return Update(world.revision, None if same_gateways else world.gateways, tuple(parts))


# ----------------------------------------------------------------------------------------------------------------- worker


@dataclass(slots=True)
class _Known:
    # None: main could not make it.
    snapshot: Snapshot | None
    note: str
    # For how many worlds no stream has asked for it.
    idle: int = 0


class ReceivedRevision:
    """One revision in a worker: what came of it so far."""

    def __init__(
        self,
        revision: int,
        gateways: Mapping[str, Gateway],
        known: dict[Audience, _Known],
        audiences: AudienceResolver,
        ask: Callable[[Audience], None],
    ) -> None:
        self.revision = revision
        # The same object as long as they are the same.
        self.gateways = gateways
        # Only the gateways: audiences follow from them.
        self._state = State(gateways)
        self._known = known
        self._audiences = audiences
        self._ask = ask

    def audience(self, node: Node) -> Audience:
        """Return a node's audience: the same object for all nodes of it. Changes only with `gateways`."""
        return self._audiences.resolve(self._state, node)

    def snapshot(self, audience: Audience) -> Snapshot | None:
        """What this audience should hold; None: it is asked for, and will be there. Errors: INTERNAL, it can't be made."""
        known = self._known.get(audience)
        if known is None:
            self._ask(audience)
            return None
        known.idle = 0
        if known.snapshot is None:
            raise Error(Code.INTERNAL, "NOT_COMPILED", "what this client should hold can't be made; the log says why")
        return known.snapshot

    def note(self, audience: Audience) -> str:
        """Why its nodes are not given more."""
        known = self._known.get(audience)
        return "" if known is None else known.note


class SnapshotReceiver:
    """What a worker knows. `ask` and `forget` tell main of audiences."""

    def __init__(self, ask: Callable[[Audience], None], forget: Callable[[Audience], None]) -> None:
        self._tell_ask = ask
        self._tell_forget = forget
        self._known: dict[Audience, _Known] = {}
        self._asked: set[Audience] = set()
        self._gateways: Mapping[str, Gateway] = {}
        self._world: ReceivedRevision | None = None
        self._audiences = AudienceResolver()
        # Resources by type and name, of whatever audience, so that audiences share what is the same in them.
        self._resources: dict[tuple[str, str], Resource] = {}
        self._most = 1_000

    def take(self, update: Update) -> ReceivedRevision:
        """The world as of an update: the one before, with more in it, when the revision is the same."""
        if update.gateways is not None:
            self._gateways = update.gateways
        newer = self._world is None or update.revision != self._world.revision or update.gateways is not None
        if newer:
            self._known = {a: self._onward(a, k, update.revision) for a, k in self._known.items() if self._wanted(a, k)}
        for packed in update.parts:
            part: Part = pickle.loads(packed)
            # Of one that was dropped meanwhile, what is on its way is of no use.
            if part.whole:
                self._asked.discard(part.audience)
                self._known[part.audience] = self._whole(part, update.revision)
            elif part.audience in self._known:
                self._known[part.audience] = self._changed(part, self._known[part.audience], update.revision)
        self._tidy()
        if newer or self._world is None:
            self._world = ReceivedRevision(update.revision, self._gateways, self._known, self._audiences, self._ask)
        return self._world

    def _ask(self, audience: Audience) -> None:
        if audience not in self._asked:
            self._asked.add(audience)
            self._tell_ask(audience)

    def _wanted(self, audience: Audience, known: _Known) -> bool:
        if known.idle < IDLE_REVISIONS:
            return True
        self._tell_forget(audience)
        return False

    def _onward(self, audience: Audience, known: _Known, revision: int) -> _Known:
        """The same, one world on."""
        s = known.snapshot
        snapshot = None if s is None else Snapshot(revision, audience, s.resources, s.versions)
        return _Known(snapshot, known.note, known.idle + 1)

    def _whole(self, part: Part, revision: int) -> _Known:
        if part.changes is None:
            return _Known(None, "")
        resources = {t: {r.name: self._shared(r) for r in c.changed} for t, c in part.changes.items()}
        versions = {t: c.version for t, c in part.changes.items()}
        return _Known(Snapshot(revision, part.audience, resources, versions), part.note)

    def _changed(self, part: Part, known: _Known, revision: int) -> _Known:
        before = known.snapshot
        assert before is not None, "what could not be made comes whole"
        assert part.changes is not None
        resources, versions = dict(before.resources), dict(before.versions)
        for type_url, change in part.changes.items():
            made = dict(before.resources.get(type_url, {}))
            made.update((r.name, self._shared(r)) for r in change.changed)
            for name in change.removed:
                del made[name]
            resources[type_url], versions[type_url] = made, change.version
        return _Known(Snapshot(revision, part.audience, resources, versions), part.note, known.idle)

    def _shared(self, resource: Resource) -> Resource:
        key = resource.type_url, resource.name
        there = self._resources.get(key)
        if there is not None and there.version == resource.version:
            return there
        self._resources[key] = resource
        return resource

    def _tidy(self) -> None:
        """Lets go of resources that no audience has any more; now and then, so that it costs little."""
        if len(self._resources) <= self._most:
            return
        mappings = {id(rs): rs for k in self._known.values() if k.snapshot is not None for rs in k.snapshot.resources.values()}
        self._resources = {(r.type_url, r.name): r for rs in mappings.values() for r in rs.values()}
        self._most = max(1_000, 2 * len(self._resources))

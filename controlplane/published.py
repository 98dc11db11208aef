"""One revision as every audience sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from controlplane.compiler.audience import left_out, unselected
from controlplane.domain import Gateway
from controlplane.domain.revision import Head
from controlplane.domain.state import State
from controlplane.snapshot import Audience, Snapshot

# An audience that nobody asked for in so many worlds is not made ready any more. In a burst of changes the next world can
# come before every stream has asked this one.
_IDLE = 16


class SnapshotCompiler(Protocol):
    """What a world needs of the compiler."""

    def compile(self, state: State, revision: int, audience: Audience, previous: Snapshot | None = None) -> Snapshot: ...


class PublishedRevision(Protocol):
    """A revision as a stream looks at it."""

    @property
    def gateways(self) -> Mapping[str, Gateway]: ...
    @property
    def head(self) -> Head: ...  # audiences follow from it
    def snapshot(self, audience: Audience) -> Snapshot | None: ...  # None: on its way; the world is said to be new again then
    def note(self, audience: Audience) -> str: ...


class CompiledRevision:
    """A revision, and its snapshot for each audience: compiled when first asked for, once, and shared by all its nodes."""

    def __init__(self, head: Head, compiler: SnapshotCompiler, previous: Mapping[Audience, Snapshot] | None = None) -> None:
        self.head = head
        # The same object in one world after another, for as long as gateways are the same: then so is every node's audience.
        self.gateways: Mapping[str, Gateway] = head.state.gateways
        self._compiler = compiler
        # The snapshot before of each audience, so that what did not change is not made again.
        self._previous = previous or {}
        self._snapshots: dict[Audience, Snapshot] = {}
        # For how many worlds nobody has asked for an audience; 0 once somebody did in this one.
        self._idle: dict[Audience, int] = {}
        self._notes: dict[Audience, str] = {}
        # The newest answers: thousands of nodes ask the same, one after the other.
        self._newest: tuple[Audience | None, Snapshot | None] = None, None
        self._newest_note: tuple[Audience | None, str] = None, ""

    @property
    def revision(self) -> int:
        return self.head.number

    def snapshot(self, audience: Audience) -> Snapshot:
        """What this audience should hold."""
        asked, found = self._newest
        if asked is not audience or found is None:
            self._idle[audience] = 0
            found = self._compiled(audience)
            self._newest = audience, found
        return found

    def note(self, audience: Audience) -> str:
        """Why its nodes are not given more; "" when there is nothing to say. Found out once."""
        asked, found = self._newest_note
        if asked is not audience:
            found = self._noted(audience)
            self._newest_note = audience, found
        return found

    def next(self, head: Head) -> CompiledRevision:
        """The world of a newer head, with the snapshots ready that were asked for of late."""
        # A copy, since another thread may be asking for one more.
        known, gateways = self._snapshots.copy(), head.state.gateways.keys()
        live = {a: s for a, s in known.items() if self._idle[a] < _IDLE and gateways >= set(a.gateways)}
        world = CompiledRevision(head, self._compiler, live)
        if world.gateways == self.gateways:
            world.gateways = self.gateways
        for audience in live:
            world._idle[audience] = self._idle[audience] + 1
            world._compiled(audience)
        return world

    def _noted(self, audience: Audience) -> str:
        note = self._notes.get(audience)
        if note is None:
            state = self.head.state
            note = self._notes[audience] = left_out(state, audience) if audience.gateways else unselected(state)
        return note

    def _compiled(self, audience: Audience) -> Snapshot:
        snapshot = self._snapshots.get(audience)
        if snapshot is None:
            previous = self._previous.get(audience)
            snapshot = self._compiler.compile(self.head.state, self.head.number, audience, previous)
            self._snapshots[audience] = snapshot
        return snapshot

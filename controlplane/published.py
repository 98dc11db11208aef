"""One revision as every audience sees it.

Invariant that the streams rely on: the same object means unchanged. `gateways`, and each mapping of a snapshot, are the same
object in one revision after another for as long as their content is equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from controlplane.compiler.audience import AudienceResolver, Node, left_out, unselected
from controlplane.domain import Gateway
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS, Endpoints
from controlplane.domain.revision import Head
from controlplane.domain.state import State
from controlplane.snapshot import Audience, Snapshot

# An audience that no stream asked for in this many revisions is no longer compiled ahead. More than one, since in a burst of
# changes the next revision can come before every stream has asked for its snapshot of this one.
IDLE_REVISIONS = 16


class SnapshotCompiler(Protocol):
    """A compiler of snapshots; `compiler.Compiler` is one."""

    def compile(
        self, state: State, endpoints: Endpoints, audience: Audience, revision: int, previous: Snapshot | None = None
    ) -> Snapshot: ...


class PublishedRevision(Protocol):
    """A revision as a stream needs it."""

    @property
    def gateways(self) -> Mapping[str, Gateway]: ...

    # The same object for all nodes of an audience. It changes only with `gateways`.
    def audience(self, node: Node) -> Audience: ...

    # None: it is not here yet. The revision is published again once it is.
    def snapshot(self, audience: Audience) -> Snapshot | None: ...

    # Why the audience is not served more; "" when there is no reason.
    def note(self, audience: Audience) -> str: ...


class CompiledRevision:
    """A revision with its snapshots: each audience's is compiled when first asked for, once, and shared by all its nodes."""

    def __init__(
        self,
        head: Head,
        compiler: SnapshotCompiler,
        previous: Mapping[Audience, Snapshot] | None = None,
        audiences: AudienceResolver | None = None,
    ) -> None:
        self.head = head
        self.gateways: Mapping[str, Gateway] = head.state.gateways
        self._compiler = compiler
        # One for all revisions, so that a node's audience stays the same object.
        self._audiences = audiences or AudienceResolver()
        # Snapshots of an earlier revision, so that resources that did not change are not compiled again.
        self._previous = previous or {}
        self._snapshots: dict[Audience, Snapshot] = {}
        # By audience: in how many revisions before this one no stream has asked for it; 0 once one asks for it in this one.
        self._idle: dict[Audience, int] = {}
        self._notes: dict[Audience, str] = {}
        # The newest answers: thousands of nodes ask for the same audience one after the other.
        self._newest_snapshot: tuple[Audience | None, Snapshot | None] = None, None
        self._newest_note: tuple[Audience | None, str] = None, ""

    @property
    def revision(self) -> int:
        """Return the revision's number."""
        return self.head.number

    @property
    def state(self) -> State:
        """Return desired state as of this revision."""
        return self.head.state

    def audience(self, node: Node) -> Audience:
        """Return a node's audience: the same object for all nodes of it. Changes only with `gateways`."""
        return self._audiences.resolve(self.head.state, node)

    def snapshot(self, audience: Audience) -> Snapshot:
        """Return the snapshot of an audience. Errors: the compiler's."""
        newest, snapshot = self._newest_snapshot
        if newest is not audience or snapshot is None:
            self._idle[audience] = 0
            snapshot = self._compiled(audience)
            self._newest_snapshot = audience, snapshot
        return snapshot

    def note(self, audience: Audience) -> str:
        """Return the reason why an audience is not served more; "" when there is none. Worked out once."""
        newest, note = self._newest_note
        if newest is not audience:
            note = self._noted(audience)
            self._newest_note = audience, note
        return note

    def next(self, head: Head) -> CompiledRevision:
        """Return the revision of a newer head, with snapshots ready for the audiences that were asked for recently."""
        # A copy, since another thread may be compiling one more.
        snapshots, gateways = self._snapshots.copy(), head.state.gateways.keys()
        live = {a: s for a, s in snapshots.items() if self._idle[a] < IDLE_REVISIONS and gateways >= set(a.gateways)}
        revision = CompiledRevision(head, self._compiler, live, self._audiences)
        if revision.gateways == self.gateways:
            revision.gateways = self.gateways
        for audience in live:
            revision._idle[audience] = self._idle[audience] + 1
            revision._compiled(audience)
        return revision

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
            snapshot = self._compiler.compile(self.head.state, NO_LIVE_ENDPOINTS, audience, self.head.number, previous)
            self._snapshots[audience] = snapshot
        return snapshot

"""A published revision: the audience of each node, and the snapshot of each audience.

The streams rely on this invariant: the same object means unchanged. As long as their content is equal, `gateways` and each
mapping of a snapshot are the same object in all successive revisions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from controlplane.compiler.audience import AudienceResolver, Node, audiences, left_out, unselected
from controlplane.domain import Gateway
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS, Endpoints
from controlplane.domain.revision import Head, ObjectMeta
from controlplane.domain.state import State
from controlplane.snapshot import Audience, Snapshot

# If no stream asked for an audience in this many revisions, it is compiled only on demand. The number is larger than one,
# because in a burst of changes the next revision can come before every stream has asked for its snapshot of this one.
IDLE_REVISIONS = 16


# The note on a node that is connected while there is no revision.
NO_REVISION = "there is no revision yet, so the node keeps the configuration that it has"


class SnapshotCompiler(Protocol):
    """A compiler of snapshots; `compiler.Compiler` is one."""

    def compile(
        self,
        state: State,
        endpoints: Endpoints,
        audience: Audience,
        revision: int,
        previous: Snapshot | None = None,
        meta: Mapping[str, ObjectMeta] = ...,
    ) -> Snapshot: ...


class PublishedRevision(Protocol):
    """The part of a revision that streams need."""

    @property
    def gateways(self) -> Mapping[str, Gateway]: ...

    # Returns the same object for all nodes of an audience. A node's audience changes only with `gateways`.
    def audience(self, node: Node) -> Audience: ...

    # Returns None if the snapshot has not arrived in this process yet. When it arrives, the revision is published again.
    def snapshot(self, audience: Audience) -> Snapshot | None: ...

    # Returns the reason why the audience gets no resources, or not all; "" if there is no reason.
    def note(self, audience: Audience) -> str: ...


class CompiledRevision:
    """A revision with its snapshots. The snapshot of an audience is compiled once, on demand, and shared by all its nodes."""

    def __init__(
        self,
        head: Head,
        compiler: SnapshotCompiler,
        previous: Mapping[Audience, Snapshot] | None = None,
        audiences: AudienceResolver | None = None,
        on_served: Callable[[Snapshot], None] | None = None,
        warnings: tuple[str, ...] = (),
    ) -> None:
        """`on_served` is called once with each snapshot that a stream asks for, also in all later revisions.

        `warnings` say in which way the snapshots are not those of the revision. Such a revision is only compared with others.
        """
        self.warnings = warnings
        self.head = head
        self.gateways: Mapping[str, Gateway] = head.state.gateways
        self._compiler = compiler
        # All revisions share one resolver, so that a node's audience stays the same object.
        self._audiences = audiences or AudienceResolver()
        self._on_served = on_served
        # Snapshots of an earlier revision, whose unchanged resources are reused.
        self._previous = previous or {}
        self._snapshots: dict[Audience, Snapshot] = {}
        # By audience: the number of successive earlier revisions in which no stream asked for it; 0 once a stream asks for it
        # in this revision.
        self._idle: dict[Audience, int] = {}
        self._notes: dict[Audience, str] = {}
        # The newest answers, because thousands of nodes ask for the same audience one after the other.
        self._newest_snapshot: tuple[Audience | None, Snapshot | None] = None, None
        self._newest_note: tuple[Audience | None, str] = None, ""

    @property
    def revision(self) -> int:
        """Return the revision's number."""
        return self.head.number

    @property
    def state(self) -> State:
        """Return the desired state of this revision."""
        return self.head.state

    def audience(self, node: Node) -> Audience:
        """Return a node's audience: the same object for all its nodes. It changes only with `gateways`."""
        return self._audiences.resolve(self.head.state, node)

    def snapshot(self, audience: Audience) -> Snapshot:
        """Return the snapshot of an audience. Errors: those of the compiler."""
        newest, snapshot = self._newest_snapshot
        if newest is not audience or snapshot is None:
            is_first = self._idle.get(audience) != 0
            self._idle[audience] = 0
            snapshot = self._compile_once(audience)
            if is_first and self._on_served is not None:
                self._on_served(snapshot)
            self._newest_snapshot = audience, snapshot
        return snapshot

    def note(self, audience: Audience) -> str:
        """Return the reason why an audience gets no resources, or not all; "" if there is no reason. Computed once."""
        newest, note = self._newest_note
        if newest is not audience:
            note = self._note_once(audience)
            self._newest_note = audience, note
        return note

    def next(self, head: Head) -> CompiledRevision:
        """Return the revision of a newer head, with compiled snapshots for the audiences that were asked for recently."""
        # A copy, because another thread may add a snapshot.
        snapshots, gateways = self._snapshots.copy(), head.state.gateways.keys()
        recent = {a: s for a, s in snapshots.items() if self._idle[a] < IDLE_REVISIONS and gateways >= set(a.gateways)}
        revision = CompiledRevision(head, self._compiler, recent, self._audiences, self._on_served)
        if revision.gateways == self.gateways:
            revision.gateways = self.gateways
        for audience in recent:
            revision._idle[audience] = self._idle[audience] + 1
            revision._compile_once(audience)
        return revision

    def compile_all(self) -> None:
        """Compile the snapshots of all audiences that are checked before a commit. Errors: those of the compiler."""
        for audience in audiences(self.head.state):
            self._idle.setdefault(audience, 1)  # no stream has asked for it
            self._compile_once(audience)

    def _note_once(self, audience: Audience) -> str:
        note = self._notes.get(audience)
        if note is None:
            state = self.head.state
            if not self.revision:
                return NO_REVISION
            note = self._notes[audience] = left_out(state, audience) if audience.gateways else unselected(state)
        return note

    def _compile_once(self, audience: Audience) -> Snapshot:
        snapshot = self._snapshots.get(audience)
        if snapshot is None:
            previous = self._previous.get(audience)
            head = self.head
            snapshot = self._compiler.compile(head.state, NO_LIVE_ENDPOINTS, audience, head.number, previous, head.meta)
            self._snapshots[audience] = snapshot
        return snapshot

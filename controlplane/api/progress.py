"""The progress of a revision: how many nodes hold it, and which nodes don't."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence

from controlplane.aio.latest import Latest
from controlplane.api.convert import timestamp
from controlplane.api.convert.node import by_gateway, expected_nodes, node_name
from controlplane.api.watch import watch
from controlplane.envoy_types import short_name
from controlplane.fleet import Fleet, Node, ProgressState, Refusal
from controlplane.generated.turnout.v1 import revision_pb2

INTERVAL = 0.05  # shortest time between two messages of one watch, seconds

_STATES = {
    ProgressState.HOLDING: revision_pb2.NODE_PROGRESS_STATE_HOLDING,
    ProgressState.BEHIND: revision_pb2.NODE_PROGRESS_STATE_BEHIND,
    ProgressState.REFUSED: revision_pb2.NODE_PROGRESS_STATE_REFUSED,
    ProgressState.GONE: revision_pb2.NODE_PROGRESS_STATE_GONE,
    ProgressState.RELEASED: revision_pb2.NODE_PROGRESS_STATE_RELEASED,
}


# A released node does not count, so another node of its identity does.
_WORST_FIRST = (
    ProgressState.REFUSED,
    ProgressState.BEHIND,
    ProgressState.GONE,
    ProgressState.HOLDING,
    ProgressState.RELEASED,
)


class RevisionWatch:
    """One watch of one revision."""

    def __init__(self, revision: int, max_nodes: int, *, made: float = 0.0, connected_only: bool = False) -> None:
        """Watch a revision that was made at `made`, in seconds since the epoch.

        With `connected_only`, only connected nodes count. The watch remembers those that it has seen, so that those that
        disconnect still count.
        """
        self.revision = revision
        self.max_nodes = max_nodes
        self._made = made
        self._connected_only = connected_only
        self._seen: set[str] = set()

    def complete(self, fleet: Fleet) -> bool:
        """Return True if the revision is done. The cost does not depend on the size of the fleet."""
        return fleet.is_done(self.revision, connected_only=self._connected_only)

    def progress(self, fleet: Fleet) -> revision_pb2.RevisionProgress:
        """Return the progress, without the revision itself."""
        by_state: dict[ProgressState, list[Node]] = {state: [] for state in ProgressState}
        last_ack = 0.0
        self._seen.intersection_update(fleet.nodes)
        for node in fleet.nodes.values():
            state = self._state(node)
            if state is None:
                continue
            by_state[state].append(node)
            if state is ProgressState.HOLDING:
                last_ack = max(last_ack, node.hold_time(self.revision) or 0.0)
        counts = _counts(by_state)
        progress = revision_pb2.RevisionProgress(
            total=sum(counts.values()) - counts[ProgressState.RELEASED],
            holding=counts[ProgressState.HOLDING],
            behind=counts[ProgressState.BEHIND],
            refused=counts[ProgressState.REFUSED],
            gone=counts[ProgressState.GONE],
            released=counts[ProgressState.RELEASED],
            complete=self.complete(fleet),
            last_ack_time=timestamp(last_ack) if last_ack else None,
        )
        if not self._connected_only:
            progress.expected.extend(expected_nodes(fleet, by_gateway(by_state[ProgressState.HOLDING])))
        held_back = {node_name(node_id) for node_id in fleet.held_back.all()}
        for state, nodes in by_state.items():
            room = self.max_nodes - len(progress.nodes)
            if room > 0:
                progress.nodes.extend(self._node_progress(n, state) for n in sorted(nodes, key=self._order)[:room])
        for message in progress.nodes:
            message.held_back = message.node in held_back
        return progress

    def _state(self, node: Node) -> ProgressState | None:
        """Return a node's state with the revision, or None for a node that is not part of the progress."""
        state = node.progress(self.revision)
        if node.connected:
            self._seen.add(node.id)
        elif self._connected_only:
            if node.id not in self._seen:
                return None
            return state if state is ProgressState.HOLDING else ProgressState.GONE
        elif not node.known:
            was_released = state is ProgressState.RELEASED and (node.release_time or 0.0) >= self._made
            return state if was_released else None
        return state

    def _order(self, node: Node) -> tuple[bool, str]:
        """Return the sort key of a node within its state: nodes that hold all but a refused part come first."""
        return node.holds.all_of >= self.revision, node.id

    def _node_progress(self, node: Node, state: ProgressState) -> revision_pb2.NodeProgress:
        """Return the progress of one node, with the refusal that keeps it from holding a part, if there is one."""
        progress = revision_pb2.NodeProgress(node=node_name(node.id), state=_STATES[state], held_revision=node.held_revision)
        progress.last_seen_time.CopyFrom(timestamp(node.last_seen))
        if node.release_time is not None:
            progress.release_time.CopyFrom(timestamp(node.release_time))
        if state is ProgressState.HOLDING and (hold_time := node.hold_time(self.revision)) is not None:
            progress.hold_time.CopyFrom(timestamp(hold_time))
        refusal: Refusal | None = None
        if state is ProgressState.REFUSED:
            refusal = next(r for r in node.refusals if r.blocked_up_to >= self.revision)
        elif state is ProgressState.HOLDING and node.holds.all_of < self.revision:
            refusal = next((r for r in node.refusals if r.revision < self.revision), None)
        if refusal is not None:
            progress.refused_revision = refusal.revision
            progress.refused_type = short_name(refusal.type_url)
            progress.refused_resources.extend(refusal.resources)
            progress.error = refusal.message
        return progress


def _counts(by_state: Mapping[ProgressState, Sequence[Node]]) -> Counter[ProgressState]:
    """Return the number of nodes by state. Nodes of one identity are one, in the worst of their states."""
    counts: Counter[ProgressState] = Counter()
    counted: set[str] = set()
    for state in _WORST_FIRST:
        for node in by_state[state]:
            identity = node.own_identity
            if not identity or identity not in counted:
                counts[state] += 1
                counted.add(identity)
    return counts


async def revision_progress(
    revision: revision_pb2.Revision, max_nodes: int, changed: Latest[Fleet | None], *, connected_only: bool = False
) -> AsyncIterator[revision_pb2.RevisionProgress]:
    """Yield the progress of a revision at each change, until it is done."""
    create_time = revision.create_time.seconds + revision.create_time.nanos / 1e9
    revision_watch = RevisionWatch(revision.number, max_nodes, made=create_time, connected_only=connected_only)

    def message_of(fleet: Fleet) -> revision_pb2.RevisionProgress:
        progress = revision_watch.progress(fleet)
        progress.revision.CopyFrom(revision)
        return progress

    async for progress in watch(changed, message_of, INTERVAL, revision_watch.complete):
        yield progress
        if progress.complete:
            return

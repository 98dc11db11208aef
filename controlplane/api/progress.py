"""Pictures of the fleet as it changes: how far a revision has come, and where the nodes stand.

A picture is whole, and costs the more the larger the fleet is. So pictures come at a bounded rate, and slower where making
one takes long: watchers never take more than about a tenth of the process. The first one and the last one come at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from controlplane.aio.latest import Latest
from controlplane.api.convert import timestamp
from controlplane.envoy_types import short_name
from controlplane.errors import Code, Error
from controlplane.fleet import Fleet, Node, ProgressState, Refusal
from controlplane.generated.turnout.v1 import revision_pb2

P = TypeVar("P")

# Shortest time between two pictures of one watch, seconds.
REVISION_INTERVAL = 0.05
FLEET_INTERVAL = 0.1

# Pictures of one watch take at most one part in this many of the time.
_SHARE = 10

_PARTS = {
    ProgressState.HOLDING: revision_pb2.NODE_PROGRESS_STATE_HOLDING,
    ProgressState.BEHIND: revision_pb2.NODE_PROGRESS_STATE_BEHIND,
    ProgressState.REFUSED: revision_pb2.NODE_PROGRESS_STATE_REFUSED,
    ProgressState.GONE: revision_pb2.NODE_PROGRESS_STATE_GONE,
}


class RevisionWatch:
    """One watch of one revision: it remembers the nodes that it has seen, so that one that goes away is counted."""

    def __init__(self, revision: int, max_nodes: int) -> None:
        self.revision = revision
        self.max_nodes = max_nodes
        self._seen: set[str] = set()

    def complete(self, fleet: Fleet) -> bool:
        """Whether every connected node holds the revision. Cheap."""
        return fleet.holding(self.revision) == fleet.connected

    def picture(self, fleet: Fleet) -> revision_pb2.RevisionProgress:
        """How far the revision has come, but for the revision itself."""
        parts: dict[ProgressState, list[Node]] = {part: [] for part in ProgressState}
        last_ack = 0.0
        self._seen.intersection_update(fleet.nodes)
        for node in fleet.nodes.values():
            if node.connected:
                self._seen.add(node.id)
            elif node.id not in self._seen:
                continue
            part = node.progress(self.revision)
            parts[part].append(node)
            if part is ProgressState.HOLDING:
                last_ack = max(last_ack, node.hold_time(self.revision) or 0.0)
        progress = revision_pb2.RevisionProgress(
            total=sum(map(len, parts.values())),
            holding=len(parts[ProgressState.HOLDING]),
            behind=len(parts[ProgressState.BEHIND]),
            refused=len(parts[ProgressState.REFUSED]),
            gone=len(parts[ProgressState.GONE]),
            complete=self.complete(fleet),
            last_ack_time=timestamp(last_ack) if last_ack else None,
        )
        for part, nodes in parts.items():
            room = self.max_nodes - len(progress.nodes)
            if room > 0:
                progress.nodes.extend(self._progress(n, part) for n in sorted(nodes, key=self._order)[:room])
        return progress

    def _order(self, node: Node) -> tuple[bool, str]:
        """Of those that hold it, the ones that refuse something first."""
        return node.held_revision >= self.revision, node.id

    def _progress(self, node: Node, part: ProgressState) -> revision_pb2.NodeProgress:
        progress = revision_pb2.NodeProgress(node=resource_name(node), state=_PARTS[part], held_revision=node.held_revision)
        if part is ProgressState.HOLDING and (when := node.hold_time(self.revision)) is not None:
            progress.hold_time.CopyFrom(timestamp(when))
        refusal: Refusal | None = None
        if part is ProgressState.REFUSED:
            refusal = next(r for r in node.refusals if r.stands_at >= self.revision)
        elif part is ProgressState.HOLDING and node.held_revision < self.revision:
            refusal = next((r for r in node.refusals if r.revision < self.revision), None)
        if refusal is not None:
            progress.refused_revision = refusal.revision
            progress.refused_type = short_name(refusal.type_url)
            progress.refused_resources.extend(refusal.resources)
            progress.error = refusal.message
        return progress


async def revision_progress(
    revision: revision_pb2.Revision, max_nodes: int, changed: Latest[Fleet | None]
) -> AsyncIterator[revision_pb2.RevisionProgress]:
    """Yields pictures of a revision's way, until every connected node holds it."""
    watch = RevisionWatch(revision.number, max_nodes)

    def picture(fleet: Fleet) -> revision_pb2.RevisionProgress:
        progress = watch.picture(fleet)
        progress.revision.CopyFrom(revision)
        return progress

    async for progress in pictures(changed, picture, REVISION_INTERVAL, watch.complete):
        yield progress
        if progress.complete:
            return


async def pictures(
    changed: Latest[Fleet | None],
    picture: Callable[[Fleet], P],
    interval: float,
    urgent: Callable[[Fleet], bool] = lambda fleet: False,
) -> AsyncIterator[P]:
    """Yields a picture at once, and then when the fleet changes: one an interval, but at once when it is urgent.

    Errors: UNAVAILABLE when the control plane stops.
    """
    clock = asyncio.get_running_loop().time
    while True:
        seen, began = changed.serial, clock()
        result = picture(live(changed))
        due = began + max(interval, (clock() - began) * _SHARE)
        yield result
        seen = await changed.newer(seen)
        while clock() < due and not urgent(live(changed)):
            try:
                async with asyncio.timeout_at(due):
                    seen = await changed.newer(seen)
            except TimeoutError:
                break


def live(changed: Latest[Fleet | None]) -> Fleet:
    """The fleet. Errors: UNAVAILABLE when the control plane stops."""
    if changed.value is None:
        raise Error(Code.UNAVAILABLE, "NOT_SERVING", "the control plane is stopping; try again")
    return changed.value


def resource_name(node: Node) -> str:
    """`nodes/{node}`."""
    return node_name(node.id)


def node_name(node_id: str) -> str:
    """`nodes/{node}`: the id, percent-encoded where it would not be one part of a name."""
    return "nodes/" + node_id.replace("%", "%25").replace("/", "%2F")

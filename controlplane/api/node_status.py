"""What one node holds, as the operator API says it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable

from controlplane.aio.time_sliced import time_sliced
from controlplane.api.convert import timestamp
from controlplane.api.resource_diff import difference
from controlplane.envoy_types import short_name
from controlplane.generated.turnout.v1 import node_pb2
from controlplane.xds.status import ResourceStatus, State

# Diffs in one answer; the others say that they were left out.
MOST_DIFFS = 100
# Resources that are put into words before others are seen to.
_SLICE = 500

_STATES = {
    State.SYNCED: node_pb2.RESOURCE_STATE_SYNCED,
    State.SENT: node_pb2.RESOURCE_STATE_SENT,
    State.WAITING: node_pb2.RESOURCE_STATE_WAITING,
    State.REFUSED: node_pb2.RESOURCE_STATE_REFUSED,
    State.UNASKED: node_pb2.RESOURCE_STATE_NOT_ASKED,
    State.ABSENT: node_pb2.RESOURCE_STATE_ABSENT,
}
_COUNTS = {
    State.SYNCED: "synced",
    State.SENT: "sent",
    State.WAITING: "waiting",
    State.REFUSED: "refused",
    State.UNASKED: "not_asked",
    State.ABSENT: "absent",
}
# Those first of which a person wants to know first.
_URGENCY = (State.REFUSED, State.SENT, State.WAITING, State.UNASKED, State.ABSENT, State.SYNCED)


async def to_proto(
    node: node_pb2.Node, statuses: list[ResourceStatus], most: int, *, include_synced: bool, diffs: bool
) -> node_pb2.NodeStatus:
    """The status of a node. `statuses` are in the order of types, by name within one."""
    wanted = [s for s in statuses if include_synced or not s.synced]
    wanted.sort(key=lambda s: _URGENCY.index(s.state))
    made = node_pb2.NodeStatus(node=node, types=_types(statuses), omitted=max(0, len(wanted) - most))
    wanted = wanted[:most]
    async for some in time_sliced(wanted[i : i + _SLICE] for i in range(0, len(wanted), _SLICE)):
        made.resources.extend(map(_resource, some))
    if diffs:
        await asyncio.to_thread(_compare, made, wanted)
    return made


def _types(statuses: Iterable[ResourceStatus]) -> list[node_pb2.TypeStatus]:
    counts: dict[str, Counter[State]] = {}
    newest: dict[str, float] = {}
    for status in statuses:
        counts.setdefault(status.type_url, Counter())[status.state] += 1
        if status.time is not None:
            newest[status.type_url] = max(newest.get(status.type_url, 0.0), status.time)
    return [
        node_pb2.TypeStatus(
            type=short_name(url),
            newest_time=timestamp(newest[url]) if url in newest else None,
            **{_COUNTS[state]: count for state, count in states.items()},
        )
        for url, states in counts.items()
    ]


def _resource(status: ResourceStatus) -> node_pb2.ResourceStatus:
    made = node_pb2.ResourceStatus(
        type=short_name(status.type_url),
        name=status.name,
        state=_STATES[status.state],
        held_version=status.held.version if status.held is not None else "",
        target_version=status.should.version if status.should is not None else "",
        take_time=timestamp(status.time) if status.time is not None else None,
        take_time_exact=status.exact,
        sent_revision=status.sent,
    )
    if (refused := status.refused) is not None:
        made.refusal.message, made.refusal.revision = refused.message, refused.revision
        made.refusal.version = refused.content.version if refused.content is not None else ""
        made.refusal.time.CopyFrom(timestamp(refused.time))
    return made


def _compare(made: node_pb2.NodeStatus, statuses: list[ResourceStatus]) -> None:
    """Takes milliseconds a resource, so it is for a thread."""
    compared = 0
    for resource, status in zip(made.resources, statuses, strict=True):
        if compared == MOST_DIFFS:
            resource.diff_note = f"only the first {MOST_DIFFS} are compared" if _differs(status) else ""
            continue
        lines, resource.diff_note = difference(status.held, status.should)
        resource.diff.extend(lines)
        compared += bool(lines)


def _differs(status: ResourceStatus) -> bool:
    held, should = status.held, status.should
    return (held and held.version) != (should and should.version)

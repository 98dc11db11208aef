"""The status of one node: what it holds of each resource, against what it should hold, as a message."""

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

# Diffs in one response. Further resources get a note instead.
MAX_DIFFS = 100
# Resources that are converted in one time slice.
_RESOURCES_PER_SLICE = 500

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
# The order in which resources are listed.
_LIST_ORDER = (State.REFUSED, State.SENT, State.WAITING, State.UNASKED, State.ABSENT, State.SYNCED)


async def to_proto(
    node: node_pb2.Node, statuses: list[ResourceStatus], max_resources: int, *, include_synced: bool, diffs: bool
) -> node_pb2.NodeStatus:
    """Return the status of a node. `statuses` are sorted by type and name."""
    wanted = [s for s in statuses if include_synced or not s.synced]
    wanted.sort(key=lambda s: _LIST_ORDER.index(s.state))
    proto = node_pb2.NodeStatus(node=node, types=_types(statuses), omitted=max(0, len(wanted) - max_resources))
    wanted = wanted[:max_resources]
    async for part in time_sliced(wanted[i : i + _RESOURCES_PER_SLICE] for i in range(0, len(wanted), _RESOURCES_PER_SLICE)):
        proto.resources.extend(map(_resource, part))
    if diffs:
        await asyncio.to_thread(_add_diffs, proto, wanted)
    return proto


def _types(statuses: Iterable[ResourceStatus]) -> list[node_pb2.TypeStatus]:
    """Return the counts of each type, in the order of the statuses."""
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
    """Return the message of one resource, without a diff."""
    proto = node_pb2.ResourceStatus(
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
        proto.refusal.message, proto.refusal.revision = refused.message, refused.revision
        proto.refusal.version = refused.content.version if refused.content is not None else ""
        proto.refusal.time.CopyFrom(timestamp(refused.time))
    return proto


def _add_diffs(proto: node_pb2.NodeStatus, statuses: list[ResourceStatus]) -> None:
    """Add a diff to each resource. It takes milliseconds for each one, so call it on a thread."""
    compared = 0
    for resource, status in zip(proto.resources, statuses, strict=True):
        if compared == MAX_DIFFS:
            resource.diff_note = f"only the first {MAX_DIFFS} resources are compared" if _differs(status) else ""
            continue
        lines, resource.diff_note = difference(status.held, status.should)
        resource.diff.extend(lines)
        compared += bool(lines)


def _differs(status: ResourceStatus) -> bool:
    """Return true if the node should hold another version than it holds."""
    held, should = status.held, status.should
    return (held and held.version) != (should and should.version)

"""Nodes over gRPC: the fleet, as it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import islice
from typing import Any
from urllib.parse import unquote

import structlog

from controlplane.aio.latest import Latest
from controlplane.api import node_status
from controlplane.api.convert import timestamp
from controlplane.api.csds import Describe
from controlplane.api.progress import FLEET_INTERVAL, live, pictures, resource_name
from controlplane.api.request import page
from controlplane.envoy_types import short_name
from controlplane.errors import Code, Error, invalid, not_found
from controlplane.fleet import Fleet, Node, NodeState, Refusal
from controlplane.generated.turnout.v1 import node_pb2, node_service_pb2, node_service_pb2_grpc

log = structlog.get_logger("fleet")

_STATES = {
    NodeState.SYNCED: node_pb2.NODE_STATE_SYNCED,
    NodeState.BEHIND: node_pb2.NODE_STATE_BEHIND,
    NodeState.REFUSING: node_pb2.NODE_STATE_REFUSING,
    NodeState.GONE: node_pb2.NODE_STATE_GONE,
}


class NodeService(node_service_pb2_grpc.NodeServiceServicer):
    """Shows the xDS clients that are connected, or were.

    `reconnect` ends the streams of a node, and returns how many; `describe` says what a node holds.
    """

    def __init__(self, changed: Latest[Fleet | None], reconnect: Callable[[str], Awaitable[int]], describe: Describe) -> None:
        self._changed = changed
        self._reconnect = reconnect
        self._describe = describe

    async def GetNode(self, request: node_service_pb2.GetNodeRequest, context: Any) -> node_service_pb2.GetNodeResponse:
        fleet, node = self._find(request.name)
        return node_service_pb2.GetNodeResponse(node=to_proto(fleet, node))

    async def GetNodeStatus(
        self, request: node_service_pb2.GetNodeStatusRequest, context: Any
    ) -> node_service_pb2.GetNodeStatusResponse:
        if request.max_resources < 0:
            raise invalid("max_resources", f"{request.max_resources} is negative")
        fleet, node = self._find(request.name)
        statuses = await self._describe(node.id)
        status = await node_status.to_proto(
            to_proto(fleet, node),
            statuses,
            min(request.max_resources or 100, node_status.MOST_RESOURCES),
            include_synced=request.include_synced,
            diffs=not request.exclude_diffs,
        )
        return node_service_pb2.GetNodeStatusResponse(status=status)

    def _find(self, name: str) -> tuple[Fleet, Node]:
        fleet = live(self._changed)
        node = fleet.nodes.get(_node_id(name))
        if node is None:
            raise not_found(name, "no client with that id is connected, or was of late")
        return fleet, node

    async def ListNodes(self, request: node_service_pb2.ListNodesRequest, context: Any) -> node_service_pb2.ListNodesResponse:
        fleet = live(self._changed)
        by_name = {resource_name(n): n for n in fleet.nodes.values()}
        nodes, token = page(by_name, lambda name: to_proto(fleet, by_name[name]), request, "nodes")
        return node_service_pb2.ListNodesResponse(nodes=nodes, next_page_token=token, summary=summary(fleet))

    async def WatchNodes(
        self, request: node_service_pb2.WatchNodesRequest, context: Any
    ) -> AsyncIterator[node_service_pb2.WatchNodesResponse]:
        most = min(request.max_nodes or 100, 10_000)
        if most < 0:
            raise invalid("max_nodes", f"{request.max_nodes} is negative")

        def picture(fleet: Fleet) -> node_service_pb2.WatchNodesResponse:
            nodes = [to_proto(fleet, n) for n in islice(fleet.unsynced_first(), most)]
            return node_service_pb2.WatchNodesResponse(summary=summary(fleet), nodes=nodes)

        async for response in pictures(self._changed, picture, FLEET_INTERVAL):
            yield response

    async def ReconnectNode(
        self, request: node_service_pb2.ReconnectNodeRequest, context: Any
    ) -> node_service_pb2.ReconnectNodeResponse:
        node_id = _node_id(request.name)
        streams = await self._reconnect(node_id)
        if not streams:
            raise Error(Code.NOT_FOUND, "NOT_FOUND", f"{request.name} is not connected", metadata={"name": request.name})
        log.info("node asked to reconnect", node=node_id, streams=streams)
        return node_service_pb2.ReconnectNodeResponse(streams=streams)


def _node_id(name: str) -> str:
    collection, _, node_id = name.partition("/")
    if collection != "nodes" or "/" in node_id:
        raise invalid("name", f"'{name[:80]}' is not the name of a node, like nodes/edge-1")
    return unquote(node_id)


def summary(fleet: Fleet) -> node_service_pb2.FleetSummary:
    """The counts."""
    return node_service_pb2.FleetSummary(
        revision=fleet.revision,
        synced=fleet.counts[NodeState.SYNCED],
        behind=fleet.counts[NodeState.BEHIND],
        refusing=fleet.counts[NodeState.REFUSING],
        gone=fleet.counts[NodeState.GONE],
    )


def to_proto(fleet: Fleet, node: Node) -> node_pb2.Node:
    """One node as the API shows it."""
    return node_pb2.Node(
        name=resource_name(node),
        id=node.id,
        cluster=node.cluster,
        user_agent=node.user_agent,
        state=_STATES[fleet.state_of(node)],
        gateways=[f"gateways/{g}" for g in node.gateways],
        held_revision=node.held_revision,
        target_revision=fleet.revision,
        variants=node.variants,
        streams=len(node.streams),
        peer=node.peer,
        connect_time=timestamp(node.connect_time) if node.connect_time is not None else None,
        last_seen_time=timestamp(node.last_seen),
        refusals=[_refusal(r) for r in node.refusals],
        note=node.note,
        models=sorted(node.audience.models or ()),
        locality=node_pb2.NodeLocality(region=node.locality.region, zone=node.locality.zone, sub_zone=node.locality.sub_zone),
    )


def _refusal(refusal: Refusal) -> node_pb2.Refusal:
    return node_pb2.Refusal(
        type=short_name(refusal.type_url),
        resources=refusal.resources,
        message=refusal.message,
        revision=refusal.revision,
        time=timestamp(refusal.time),
    )

"""The service for nodes, called without a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
import structlog

from controlplane.aio.latest import Latest
from controlplane.api.node_service import NodeService
from controlplane.envoy_types import ROUTES
from controlplane.errors import Code, Error
from controlplane.fleet import Fleet
from controlplane.generated.turnout.v1 import node_pb2
from controlplane.generated.turnout.v1 import node_service_pb2 as pb
from controlplane.reconciler.blocks import Block, BlockKeeper
from controlplane.xds.events import Held, HeldBack, StreamClosed
from controlplane.xds.status import ResourceStatus
from tests.api.convert.test_node import fleet_of
from tests.fakes.call import Call


class Blocks(BlockKeeper):
    """Blocks that are kept in memory, and end the streams of their nodes."""

    def __init__(self, nodes: Nodes) -> None:
        self.kept: list[Block] = []
        self._nodes = nodes

    def all(self) -> list[Block]:
        return self.kept

    async def block(self, client: str, reason: str, author: str) -> Block:
        self.kept.append(Block(client, reason, author, 7.0))
        for stream in list(self._nodes.fleet.streams_of(client)):
            self._nodes.fleet.apply(stream, StreamClosed(), 102)
        return self.kept[-1]

    async def unblock(self, client: str) -> None:
        self.kept = [block for block in self.kept if block.client != client]


class Nodes:
    """A service for two nodes. It records the calls of its functions `reconnect` and `describe`."""

    def __init__(self, streams: int = 1) -> None:
        self.fleet = fleet_of("edge-1", "edge/2")
        self.changed: Latest[Fleet | None] = Latest(self.fleet)
        self.reconnected: list[str] = []
        self.described: list[str] = []
        self.adopted: list[str] = []
        self._streams = streams
        self.blocks = Blocks(self)
        self.service = NodeService(self.changed, self.reconnect, self.describe, self.forget, self.adopt, self.blocks)

    async def reconnect(self, node_id: str) -> int:
        self.reconnected.append(node_id)
        return self._streams

    async def forget(self, ids: Iterable[str]) -> None:
        self.fleet.members.forget(ids)

    async def adopt(self, node_id: str) -> int:
        self.adopted.append(node_id)
        return self._streams

    async def describe(self, node_id: str) -> list[ResourceStatus]:
        self.described.append(node_id)
        return []


async def refused(call: Any) -> tuple[Code, list[str]]:
    with pytest.raises(Error) as caught:
        await call
    return caught.value.code, [v.field for v in caught.value.violations]


async def test_get() -> None:
    service = Nodes().service
    response = await service.GetNode(pb.GetNodeRequest(name="nodes/edge%2F2"), None)
    assert (response.node.id, response.node.held_revision) == ("edge/2", 1)
    assert (await refused(service.GetNode(pb.GetNodeRequest(name="nodes/none"), None)))[0] is Code.NOT_FOUND
    assert await refused(service.GetNode(pb.GetNodeRequest(name="edge-1"), None)) == (Code.INVALID_ARGUMENT, ["name"])


async def test_status() -> None:
    nodes = Nodes()
    response = await nodes.service.GetNodeStatus(pb.GetNodeStatusRequest(name="nodes/edge%2F2"), None)
    assert (response.status.node.name, nodes.described) == ("nodes/edge%2F2", ["edge/2"])
    negative = pb.GetNodeStatusRequest(name="nodes/edge-1", max_resources=-1)
    assert await refused(nodes.service.GetNodeStatus(negative, None)) == (Code.INVALID_ARGUMENT, ["max_resources"])


async def test_list_has_pages_and_counts_all_nodes() -> None:
    service = Nodes().service
    first = await service.ListNodes(pb.ListNodesRequest(page_size=1), None)
    second = await service.ListNodes(pb.ListNodesRequest(page_size=1, page_token=first.next_page_token), None)
    assert [n.name for n in (*first.nodes, *second.nodes)] == ["nodes/edge%2F2", "nodes/edge-1"]
    assert (first.summary.behind, second.summary.behind, second.next_page_token) == (2, 2, "")


async def test_watch_sends_the_fleet_at_once_and_after_a_change() -> None:
    nodes = Nodes()
    stream: AsyncIterator[pb.WatchNodesResponse] = nodes.service.WatchNodes(pb.WatchNodesRequest(max_nodes=1), None)
    first = await anext(stream)
    assert (first.summary.behind, len(first.nodes)) == (2, 1)
    nodes.fleet.apply(0, Held(2), 101)
    nodes.changed.set(nodes.fleet)
    second = await anext(stream)
    assert (second.summary.synced, second.summary.behind) == (1, 1)
    assert [n.state for n in second.nodes] == [node_pb2.NODE_STATE_BEHIND]
    negative = nodes.service.WatchNodes(pb.WatchNodesRequest(max_nodes=-1), None)
    assert await refused(anext(negative)) == (Code.INVALID_ARGUMENT, ["max_nodes"])


async def test_reconnect_is_logged() -> None:
    nodes = Nodes(streams=3)
    with structlog.testing.capture_logs() as logs:
        response = await nodes.service.ReconnectNode(pb.ReconnectNodeRequest(name="nodes/edge%2F2"), Call())
    assert (response.streams, nodes.reconnected) == (3, ["edge/2"])
    assert [(entry["node"], entry["streams"]) for entry in logs] == [("edge/2", 3)]


async def test_a_node_without_a_stream_cannot_reconnect() -> None:
    nodes = Nodes(streams=0)
    nodes.fleet.apply(0, StreamClosed(), 101)
    call = nodes.service.ReconnectNode(pb.ReconnectNodeRequest(name="nodes/edge-1"), Call())
    assert (await refused(call))[0] is Code.NOT_FOUND


async def test_nothing_is_reported_once_the_control_plane_stops() -> None:
    nodes = Nodes()
    nodes.changed.set(None)
    assert (await refused(nodes.service.ListNodes(pb.ListNodesRequest(), None)))[0] is Code.UNAVAILABLE


async def test_nodes_that_are_not_connected_are_forgotten() -> None:
    nodes = Nodes()
    nodes.fleet.apply(1, StreamClosed(), 103)
    await nodes.service.ForgetNodes(pb.ForgetNodesRequest(names=["nodes/edge%2F2"]), Call())
    assert list(nodes.fleet.nodes) == ["edge-1"]


async def test_all_nodes_of_a_call_are_forgotten_or_none() -> None:
    nodes = Nodes()
    nodes.fleet.apply(1, StreamClosed(), 103)
    for names, code in (
        (["nodes/edge%2F2", "nodes/edge-1"], Code.FAILED_PRECONDITION),
        (["nodes/edge%2F2", "nodes/none"], Code.NOT_FOUND),
        ([], Code.INVALID_ARGUMENT),
        (["nodes/edge%2F2"] * 1_001, Code.INVALID_ARGUMENT),
    ):
        assert (await refused(nodes.service.ForgetNodes(pb.ForgetNodesRequest(names=names), Call())))[0] is code
    assert set(nodes.fleet.nodes) == {"edge-1", "edge/2"}


async def test_only_nodes_that_are_held_back_are_adopted_and_all_or_none() -> None:
    nodes = Nodes()
    (stream,) = nodes.fleet.streams_of("edge-1")
    nodes.fleet.apply(stream, HeldBack(nodes.fleet.revision, ((ROUTES, "a"),)), 101.0)
    (node,) = (n for n in (await nodes.service.ListNodes(pb.ListNodesRequest(), None)).nodes if n.id == "edge-1")
    assert node.note == "held back: it holds configuration of another history, and would lose model a"
    assert node.held_back
    for names, code in ((["nodes/edge-1", "nodes/edge%2F2"], Code.FAILED_PRECONDITION), ([], Code.INVALID_ARGUMENT)):
        assert (await refused(nodes.service.AdoptNodes(pb.AdoptNodesRequest(names=names), Call())))[0] is code
    assert (await refused(nodes.service.AdoptNodes(pb.AdoptNodesRequest(names=["nodes/x"]), Call())))[0] is Code.NOT_FOUND
    assert nodes.adopted == []
    response = await nodes.service.AdoptNodes(pb.AdoptNodesRequest(names=["nodes/edge-1"]), Call())
    assert (response.revision, nodes.adopted) == (nodes.fleet.revision, ["edge-1"])


async def test_a_blocked_node_is_disconnected_and_forgotten() -> None:
    nodes = Nodes()
    with structlog.testing.capture_logs() as logs:
        response = await nodes.service.BlockNode(pb.BlockNodeRequest(client="edge/2", reason="stolen"), Call())
    assert list(response.disconnected) == ["nodes/edge%2F2"]
    assert (response.block.client, response.block.reason, response.block.create_time.seconds) == ("edge/2", "stolen", 7)
    assert list(nodes.fleet.nodes) == ["edge-1"]
    assert [(entry["event"], entry["client"]) for entry in logs] == [("client blocked", "edge/2")]
    listed = await nodes.service.ListNodeBlocks(pb.ListNodeBlocksRequest(), Call())
    assert [block.client for block in listed.blocks] == ["edge/2"]
    await nodes.service.UnblockNode(pb.UnblockNodeRequest(client="edge/2"), Call())
    assert not (await nodes.service.ListNodeBlocks(pb.ListNodeBlocksRequest(), Call())).blocks

"""The gRPC service for nodes: the state of the fleet and of each node."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import structlog

from controlplane.access.roles import Permission
from controlplane.access.rules import Target
from controlplane.aio.latest import Latest
from controlplane.api import node_status
from controlplane.api.authorization import authorization
from controlplane.api.convert.node import block_to_proto, node_id_of, node_name, node_to_proto, summary_of
from controlplane.api.csds import Describe
from controlplane.api.drafts import who
from controlplane.api.pages import max_items, page
from controlplane.api.watch import current_fleet, watch
from controlplane.errors import Code, Error, did_you_mean, invalid, not_found
from controlplane.fleet import Fleet, Node
from controlplane.generated.turnout.v1 import node_service_pb2 as pb
from controlplane.generated.turnout.v1 import node_service_pb2_grpc
from controlplane.reconciler.blocks import BlockKeeper

log = structlog.get_logger("fleet")

MAX_NAMES = 1_000  # nodes that one call forgets or adopts

BLOCK_TIMEOUT = 5.0  # time for the streams of a blocked client to end, seconds
BLOCK_LATENCY = 0.1  # time after which events of workers have come, seconds

WATCH_INTERVAL = 0.1  # shortest time between two messages of WatchNodes, seconds


class NodeService(node_service_pb2_grpc.NodeServiceServicer):
    """Reports on the xDS clients that are connected or were connected earlier."""

    def __init__(
        self,
        changed: Latest[Fleet | None],
        reconnect: Callable[[str], Awaitable[int]],
        describe: Describe,
        forget: Callable[[Iterable[str]], Awaitable[None]],
        adopt: Callable[[str], Awaitable[int]],
        blocks: BlockKeeper,
    ) -> None:
        """Make the service.

        `reconnect` closes the streams of a node and returns their number. `describe` returns the status of a node's resources.
        `forget` forgets nodes by id. `adopt` sends the newest revision to a node that is held back.
        `blocks` has the blocked clients.
        """
        self._blocks = blocks
        self._adopt = adopt
        self._forget = forget
        self._changed = changed
        self._reconnect = reconnect
        self._describe = describe

    async def GetNode(self, request: pb.GetNodeRequest, context: Any) -> pb.GetNodeResponse:
        return pb.GetNodeResponse(node=node_to_proto(*self._find(request.name)))

    async def GetNodeStatus(self, request: pb.GetNodeStatusRequest, context: Any) -> pb.GetNodeStatusResponse:
        max_resources = max_items(request.max_resources, "max_resources")
        fleet, node = self._find(request.name)
        status = await node_status.to_proto(
            node_to_proto(fleet, node),
            await self._describe(node.id),
            max_resources,
            include_synced=request.include_synced,
            diffs=not request.exclude_diffs,
        )
        return pb.GetNodeStatusResponse(status=status)

    async def ListNodes(self, request: pb.ListNodesRequest, context: Any) -> pb.ListNodesResponse:
        fleet = current_fleet(self._changed)
        by_name = {node_name(n.id): n for n in fleet.nodes.values()}
        nodes, token = page(by_name, lambda name: node_to_proto(fleet, by_name[name]), request, "nodes")
        return pb.ListNodesResponse(nodes=nodes, next_page_token=token, summary=summary_of(fleet))

    async def WatchNodes(self, request: pb.WatchNodesRequest, context: Any) -> AsyncIterator[pb.WatchNodesResponse]:
        max_nodes = max_items(request.max_nodes, "max_nodes")

        def message_of(fleet: Fleet) -> pb.WatchNodesResponse:
            nodes = [node_to_proto(fleet, n) for n in islice(fleet.unsynced_first(), max_nodes)]
            return pb.WatchNodesResponse(summary=summary_of(fleet), nodes=nodes)

        async for response in watch(self._changed, message_of, WATCH_INTERVAL):
            yield response

    async def ReconnectNode(self, request: pb.ReconnectNodeRequest, context: Any) -> pb.ReconnectNodeResponse:
        node_id = node_id_of(request.name)
        authorization().require(Permission.EDIT, Target(request.name))
        streams = await self._reconnect(node_id)
        if not streams:
            raise Error(Code.NOT_FOUND, "NOT_FOUND", f"{request.name} is not connected", metadata={"name": request.name})
        log.info("node asked to reconnect", node=node_id, streams=streams, **who(context))
        return pb.ReconnectNodeResponse(streams=streams)

    async def ForgetNodes(self, request: pb.ForgetNodesRequest, context: Any) -> pb.ForgetNodesResponse:
        authorization().require(Permission.EDIT, *map(Target, request.names))
        nodes = self._named(request.names)
        for name, node in zip(request.names, nodes, strict=True):
            if node.connected:
                problem = f"{name} is connected, so it can't be forgotten: stop it first"
                raise Error(Code.FAILED_PRECONDITION, "NODE_CONNECTED", problem, metadata={"name": name})
        ids = [node.id for node in nodes]
        await self._forget(ids)
        log.info("nodes forgotten", count=len(ids), nodes=ids[:8], **who(context))
        return pb.ForgetNodesResponse()

    async def AdoptNodes(self, request: pb.AdoptNodesRequest, context: Any) -> pb.AdoptNodesResponse:
        authorization().require(Permission.CUT, *map(Target, request.names))
        nodes = self._named(request.names)
        fleet = current_fleet(self._changed)
        revision = fleet.revision
        for name, node in zip(request.names, nodes, strict=True):
            if node.id not in fleet.held_back:
                problem = f"{name} is not held back, so there is nothing to adopt"
                raise Error(Code.FAILED_PRECONDITION, "NOT_HELD_BACK", problem, metadata={"name": name})
        ids = [node.id for node in nodes]
        await asyncio.gather(*map(self._adopt, ids))
        log.warning("nodes adopted", count=len(ids), nodes=ids[:8], revision=revision, **who(context))
        return pb.AdoptNodesResponse(revision=revision)

    async def BlockNode(self, request: pb.BlockNodeRequest, context: Any) -> pb.BlockNodeResponse:
        authorization().require(Permission.EDIT, Target(node_name(request.client)))
        fleet = current_fleet(self._changed)

        def nodes() -> list[Node]:
            return [n for n in fleet.nodes.values() if request.client in (n.id, n.identity)]

        disconnected = {n.id for n in nodes() if n.connected}
        block = await self._blocks.block(request.client, request.reason, who(context)["author"])
        # Streams of workers end, and events of new ones come, a moment later.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BLOCK_TIMEOUT):
                await asyncio.sleep(BLOCK_LATENCY)
                while connected := [n.id for n in nodes() if n.connected]:
                    disconnected.update(connected)
                    await asyncio.sleep(BLOCK_LATENCY)
        await self._forget([n.id for n in nodes() if not n.connected])
        log.warning("client blocked", client=block.client, reason=block.reason, disconnected=len(disconnected), **who(context))
        names = sorted(map(node_name, disconnected))[:MAX_NAMES]
        return pb.BlockNodeResponse(block=block_to_proto(block), disconnected=names)

    async def UnblockNode(self, request: pb.UnblockNodeRequest, context: Any) -> pb.UnblockNodeResponse:
        authorization().require(Permission.EDIT, Target(node_name(request.client)))
        await self._blocks.unblock(request.client)
        log.warning("client unblocked", client=request.client, **who(context))
        return pb.UnblockNodeResponse()

    async def ListNodeBlocks(self, request: pb.ListNodeBlocksRequest, context: Any) -> pb.ListNodeBlocksResponse:
        by_client = {block.client: block for block in self._blocks.all()}
        blocks, token = page(by_client, lambda client: block_to_proto(by_client[client]), request, "blocks")
        return pb.ListNodeBlocksResponse(blocks=blocks, next_page_token=token)

    def _named(self, names: Sequence[str]) -> list[Node]:
        """Return the nodes that a request names. Errors: INVALID_ARGUMENT, NOT_FOUND."""
        if not 1 <= len(names) <= MAX_NAMES:
            raise invalid("names", f"names {len(names)} nodes: 1 to {MAX_NAMES:,}")
        return [self._find(name)[1] for name in names]

    def _find(self, name: str) -> tuple[Fleet, Node]:
        """Return the fleet and one of its nodes. Errors: INVALID_ARGUMENT, NOT_FOUND."""
        fleet = current_fleet(self._changed)
        node = fleet.nodes.get(node_id_of(name))
        if node is None:
            close = did_you_mean(node_id_of(name), fleet.nodes)
            raise not_found(name, close or "no client with this id is connected or remembered")
        return fleet, node

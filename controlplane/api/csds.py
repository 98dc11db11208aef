"""Envoy's client status discovery service (CSDS): what every node of the fleet holds, for tools that speak it.

One ClientConfig a node that is connected, by id, and in it one GenericXdsConfig a resource:

    version_info      what the node took last; with `last_updated`: when, or by when where that is all that is known
    xds_config        the content of that
    config_status     SYNCED  it is what it should be, and the node has said so
                      STALE   it is not, and the node has not answered yet, or waits for what must come first
                      ERROR   the node refused what it should be
                      NOT_SENT  it holds nothing under the name, and was sent nothing (also when nothing has the name)
    client_status     ACKED, NACKED, REQUESTED or DOES_NOT_EXIST: what the node last said
    error_state       what it refused, since it took nothing else there: version, content, its words, when

Content is left out where the request says so, of secrets always, and where only the version is known.

Bounds. An answer to FetchClientStatus is one message, at most `MAX_BYTES`. On StreamClientStatus an answer to one request
comes in as many messages as it takes to keep each below `PART_BYTES`, whole nodes in each; only a node that alone is larger
makes a larger one. Answers are made in slices, those that are one message at most two at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import grpc
from envoy.admin.v3 import config_dump_shared_pb2
from envoy.config.core.v3 import base_pb2
from envoy.service.status.v3 import csds_pb2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.protobuf.wrappers_pb2 import BytesValue

from controlplane.aio.latest import Latest
from controlplane.aio.time_sliced import time_sliced
from controlplane.api.convert import timestamp
from controlplane.api.matchers import node_test
from controlplane.api.watch import current_fleet
from controlplane.domain import Locality
from controlplane.envoy_types import SENSITIVE
from controlplane.errors import Code, Error
from controlplane.fleet import Fleet, Node
from controlplane.snapshot import Resource
from controlplane.xds.status import ResourceStatus, State, known

Describe = Callable[[str], Awaitable[list[ResourceStatus]]]

SERVICE = csds_pb2.DESCRIPTOR.services_by_name["ClientStatusDiscoveryService"].full_name

MAX_REQUEST = 64 * 1024
MAX_BYTES = 31 * 1024 * 1024
PART_BYTES = 3 * 1024 * 1024

# Answers in one message that are made at a time; others wait.
_AT_A_TIME = 2
# Resources that are put into words, and nodes that are matched, before others are seen to.
_SLICE = 500
_NODES = 100

_CONFIG, _CLIENT = csds_pb2.ConfigStatus, config_dump_shared_pb2.ClientResourceStatus
_CONFIG_STATUS = {
    State.SYNCED: _CONFIG.SYNCED,
    State.SENT: _CONFIG.STALE,
    State.WAITING: _CONFIG.STALE,
    State.REFUSED: _CONFIG.ERROR,
    State.UNASKED: _CONFIG.NOT_SENT,
    State.ABSENT: _CONFIG.NOT_SENT,
}


class ClientStatus:
    """The service. `describe` says what a node holds."""

    def __init__(self, changed: Latest[Fleet | None], describe: Describe) -> None:
        self._changed = changed
        self._describe = describe
        self._turns = asyncio.Semaphore(_AT_A_TIME)

    def handler(self) -> Any:
        """What a gRPC server serves. Messages are bytes on both sides: nodes are serialised one by one."""
        methods = {
            "FetchClientStatus": grpc.unary_unary_rpc_method_handler(self.fetch),
            "StreamClientStatus": grpc.stream_stream_rpc_method_handler(self.stream),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def fetch(self, data: bytes, context: Any) -> bytes:
        """Every node that is asked about, in one message. Errors: INVALID_ARGUMENT; RESOURCE_EXHAUSTED."""
        request = _read(data)
        answer = bytearray()
        async with self._turns:
            async for node in self._nodes(request):
                answer += node
                if len(answer) > MAX_BYTES:
                    raise _too_large(request)
        return bytes(answer)

    async def stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """The same in parts, for each request. Errors: INVALID_ARGUMENT; RESOURCE_EXHAUSTED for one node that is too large."""
        async for data in requests:
            request = _read(data)
            said, part = False, bytearray()
            async for node in self._nodes(request):
                if part and len(part) + len(node) > PART_BYTES:
                    yield bytes(part)
                    said, part = True, bytearray()
                part += node
                if len(part) > MAX_BYTES:
                    raise _too_large(request)
            if part or not said:
                yield bytes(part)

    async def _nodes(self, request: Any) -> AsyncIterator[bytes]:
        """A ClientStatusResponse for each node: one after the other they are one of all of them."""
        meant = node_test(request.node_matchers)
        fleet = current_fleet(self._changed)
        ids: list[str] = []
        every = list(fleet.nodes.values())
        async for some in time_sliced(every[i : i + _NODES] for i in range(0, len(every), _NODES)):
            ids += [n.id for n in some if n.connected and meant(n.id, n.metadata)]
        for node_id in sorted(ids):
            node = fleet.nodes.get(node_id)
            if node is None or not node.connected:
                continue  # it left meanwhile
            statuses = await self._describe(node_id)
            config = bytearray(csds_pb2.ClientConfig(node=_node(node)).SerializeToString())
            async for part in time_sliced(_configs(statuses, not request.exclude_resource_contents)):
                config += part
            yield _response(bytes(config))


def _read(data: bytes) -> Any:
    if len(data) > MAX_REQUEST:
        message = f"the request has {len(data):,} bytes; {MAX_REQUEST:,} are the most"
        raise Error(Code.INVALID_ARGUMENT, "REQUEST_TOO_LARGE", message)
    try:
        return csds_pb2.ClientStatusRequest.FromString(data)
    except DecodeError:
        raise Error(Code.INVALID_ARGUMENT, "MALFORMED", "the message is not a ClientStatusRequest") from None


def _response(config: bytes) -> bytes:
    """A response of one ClientConfig that is serialised already: a message in field 1 is written as bytes there are."""
    response: bytes = BytesValue(value=config).SerializeToString()
    return response


def _too_large(request: Any) -> Error:
    ways = ["name fewer nodes in node_matchers", "ask StreamClientStatus, which answers in parts"]
    if not request.exclude_resource_contents:
        ways.insert(0, "set exclude_resource_contents")
    message = f"the answer is larger than {MAX_BYTES >> 20} MiB: {', or '.join(ways)}"
    return Error(Code.RESOURCE_EXHAUSTED, "ANSWER_TOO_LARGE", message)


def _node(node: Node) -> Any:
    name, _, version = node.user_agent.partition(" ")
    made = base_pb2.Node(id=node.id, cluster=node.cluster, user_agent_name=name, user_agent_version=version)
    made.metadata.update(node.metadata)
    where = node.locality
    if where != Locality():
        made.locality.region, made.locality.zone, made.locality.sub_zone = where.region, where.zone, where.sub_zone
    return made


def _configs(statuses: list[ResourceStatus], contents: bool) -> Iterator[bytes]:
    for i in range(0, len(statuses), _SLICE):
        some = [_config(status, contents) for status in statuses[i : i + _SLICE]]
        yield csds_pb2.ClientConfig(generic_xds_configs=some).SerializeToString()


def _config(status: ResourceStatus, contents: bool) -> Any:
    held, refused = status.held, status.refused
    config = csds_pb2.ClientConfig.GenericXdsConfig(
        type_url=status.type_url,
        name=status.name,
        config_status=_CONFIG_STATUS[status.state],
        client_status=_client_status(status),
    )
    if status.state is State.WAITING and held is None:
        config.config_status = _CONFIG.NOT_SENT
    if held is not None:
        config.version_info = held.version
        if status.time is not None:
            config.last_updated.CopyFrom(timestamp(status.time))
        if contents and (body := _content(held)) is not None:
            config.xds_config.CopyFrom(body)
    if refused is not None:
        config.error_state.details = refused.message
        config.error_state.last_update_attempt.CopyFrom(timestamp(refused.time))
        if refused.content is not None:
            config.error_state.version_info = refused.content.version
            if contents and (body := _content(refused.content)) is not None:
                config.error_state.failed_configuration.CopyFrom(body)
    return config


def _client_status(status: ResourceStatus) -> Any:
    if status.refused is not None:
        return _CLIENT.NACKED
    if status.held is not None:
        return _CLIENT.ACKED
    if status.state is State.ABSENT:
        return _CLIENT.DOES_NOT_EXIST
    return _CLIENT.UNKNOWN if status.state is State.UNASKED else _CLIENT.REQUESTED


def _content(resource: Resource) -> Any:
    """None where it is not to be shown, or not known."""
    if resource.type_url in SENSITIVE or not known(resource):
        return None
    return AnyMessage(type_url=resource.type_url, value=resource.body)

"""Envoy's client status discovery service (CSDS): the resources that each node holds, for tools that speak it.

A response has one ClientConfig for each connected node, sorted by id. It has one GenericXdsConfig for each resource:

| field | content |
|---|---|
| version_info | the version that the node holds; `last_updated` is when it ACKed it, or a later time if that is unknown |
| xds_config | the content of that version |
| config_status SYNCED | the node has ACKed what it should hold |
| config_status STALE | the node should hold something else, and has not answered yet or waits for another resource |
| config_status ERROR | the node has refused what it should hold |
| config_status NOT_SENT | the node holds nothing under the name, and nothing was sent (also if no resource has the name) |
| client_status | ACKED, NACKED, REQUESTED or DOES_NOT_EXIST: the node's last answer |
| error_state | the last refusal, if the node has ACKed nothing since: version, content, the client's error text, time |

The content is left out if the request says so, if only the version is known, and always for secrets.

Bounds: FetchClientStatus answers with one message of at most `MAX_BYTES`. StreamClientStatus divides each answer into messages
of at most `PART_BYTES`. A message contains whole nodes, so a node that is larger has a message of its own. Messages are made
in time slices, and at most two for FetchClientStatus at the same time.
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

MAX_REQUEST = 64 * 1024  # bytes
MAX_BYTES = 31 * 1024 * 1024
PART_BYTES = 3 * 1024 * 1024

# Responses of FetchClientStatus that are made at the same time; further calls wait.
_CONCURRENT_FETCHES = 2
# Resources that are converted, and nodes that are matched, in one time slice.
_RESOURCES_PER_SLICE = 500
_NODES_PER_SLICE = 100

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
    """The service ClientStatusDiscoveryService."""

    def __init__(self, changed: Latest[Fleet | None], describe: Describe) -> None:
        """Make the service. `describe` returns the status of a node's resources."""
        self._changed = changed
        self._describe = describe
        self._fetches = asyncio.Semaphore(_CONCURRENT_FETCHES)

    def handler(self) -> Any:
        """Return the handler for a gRPC server. Messages are bytes on both sides, because nodes are serialised one by one."""
        methods = {
            "FetchClientStatus": grpc.unary_unary_rpc_method_handler(self.fetch),
            "StreamClientStatus": grpc.stream_stream_rpc_method_handler(self.stream),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def fetch(self, data: bytes, context: Any) -> bytes:
        """Return the matching nodes in one message. Errors: INVALID_ARGUMENT; RESOURCE_EXHAUSTED."""
        request = _read(data)
        answer = bytearray()
        async with self._fetches:
            async for node in self._nodes(request):
                answer += node
                if len(answer) > MAX_BYTES:
                    raise _too_large(request)
        return bytes(answer)

    async def stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Yield the matching nodes of each request in parts. Errors: INVALID_ARGUMENT; RESOURCE_EXHAUSTED by one node."""
        async for data in requests:
            request = _read(data)
            answered, part = False, bytearray()
            async for node in self._nodes(request):
                if part and len(part) + len(node) > PART_BYTES:
                    yield bytes(part)
                    answered, part = True, bytearray()
                part += node
                if len(part) > MAX_BYTES:
                    raise _too_large(request)
            if part or not answered:
                yield bytes(part)

    async def _nodes(self, request: Any) -> AsyncIterator[bytes]:
        """Yield a serialised ClientStatusResponse for each matching node. Concatenated, they are one response."""
        matches = node_test(request.node_matchers)
        fleet = current_fleet(self._changed)
        ids: list[str] = []
        nodes = list(fleet.nodes.values())
        async for chunk in time_sliced(nodes[i : i + _NODES_PER_SLICE] for i in range(0, len(nodes), _NODES_PER_SLICE)):
            ids += [n.id for n in chunk if n.connected and matches(n.id, n.metadata)]
        for node_id in sorted(ids):
            node = fleet.nodes.get(node_id)
            if node is None or not node.connected:
                continue  # it disconnected meanwhile
            statuses = await self._describe(node_id)
            config = bytearray(csds_pb2.ClientConfig(node=_node(node)).SerializeToString())
            async for part in time_sliced(_configs(statuses, not request.exclude_resource_contents)):
                config += part
            yield _response(bytes(config))


def _read(data: bytes) -> Any:
    """Return the parsed request. Errors: INVALID_ARGUMENT."""
    if len(data) > MAX_REQUEST:
        message = f"the request has {len(data):,} bytes; the maximum is {MAX_REQUEST:,}"
        raise Error(Code.INVALID_ARGUMENT, "REQUEST_TOO_LARGE", message)
    try:
        return csds_pb2.ClientStatusRequest.FromString(data)
    except DecodeError:
        raise Error(Code.INVALID_ARGUMENT, "MALFORMED", "the message is not a ClientStatusRequest") from None


def _response(config: bytes) -> bytes:
    """Return a serialised response with one serialised ClientConfig. On the wire, a message in field 1 looks like bytes."""
    response: bytes = BytesValue(value=config).SerializeToString()
    return response


def _too_large(request: Any) -> Error:
    """Return the error for a response that is too large. Its text says what to do."""
    remedies = ["name fewer nodes in node_matchers", "ask StreamClientStatus, which answers in parts"]
    if not request.exclude_resource_contents:
        remedies.insert(0, "set exclude_resource_contents")
    message = f"the answer is larger than {MAX_BYTES >> 20} MiB: {', or '.join(remedies)}"
    return Error(Code.RESOURCE_EXHAUSTED, "ANSWER_TOO_LARGE", message)


def _node(node: Node) -> Any:
    """Return a node as it identified itself."""
    name, _, version = node.user_agent.partition(" ")
    proto = base_pb2.Node(id=node.id, cluster=node.cluster, user_agent_name=name, user_agent_version=version)
    proto.metadata.update(node.metadata)
    locality = node.locality
    if locality != Locality():
        proto.locality.region, proto.locality.zone = locality.region, locality.zone
        proto.locality.sub_zone = locality.sub_zone
    return proto


def _configs(statuses: list[ResourceStatus], contents: bool) -> Iterator[bytes]:
    """Yield parts of a serialised ClientConfig with the statuses of resources."""
    for i in range(0, len(statuses), _RESOURCES_PER_SLICE):
        configs = [_config(status, contents) for status in statuses[i : i + _RESOURCES_PER_SLICE]]
        yield csds_pb2.ClientConfig(generic_xds_configs=configs).SerializeToString()


def _config(status: ResourceStatus, contents: bool) -> Any:
    """Return the status of one resource."""
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
        if contents and (content := _content(held)) is not None:
            config.xds_config.CopyFrom(content)
    if refused is not None:
        config.error_state.details = refused.message
        config.error_state.last_update_attempt.CopyFrom(timestamp(refused.time))
        if refused.content is not None:
            config.error_state.version_info = refused.content.version
            if contents and (content := _content(refused.content)) is not None:
                config.error_state.failed_configuration.CopyFrom(content)
    return config


def _client_status(status: ResourceStatus) -> Any:
    """Return the last answer of the client about a resource."""
    if status.refused is not None:
        return _CLIENT.NACKED
    if status.held is not None:
        return _CLIENT.ACKED
    if status.state is State.ABSENT:
        return _CLIENT.DOES_NOT_EXIST
    return _CLIENT.UNKNOWN if status.state is State.UNASKED else _CLIENT.REQUESTED


def _content(resource: Resource) -> Any:
    """Return the content of a resource; None if it is secret or unknown."""
    if resource.type_url in SENSITIVE or not known(resource):
        return None
    return AnyMessage(type_url=resource.type_url, value=resource.body)

"""A transport without sockets, which records the messages of a pump, and helpers to act as a client that ACKs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from envoy.service.discovery.v3 import discovery_pb2

from controlplane.aio.latest import Latest
from controlplane.compiler import Compiler
from controlplane.domain import Model
from controlplane.domain.revision import Head
from controlplane.domain.state import Changes, State
from controlplane.http2.grpc_status import Status
from controlplane.http2.handler import StreamHandler
from controlplane.http2.peer import Peer
from controlplane.published import CompiledRevision
from controlplane.xds.events import StreamEvent, StreamId
from controlplane.xds_server.discovery import Discovery
from controlplane.xds_server.limits import StreamLimits
from controlplane.xds_server.pump import Pump
from controlplane.xds_server.variants import DELTA
from tests.xds_server.rig import BLUE, GATEWAY


class FakeTransport:
    """The transport of one stream."""

    def __init__(self) -> None:
        self.handler: StreamHandler | None = None
        # While false, the client takes no messages.
        self.has_room = True
        self.messages: list[bytes] = []
        self.resumed = 0
        self.statuses: list[Status | None] = []

    def notify(self) -> None:
        """Take the pump's messages while there is room."""
        assert self.handler is not None
        while self.has_room and (message := self.handler.next_message()) is not None:
            self.messages.append(message)

    def resume_reading(self) -> None:
        """Count the calls."""
        self.resumed += 1

    def later(self, work: Callable[[], None]) -> None:
        """Call `work` in another turn of the event loop."""
        asyncio.get_running_loop().call_soon(work)

    def end(self, status: Status | None) -> None:
        """Keep the status."""
        self.statuses.append(status)

    def responses(self) -> list[Any]:
        """Return the responses since the last call."""
        messages, self.messages = self.messages, []
        return [discovery_pb2.DeltaDiscoveryResponse.FromString(message) for message in messages]


def request(type_url: str, *names: str, node: str = "", nonce: str = "") -> bytes:
    """Return a delta request."""
    message = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, response_nonce=nonce, resource_names_subscribe=names)
    if node:
        message.node.id = node
        message.node.client_features.append("xds.config.supports-resource-ttl")
    return bytes(message.SerializeToString())


class Rig:
    """A discovery service without sockets."""

    def __init__(self, limits: StreamLimits | None = None) -> None:
        state = State().applied(Changes({o.resource_name: o for o in (GATEWAY, BLUE)}))
        self.published: Latest[CompiledRevision | None] = Latest(CompiledRevision(Head(1, state), Compiler()))
        self.events: list[tuple[StreamId, StreamEvent]] = []
        self.discovery = Discovery(self.published, lambda stream, event: self.events.append((stream, event)), limits)

    def open(self, type_url: str = "", peer: str = "127.0.0.1:1") -> tuple[Pump, FakeTransport]:
        """Open a delta stream."""
        transport = FakeTransport()
        pump = self.discovery.open(DELTA, type_url, Peer(peer), transport)
        transport.handler = pump
        return pump, transport

    def publish(self, model: Model) -> int:
        """Publish a revision with this model, without pushing it."""
        old = self.published.value
        assert old is not None
        state = old.head.state.applied(Changes({model.resource_name: model}))
        new = old.next(Head(old.revision + 1, state))
        self.published.set(new)
        return new.revision

    def kinds(self, stream: StreamId = 1) -> list[str]:
        """Return the kinds of a stream's events since the last call."""
        kinds = [type(event).__name__ for number, event in self.events if number == stream]
        self.events = [(number, event) for number, event in self.events if number != stream]
        return kinds


def settle(pump: Pump, transport: FakeTransport, check: Callable[[Any], None] = lambda _: None) -> list[str]:
    """ACK responses until there are none, and return their types."""
    types: list[str] = []
    while responses := transport.responses():
        for response in responses:
            check(response)
            types.append(response.type_url)
            pump.receive_message(request(response.type_url, nonce=response.nonce))
    return types

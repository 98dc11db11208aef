"""One xDS stream: a pump between the transport of a client and the protocol core of its stream.

Requests go into the core, and the core's responses go to the transport when it has room for them. A core is offered only the
newest revision. So a client that does not read costs only its own stream: nothing queues for it.

One of these things happens to a stream. Each calls the core once:

    the client sends a request       `receive`; then the node's other streams `reconsider`
    a newer revision is published    `offer`
    another stream made progress     `reconsider`
    enough time has passed           `assume_complete`; after a NACK `retry_in_parts`; before a TTL ends `heartbeat`

There are no tasks and nothing is awaited. `http2/handler.py` has the contract between pump and transport. Messages are bytes
in both directions: the cores serialise responses, and a request that can't be parsed ends the stream with a status.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import structlog
from google.protobuf.message import DecodeError

from controlplane.domain import Gateway
from controlplane.errors import Code, Error
from controlplane.http2.grpc_status import Status
from controlplane.http2.handler import Transport
from controlplane.http2.peer import Peer
from controlplane.published import PublishedRevision
from controlplane.snapshot import Audience, Client
from controlplane.xds.events import AudienceAssigned, Event, Held, Identified, LastMessage, Refused, StreamClosed, StreamId
from controlplane.xds.memo import MemoisedStream
from controlplane.xds_server import duplicate_node_id, variants
from controlplane.xds_server.access import EXPIRED_STATUS, seconds_left
from controlplane.xds_server.context import PumpContext
from controlplane.xds_server.node_streams import NodeRegistry, NodeStreams
from controlplane.xds_server.push_schedule import SLOW_PUSH
from controlplane.xds_server.reading_budget import ReadingBudget
from controlplane.xds_server.request_sizes import check_fields
from controlplane.xds_server.send_queue import SendQueue
from controlplane.xds_server.status import XdsHandler
from controlplane.xds_server.stream_timers import StreamTimers
from controlplane.xds_server.variants import Variant

log = structlog.get_logger("xds")

# Within this time of its first request, a returning client has sent what it holds, on all its streams. Seconds.
RETURN_TIMEOUT = 2.0

# A client that has half-closed its stream has this long to take the messages that wait for it. Seconds.
DRAIN_TIMEOUT = 10.0


class Pump(XdsHandler):
    """One xDS stream of a client."""

    __slots__ = (
        "__weakref__",
        "_address",
        "_assigned",
        "_audience",
        "_budget",
        "_clock",
        "_context",
        "_gateways",
        "_half_closed",
        "_has_duplicate",
        "_node",
        "_nodes",
        "_parts",
        "_pause",
        "_pausing",
        "_published",
        "_queue",
        "_report",
        "_retry",
        "_sent",
        "_stream",
        "_timers",
        "_transport",
        "_variant",
        "client",
        "core",
        "deprioritised",
        "host",
        "last_message_time",
        "offered",
        "peer",
        "reading",
    )

    def __init__(
        self,
        context: PumpContext,
        nodes: NodeRegistry,
        stream: StreamId,
        variant: Variant,
        core: MemoisedStream,
        peer: Peer,
        transport: Transport,
    ) -> None:
        super().__init__()
        self._context, self._nodes, self._stream, self._variant, self._transport = context, nodes, stream, variant, transport
        self._report = context.report
        self._published = context.published
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        limits = context.limits
        self.core = core
        # False while the client must wait, because it has used too much time or takes no messages.
        self.reading = True
        # True when the newest push took long or sent nothing. Then the next push to this stream comes after the other streams.
        self.deprioritised = False
        # A message was sent since the newest push began.
        self._sent = False
        # The revision that was offered last; None before the first one.
        self.offered: PublishedRevision | None = None
        # All streams of the node, this one included; None until the first request.
        self._node: NodeStreams | None = None
        # None until the first request: nothing is offered before.
        self.client: Identified | None = None
        # None until the first offer. `_gateways` are the gateways from which it was computed.
        self._audience: Audience | None = None
        self._gateways: Mapping[str, Gateway] = {}
        # The audience that was reported last; None before the first one.
        self._assigned: AudienceAssigned | None = None
        # The client's address if this is a stream of ADS; else "". `host` is the address without the port, if the client is
        # also an Envoy; else "".
        self.peer = peer
        self._address = peer.address if not core.type_url else ""
        self.host = ""
        # True once another Envoy with the same node id is confirmed.
        self._has_duplicate = False
        # The time of the last message, by the event loop's clock; 0 once it was reported.
        self.last_message_time = 0.0
        self._budget = ReadingBudget()
        # Parts of the newest request that are not processed yet.
        self._parts: list[Any] = []
        self._queue = SendQueue()
        self._half_closed = False
        # Ends a pause, after which the stream waits for its turn; `_pausing` is True until it has it.
        self._pause: asyncio.TimerHandle | None = None
        self._pausing = False
        # Sends refused resources again in parts; None while none is refused.
        self._retry: asyncio.TimerHandle | None = None
        self._timers = StreamTimers(loop)
        self._timers.after(limits.first_request_timeout, self._guarded, self._check_first_request)
        if limits.max_stream_age:
            self._timers.after(limits.max_stream_age * random.uniform(0.9, 1.1), self._guarded, self.end)
        if peer.credential is not None:
            self._timers.after(seconds_left(peer.credential), self._guarded, self.end, EXPIRED_STATUS)

    # ------------------------------------------------------------------------------------------------ for the transport

    def half_closed(self) -> None:
        """End the stream once the client has taken all messages: it sends no more requests."""
        if not self.ended and not self._half_closed:
            self._half_closed = True
            self._timers.after(DRAIN_TIMEOUT, self._guarded, self.end)
            self._transport.notify()

    def next_message(self) -> bytes | None:
        """Return the next message for the client; None when there is none. Called when the one before has been sent."""
        queue = self._queue
        message = queue.take() if queue.messages else None
        if message is None:
            if self._half_closed:
                self.end()
        elif not self.reading and not queue.full:
            # In another turn of the event loop, because reading may lead to a message while this one is being sent.
            asyncio.get_running_loop().call_soon(self._guarded, self._continue_reading)
        return message

    def end(self, status: Status | None = None) -> None:
        """End the stream; None is OK. The transport calls it, too, when the client is gone."""
        if self.ended:
            return
        self.ended, self.reading = True, False
        self._timers.cancel()
        for handle in (self._pause, self._retry):
            if handle is not None:
                handle.cancel()
        self._queue.clear()
        self._parts.clear()
        if self._node is not None:
            self._nodes.leave(self, self._node)
        if self.last_message_time and self.client is not None:
            self._report(self._stream, LastMessage(self._clock() - self.last_message_time))
        self._context.on_end(self._stream)
        self._report(self._stream, StreamClosed())
        self._transport.end(status)

    # ------------------------------------------------------------------------------------------------- for the server

    def push(self, now: float) -> float:
        """Offer the newest revision to the client at `now`. Return the time after it."""
        if self.ended:  # the same as `_guarded`, without its call: other clients wait for this one's push to end
            return now
        self._sent = False
        try:
            if self.core.coordination is None:  # the usual case: the node has no other stream
                self._offer()
            else:
                self._coordinated(self._offer)
        except Exception as error:  # noqa: BLE001  `status_of` logs it
            self.fail(error)
        end = self._clock()
        self.deprioritised = not self._sent or end - now > SLOW_PUSH
        return end

    def heartbeat(self, now: float) -> float:
        """Extend the TTLs of the client's resources at `now`. Return the time after it."""
        self._guarded(self.core.heartbeat)
        self._guarded(self._apply, ())
        return self._clock()

    def reconsider(self, *, adopt: bool = False) -> None:
        """Send the responses that waited for another stream of the node; with `adopt`, those to a client that is held back."""
        self._guarded(lambda: self._apply(self.core.adopt() if adopt else self.core.reconsider()))

    # -------------------------------------------------------------------------------------------------------- requests

    def _receive(self, data: bytes) -> None:
        start = self.last_message_time = self._clock()
        core = self.core
        core.now = start
        if (events := core.recall(data)) is not None:
            # The usual case: another stream in the same state has sent the same request, and the result is known.
            self._apply(events)
        else:
            self._receive_new(data, start)
        pause = self._budget.pause_after(start, self._clock())
        if pause is not None or self._parts or (self._queue.messages and self._queue.full):
            self._pause_reading(pause or 0.0)

    def _receive_new(self, data: bytes, start: float) -> None:
        """Parse a request, and pass it to the core. Errors: INVALID_ARGUMENT, RESOURCE_EXHAUSTED, PERMISSION_DENIED."""
        variant, limits = self._variant, self._context.limits
        try:
            check_fields(data, variant.name_fields, limits.names_per_stream)
            request = variant.parse(data)
        except DecodeError:
            raise Error(Code.INVALID_ARGUMENT, "NOT_A_REQUEST", "the message is not a discovery request") from None
        name_count = variant.count_names(request)
        limits.check_names(name_count)
        if self._node is None:
            self._context.check_node(self._stream, self.peer, request.node)
            self._node = self._nodes.join(self, request.node)
        if name_count > variants.NAMES_PER_PART:
            request, *self._parts = variant.divide(request)
        self._pass_to_core(request, name_count, b"" if self._parts else data, start)

    def _pass_to_core(self, request: Any, name_count: int, data: bytes, now: float) -> None:
        """Pass a request, or a part of one, to the core. `data` are the bytes of a whole request, b"" for a part.

        Errors: INVALID_ARGUMENT; RESOURCE_EXHAUSTED when the stream is subscribed to too many names.
        """
        node = self._node
        assert node is not None, "the first request joins a node"
        if self.core.coordination is not None:
            node.before_offer()
        self.core.now = now
        self._apply(self.core.receive(request, data))
        if name_count:
            self._context.limits.check_names(self.core.name_count)
        if self.core.coordination is not None and not self.ended:
            node.after_request(self)

    def _pause_reading(self, seconds: float) -> None:
        if self.ended:
            return
        self._budget.start_slice()
        self.reading, self._pausing = False, True
        turn = partial(self._guarded, self._continue_reading, True)
        if seconds:
            self._pause = asyncio.get_running_loop().call_later(seconds, self._transport.later, turn)
        else:
            self._transport.later(turn)

    def _continue_reading(self, pause_is_over: bool = False) -> None:
        """Process the next part of a request, or read again, unless the stream must still wait."""
        if pause_is_over:
            self._pausing = False
        # One of three things happens: the stream waits for the end of a pause or for the client to take messages, it processes
        # a part and pauses, or it reads again.
        if self.reading or self._queue.full or self._pausing:
            return
        if self._parts:
            start = self._clock()
            self._pass_to_core(self._parts.pop(0), variants.NAMES_PER_PART, b"", start)
            self._pause_reading(self._budget.pause_after(start, self._clock()) or 0.0)
        else:
            self.reading = True
            self._transport.resume_reading()

    # ------------------------------------------------------------------------------------------------------- responses

    def _coordinated(self, work: Callable[[], None]) -> None:
        """Do work that may send something, together with the node's other streams when there are any."""
        node = self._node
        if node is None or self.core.coordination is None:
            work()
            return
        node.before_offer()
        work()
        node.after_offer()

    def _offer(self) -> None:
        """Offer the newest revision to the core, and report the audience when it changed."""
        published, client = self._published.value, self.client
        if published is None or client is None:
            return
        audience = self._audience
        if audience is None or published.gateways is not self._gateways:
            audience = self._audience = published.audience(client)
            self._gateways = published.gateways
        snapshot = published.snapshot(audience)
        if snapshot is None:
            return
        self.offered, note = published, published.note(audience)
        if self._has_duplicate and self._node is not None and (other := self._node.other_host(self)):
            warning = duplicate_node_id.warning(self.host, other)
            note = f"{warning}; {note}" if note else warning
        assigned = self._assigned
        if assigned is None or assigned.note != note or (assigned.audience is not audience and assigned.audience != audience):
            self._assigned = AudienceAssigned(audience, note)
            self._report(self._stream, self._assigned)
        self._apply(self.core.offer(snapshot))

    def _assume_complete(self) -> None:
        self._coordinated(lambda: self._apply(self.core.assume_complete()))

    def _retry_in_parts(self) -> None:
        self._retry = None
        self._coordinated(lambda: self._apply(self.core.retry_in_parts()))

    def _apply(self, events: Iterable[Event]) -> None:
        """Report the core's events, and send its responses."""
        for event in events:
            self._report(self._stream, event)
            if type(event) is Held:  # the usual case
                continue
            if isinstance(event, Identified):
                self._on_identified(event)
            elif isinstance(event, Refused) and self._retry is None:
                loop, delay = asyncio.get_running_loop(), self._context.limits.nack_retry_delay
                self._retry = loop.call_later(delay, self._guarded, self._retry_in_parts)
        if messages := self.core.to_send():
            self._sent = True
            self._queue.put(messages)
            self._transport.notify()

    # ------------------------------------------------------------------------------------------------------ the client

    def _check_first_request(self) -> None:
        if self._node is None:
            message = f"no request came within {self._context.limits.first_request_timeout:g} s after the stream was opened"
            raise Error(Code.FAILED_PRECONDITION, "NOTHING_ASKED", message)

    def _on_identified(self, client: Identified) -> None:
        self.client = client
        self._timers.after(RETURN_TIMEOUT, self._guarded, self._assume_complete)
        self._offer()
        if self._address and self._audience is not None and self._audience.client is Client.ENVOY:
            self.host = duplicate_node_id.host_of(self._address)
            if self._node is not None and self._node.other_host(self):
                self._timers.after(duplicate_node_id.CONFIRM_AFTER, self._guarded, self._confirm_duplicate)

    def _confirm_duplicate(self) -> None:
        """Warn of another Envoy with the same node id, if it is still connected."""
        node = self._node
        if node is not None and (other := node.other_host(self)):
            if not node.duplicate_logged:  # one line a node, and not one for each of its streams
                log.warning("two Envoys use one node id", node=node.id, addresses=[self.host, other])
                node.duplicate_logged = True
            self._has_duplicate = True
            self._coordinated(self._offer)

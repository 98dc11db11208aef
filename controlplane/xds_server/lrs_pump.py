"""One stream of load reports (LRS): a pump like that of an xDS stream, with the same transports.

It is simpler: the server sends only in answer to a report, and a newer answer replaces an older one that was not sent yet.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable

from envoy.service.load_stats.v3 import lrs_pb2
from google.protobuf.message import DecodeError

from controlplane.envoy_types import CLUSTER
from controlplane.errors import Code, Error
from controlplane.http2.grpc_status import Status
from controlplane.http2.handler import Transport
from controlplane.http2.peer import Peer
from controlplane.xds.events import Identified, StreamClosed, StreamId
from controlplane.xds.lrs import LoadStream, pace
from controlplane.xds_server.access import EXPIRED_STATUS, seconds_left
from controlplane.xds_server.budget import Budget
from controlplane.xds_server.context import PumpContext
from controlplane.xds_server.status import XdsHandler
from controlplane.xds_server.stream_timers import StreamTimers

# A worker process may not have a client's snapshot yet. It tries again after this time. Seconds.
_SNAPSHOT_RETRY = 0.1

# Largest report, bytes: 10,000 clusters of 200 bytes. A hostile one takes a hundred times its size when it is parsed.
_MAX_REPORT = 2 * 1024 * 1024

SERVICE, METHOD = "envoy.service.load_stats.v3.LoadReportingService", "StreamLoadStats"
LOAD_REPORTS = f"/{SERVICE}/{METHOD}"


class ReporterCounts:
    """The number of open streams of load reports, in all and by node."""

    def __init__(self) -> None:
        self.total = 0
        # By identity, None without TLS, and node id: one identity's streams do not count against another's.
        self._by_node: Counter[tuple[str | None, str]] = Counter()

    def of(self, identity: str | None, node_id: str) -> int:
        """Return how many streams of a node are open with an identity."""
        return self._by_node.get((identity, node_id), 0)

    def open(self) -> None:
        """Count a new stream. Its node is not known yet."""
        self.total += 1

    def identify(self, identity: str | None, node_id: str) -> None:
        """Count an open stream as one of this node."""
        self._by_node[identity, node_id] += 1

    def close(self, identity: str | None, node_id: str) -> None:
        """Stop counting a stream. `node_id` is "" if its node never became known."""
        self.total -= 1
        if node_id:
            self._by_node[identity, node_id] -= 1
            if not self._by_node[identity, node_id]:
                del self._by_node[identity, node_id]


class LoadPump(XdsHandler):
    """One stream of load reports of a client."""

    def __init__(
        self, context: PumpContext, reporters: ReporterCounts, stream: StreamId, peer: Peer, transport: Transport
    ) -> None:
        super().__init__()
        self.peer = peer
        # False during a pause, because the client has used too much time.
        self.reading = True
        self._context, self._reporters, self._stream, self._transport = context, reporters, stream, transport
        self._core = LoadStream()
        # "" until the first request.
        self._node_id = ""
        # The answer that the client has not taken yet.
        self._answer: bytes | None = None
        self._half_closed = False
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        self._budget = Budget()
        # Continues reading; None while no pause is set.
        self._pause: asyncio.TimerHandle | None = None
        # Looks for the client's snapshot again; None while the pump does not wait for it.
        self._snapshot_retry: asyncio.TimerHandle | None = None
        self._timers = StreamTimers(loop)
        limits = context.limits
        self._timers.after(limits.first_request_timeout, self._guarded, self._check_first_request)
        if limits.max_stream_age:
            self._timers.after(limits.max_stream_age * random.uniform(0.9, 1.1), self._guarded, self.end)
        if peer.credential is not None:
            self._timers.after(seconds_left(peer.credential), self._guarded, self.end, EXPIRED_STATUS)
        reporters.open()

    @property
    def client(self) -> Identified | None:
        """Return the client; None before its first report."""
        return self._core.client

    def half_closed(self) -> None:
        """End the stream once the client has taken its answer: it sends no more reports."""
        self._half_closed = True
        self._transport.notify()

    def next_message(self) -> bytes | None:
        """Return the next message for the client; None when there is none."""
        message, self._answer = self._answer, None
        if message is None and self._half_closed:
            self.end()
        return message

    def end(self, status: Status | None = None) -> None:
        """End the stream; None is OK. The transport calls it, too, when the client is gone."""
        if self.ended:
            return
        self.ended, self.reading = True, False
        self._timers.cancel()
        for handle in (self._pause, self._snapshot_retry):
            if handle is not None:
                handle.cancel()
        self._reporters.close(self.peer.identity, self._node_id)
        self._context.on_end(self._stream)
        self._context.report(self._stream, StreamClosed())
        self._transport.end(status)

    def _receive(self, data: bytes) -> None:
        start = self._clock()
        if len(data) > _MAX_REPORT:
            message = f"the report has {len(data)} bytes; the largest allowed has {_MAX_REPORT}"
            raise Error(Code.RESOURCE_EXHAUSTED, "REPORT_TOO_LARGE", message)
        try:
            request = lrs_pb2.LoadStatsRequest.FromString(data)
        except DecodeError:
            raise Error(Code.INVALID_ARGUMENT, "NOT_A_REPORT", "the message is not a load report") from None
        if not self._node_id:
            self._context.check_node(self._stream, self.peer, request.node)
            self._context.limits.admit(request.node, self._reporters.of(self.peer.identity, request.node.id))
            self._node_id = request.node.id
            self._reporters.identify(self.peer.identity, self._node_id)
        for event in self._core.receive(request, len(data)):
            self._context.report(self._stream, event)
        self._send_answer()
        now = self._clock()
        if pause := self._budget.spend(now - start, now):
            self.reading = False
            self._pause = asyncio.get_running_loop().call_later(pause, self._guarded, self._resume_reading)

    def _resume_reading(self) -> None:
        self._pause = None
        self.reading = True
        self._transport.resume_reading()

    def _send_answer(self) -> None:
        """Tell the client how often to report, and about which clusters, when that has changed."""
        if self._snapshot_retry is not None:
            self._snapshot_retry.cancel()
            self._snapshot_retry = None
        names = self._cluster_names()
        if names is None:
            self._snapshot_retry = asyncio.get_running_loop().call_later(_SNAPSHOT_RETRY, self._guarded, self._send_answer)
            return
        limits = self._context.limits
        core = self._core
        core.ask(pace(self._reporters.total, core.size, core.length, limits.load_report_interval), names)
        if messages := self._core.to_send():
            self._answer = messages[-1]
            self._transport.notify()

    def _cluster_names(self) -> Iterable[str] | None:
        """Return the clusters to report, by name; none for a client that reports all anyway; None while it has no snapshot."""
        published, client = self._context.published.value, self._core.client
        if self._core.sends_all or published is None or client is None:
            return ()
        snapshot = published.snapshot(published.audience(client))
        return None if snapshot is None else snapshot.resources[CLUSTER]

    def _check_first_request(self) -> None:
        if not self._node_id:
            message = f"no report came within {self._context.limits.first_request_timeout:g} s after the stream was opened"
            raise Error(Code.FAILED_PRECONDITION, "NOTHING_ASKED", message)

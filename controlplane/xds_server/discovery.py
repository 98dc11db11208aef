"""The xDS services and their open streams, for both transports (`grpc_transport.py`, `http2/transport.py`).

All services have both variants, and all streams have the same kind of pump (`pump.py`). A stream of ADS has every type, and a
stream of another service has one type (`envoy_types.py`). The compiler does not make some types: extension configurations,
virtual hosts, runtime layers. A client that subscribes to them gets the protocol's answer for names that do not exist.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Callable
from typing import Any

from controlplane.aio.latest import Newest
from controlplane.aio.time_sliced import time_sliced
from controlplane.aio.wall_clock import WallClock
from controlplane.envoy_types import TABLE
from controlplane.errors import Code, Error
from controlplane.http2.handler import Open, StreamHandler, Transport
from controlplane.http2.peer import Peer
from controlplane.published import PublishedRevision
from controlplane.xds.context import Context
from controlplane.xds.events import AccessRefused, StreamEvent, StreamId, StreamOpened
from controlplane.xds.memo import MemoisedStream, TransitionMemo
from controlplane.xds.status import ResourceStatus, merged, statuses
from controlplane.xds_server.access import Access
from controlplane.xds_server.context import PumpContext
from controlplane.xds_server.last_messages import report_last_messages
from controlplane.xds_server.limits import StreamLimits
from controlplane.xds_server.lrs_pump import LOAD_REPORTS, LoadPump, ReporterCounts
from controlplane.xds_server.node_streams import NodeRegistry
from controlplane.xds_server.pump import Pump
from controlplane.xds_server.pusher import Pusher
from controlplane.xds_server.variants import DELTA, SOTW, Variant

# (service, stem of its methods' names, the type of its streams; "" for ADS, whose streams have all types).
SERVICES = (
    ("discovery.v3.AggregatedDiscoveryService", "AggregatedResources", ""),
    *((t.service, t.method_stem, t.url) for t in TABLE),
)

# Error text for Fetch methods, which are not served.
NO_POLLING = "Fetch{stem}: polling is not served; open a stream with Stream{stem} or Delta{stem}"


# By the reason of an error: the cause in the log and in the metric.
_CAUSES = {"NOT_YOUR_CLAIM": "claim", "NO_IDENTITY": "certificate", "BLOCKED": "blocked"}


class Discovery:
    """The xDS services and the service of load reports, with their open streams. `report` gets the events of the streams."""

    def __init__(
        self,
        published: Newest[PublishedRevision | None],
        report: Callable[[StreamId, StreamEvent], None],
        limits: StreamLimits | None = None,
        context: Context | None = None,
        problem: Callable[[], str] = lambda: "",
        access: Access | None = None,
    ) -> None:
        """`problem` returns the reason why no revision is published; "" if it is not known."""
        self._problem = problem
        limits = limits or StreamLimits()
        # Shared by the cores of all streams.
        self._memo = TransitionMemo(context)
        self._access = access or Access()
        self._context = PumpContext(published, report, limits, self._forget, self._check_node)
        self._stream_ids = itertools.count(1)
        self._pumps: dict[StreamId, Pump] = {}
        self._nodes = NodeRegistry(limits)
        self._load_pumps: dict[StreamId, LoadPump] = {}
        self._reporters = ReporterCounts()
        self._wall_clock = WallClock()
        self._closing = False
        self.pusher = Pusher(published, self._pumps, limits.resource_ttl)

    def methods(self) -> dict[str, Open]:
        """Return the function that opens a stream of each method, by path."""
        opens: dict[str, Open] = {LOAD_REPORTS: self.open_load}
        for service, stem, type_url in SERVICES:
            opens[f"/envoy.service.{service}/Delta{stem}"] = functools.partial(self.open, DELTA, type_url)
            opens[f"/envoy.service.{service}/Stream{stem}"] = functools.partial(self.open, SOTW, type_url)
        return opens

    def open(self, variant: Variant, type_url: str, peer: Peer, transport: Transport) -> Pump:
        """Open a stream of a type, "" for ADS.

        Errors: UNAVAILABLE before a revision is published, and after `close`; PERMISSION_DENIED.
        """
        stream = self._open_stream(peer, variant.name)
        core = MemoisedStream(variant.core, type_url, self._context.limits.resource_ttl, memo=self._memo)
        pump = self._pumps[stream] = Pump(self._context, self._nodes, stream, variant, core, peer, transport)
        return pump

    def open_load(self, peer: Peer, transport: Transport) -> LoadPump:
        """Open a stream of load reports. Errors: those of `open`."""
        stream = self._open_stream(peer, "load")
        pump = self._load_pumps[stream] = LoadPump(self._context, self._reporters, stream, peer, transport)
        return pump

    async def run(self) -> None:
        """Push each newest revision to all streams, send heartbeats, and report last messages, until cancelled."""
        await asyncio.gather(self.pusher.run(), report_last_messages(self._pumps, self._context.report))

    def reconnect(self, node_id: str) -> int:
        """End the streams of a node with OK, so that it connects again. Return how many there were."""
        streams = self._nodes.get(node_id)
        if streams is None:
            return 0
        count = len(streams)
        streams.end()
        return count

    def adopt(self, node_id: str) -> int:
        """Send the newest revision on the streams of a node that is held back. Return the number of its streams."""
        streams = self._nodes.get(node_id)
        if streams is None:
            return 0
        streams.adopt()
        return len(streams)

    async def describe(self, node_id: str) -> list[ResourceStatus]:
        """Return what a node holds of each resource, compared with what it should; nothing when it has no streams here."""
        streams = self._nodes.get(node_id)
        if streams is None:
            return []
        parts = statuses(streams.cores, self._wall_clock.ahead())
        return merged([part async for part in time_sliced(parts)])

    def close(self) -> None:
        """End every stream with OK, and open no more. Envoys keep what they have, and look for another control plane."""
        self._closing = True
        pumps: list[StreamHandler] = [*self._pumps.values(), *self._load_pumps.values()]
        for pump in pumps:
            pump.end()

    def block(self, clients: frozenset[str]) -> None:
        """Refuse clients with these node ids and identities from now on, and end their streams."""
        self._access.blocked = clients
        self.access_changed()

    def access_changed(self) -> None:
        """End every stream whose client may not have it any more: rules, revoked certificates or blocks have changed."""
        pumps: list[tuple[StreamId, Pump | LoadPump]] = [*self._pumps.items(), *self._load_pumps.items()]
        for stream, pump in pumps:
            try:
                self._access.check_client(pump.peer, pump.client)
            except Error as error:
                self._refused(stream, pump.peer, error)
                pump.fail(error)

    def connection_refused(self, cause: str, address: str, reason: str) -> None:
        """Report a connection that was closed because of what its client did."""
        self._context.report(0, AccessRefused(cause, address, reason[:200]))

    def _check_node(self, stream: StreamId, peer: Peer, node: Any) -> None:
        """Check that a client may claim to be this node. Errors: PERMISSION_DENIED."""
        try:
            authenticated = self._access.check_node(peer.credential, node)
        except Error as error:
            self._refused(stream, peer, error)
            raise
        if authenticated is not None:
            self._context.report(stream, authenticated)

    def _refused(self, stream: StreamId, peer: Peer, error: Error) -> None:
        self._context.report(stream, AccessRefused(_CAUSES[error.reason], peer.address, error.message))

    def _open_stream(self, peer: Peer, kind: str) -> StreamId:
        if self._closing or self._context.published.value is None:
            reason = self._problem()
            waiting = f"can't serve its newest revision: {reason}" if reason else "has not loaded its state yet"
            problem = "is stopping" if self._closing else waiting
            raise Error(Code.UNAVAILABLE, "NOT_SERVING", f"the control plane {problem}; try again")
        try:
            self._access.check_open(peer)
        except Error as error:
            self._refused(0, peer, error)
            raise
        stream = next(self._stream_ids)
        self._context.report(stream, StreamOpened(peer.address, kind))
        return stream

    def _forget(self, stream: StreamId) -> None:
        """Remove a stream that has ended."""
        if self._pumps.pop(stream, None) is None:
            del self._load_pumps[stream]

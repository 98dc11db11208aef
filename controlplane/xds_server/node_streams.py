"""The registry of streams by node, and a clock and a timer for the `Coordination` of each node's streams."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Protocol

from controlplane.http2.peer import Peer
from controlplane.xds.coordination import Coordination
from controlplane.xds.view import StreamView
from controlplane.xds_server import duplicate_node_id
from controlplane.xds_server.limits import StreamLimits


class StreamPump(Protocol):
    """The pump of a stream."""

    @property
    def core(self) -> StreamView: ...

    @property
    def peer(self) -> Peer: ...

    # The client's address without the port, if the stream is an Envoy's over ADS; else "".
    @property
    def host(self) -> str: ...

    def reconsider(self, *, adopt: bool = False) -> None: ...

    def end(self) -> None: ...


class NodeStreams:
    """The open streams of one node."""

    __slots__ = ("_coordination", "_pumps", "_timer", "duplicate_logged", "id")

    def __init__(self, node_id: str, linger: float) -> None:
        self.id = node_id
        # True once the log has a line about another Envoy with the same id.
        self.duplicate_logged = False
        self._coordination = Coordination(linger)
        # In the order in which they opened.
        self._pumps: dict[StreamView, StreamPump] = {}
        # Runs at the next deadline of the coordination; None while no stream waits.
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._pumps)

    @property
    def cores(self) -> tuple[StreamView, ...]:
        """Return the protocol cores of the streams, in the order in which they opened."""
        return tuple(self._pumps)

    def of(self, identity: str | None) -> int:
        """Return how many of the streams have this identity; None is that of clients without TLS."""
        return len(self) if identity is None else sum(pump.peer.identity == identity for pump in self._pumps.values())

    def join(self, pump: StreamPump) -> None:
        """Add a stream."""
        self._pumps[pump.core] = pump
        self._coordination.join(pump.core, _now())

    def leave(self, pump: StreamPump) -> None:
        """Remove a stream that has ended."""
        del self._pumps[pump.core]
        self._coordination.leave(pump.core, _now())
        self._set_timer()

    def end(self) -> None:
        """End every stream with OK. The client opens new ones."""
        for pump in list(self._pumps.values()):
            pump.end()

    def adopt(self) -> None:
        """Send the newest revision on every stream that is held back."""
        self.before_offer()
        for pump in list(self._pumps.values()):
            pump.reconsider(adopt=True)
        self.after_offer()

    def other_host(self, pump: StreamPump) -> str:
        """Return the address of another Envoy that uses this node id; "" when there is none."""
        return duplicate_node_id.other_host(pump, self._pumps.values())

    def before_offer(self) -> None:
        """Set the time of the coordination. Call it before an offer to one of several streams."""
        self._coordination.set_time(_now())

    def after_offer(self) -> None:
        """Set the timer. Call it after an offer to one of several streams: that stream may have to wait for the others."""
        self._set_timer()

    def after_request(self, pump: StreamPump) -> None:
        """Let the other streams reconsider the responses that waited for a request of this one."""
        self._reconsider(self._coordination.after_request(pump.core))

    def _end_wait(self) -> None:
        self._coordination.set_time(_now())
        self._reconsider(self._coordination.take_overdue())

    def _reconsider(self, streams: list[StreamView]) -> None:
        for stream in streams:
            self._pumps[stream].reconsider()
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._coordination.next_deadline if self._pumps else None
        if deadline is not None:
            # A little late, so that the deadline has passed.
            self._timer = asyncio.get_running_loop().call_at(deadline + 0.01, self._end_wait)


class NodeRegistry:
    """The nodes that have open streams."""

    def __init__(self, limits: StreamLimits) -> None:
        self._limits = limits
        # By id. A node is removed with its last stream.
        self._nodes: dict[str, NodeStreams] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def get(self, node_id: str) -> NodeStreams | None:
        """Return the streams of a node; None when it has none."""
        return self._nodes.get(node_id)

    def join(self, pump: StreamPump, node: Any) -> NodeStreams:
        """Add a stream whose first request has this `Node` message. Return the node's streams, this one included.

        Errors: INVALID_ARGUMENT, RESOURCE_EXHAUSTED when the limits do not admit it.
        """
        streams = self._nodes.get(node.id)
        self._limits.admit(node, 0 if streams is None else streams.of(pump.peer.identity))
        if streams is None:
            streams = self._nodes[node.id] = NodeStreams(node.id, self._limits.linger)
        streams.join(pump)
        return streams

    def leave(self, pump: StreamPump, streams: NodeStreams) -> None:
        """Remove a stream that has ended."""
        streams.leave(pump)
        if not streams:
            del self._nodes[streams.id]


def _now() -> float:
    return asyncio.get_running_loop().time()

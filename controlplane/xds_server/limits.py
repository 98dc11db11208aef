"""What one client may take of the server, and how long a connection lives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from controlplane.errors import Code, Error, invalid
from controlplane.xds.coordination import LINGER
from controlplane.xds.lrs import SHORTEST

# Largest request: 100,000 names of resources that a client says it has.
MAX_REQUEST_BYTES = 16 * 1024 * 1024

# Of a client's id, cluster, metadata and locality together. Envoy's list of its extensions, which is not kept, comes on top.
MAX_NODE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Durations are seconds."""

    # Open streams of one node id. An Envoy has one over ADS, and one more for each type that it takes otherwise; gRPC's C core
    # has one for each model that it calls.
    streams_per_node: int = 256
    # Names that one stream may be subscribed to, all types together.
    names_per_stream: int = 200_000
    # About how long a stream lives before the client is asked to open a new one: up to a tenth more or less, so that those
    # that came together leave one by one. 0: for ever.
    max_stream_age: float = 0.0
    # How long a removal waits for the node's other streams to let go.
    linger: float = LINGER
    # Who opens a stream says who it is within this time.
    greeting: float = 15.0
    # How long clients that can do it use a resource without being told that it still holds; they are told three times in it.
    # Whole seconds; 0: for ever.
    resource_ttl: int = 0
    # How long after a refusal what was refused along with others is tried in parts.
    patience: float = 30.0
    # How often clients report their load, where there are few of them.
    load_reports: float = SHORTEST

    def admit(self, node: Any, streams: int) -> None:
        """Whether a client may be served that has this many streams already. Errors: INVALID_ARGUMENT, RESOURCE_EXHAUSTED."""
        if not node.id:
            raise invalid("node.id", "is required on the first request of a stream", "NODE_REQUIRED")
        size = len(node.id) + len(node.cluster) + node.metadata.ByteSize() + node.locality.ByteSize()
        if size > MAX_NODE_BYTES:
            message = f"node: its id, cluster, metadata and locality take {size} bytes, and may take {MAX_NODE_BYTES}"
            raise Error(Code.RESOURCE_EXHAUSTED, "NODE_TOO_LARGE", message)
        if streams >= self.streams_per_node:
            message = f"node {node.id[:100]} has {streams} streams open already, and may have {self.streams_per_node}"
            raise Error(Code.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS", message)

    def check_names(self, count: int) -> None:
        """Errors: RESOURCE_EXHAUSTED for more names than a stream may be subscribed to."""
        if count > self.names_per_stream:
            message = f"{count} names on one stream; at most {self.names_per_stream} are served"
            raise Error(Code.RESOURCE_EXHAUSTED, "TOO_MANY_NAMES", message)


class Budget:
    """The server's time that one stream takes. Every stream has a second to spare; beyond it, a tenth of the time.

    So a client that asks without end is answered more and more slowly, and takes little from the others. There is no clock in
    here: times are seconds of one that only goes forward.
    """

    SPARE = 1.0
    SHARE = 0.1

    def __init__(self, now: float) -> None:
        self._spent = 0.0
        self._now = now

    def spend(self, seconds: float, now: float) -> float:
        """This much was used up to now. Returns for how long the stream is to be left alone."""
        left = self._spent - (now - self._now) * self.SHARE
        self._spent = spent = left + seconds if left > 0 else seconds
        self._now = now
        return (spent - self.SPARE) / self.SHARE if spent > self.SPARE else 0.0


def server_options(limits: StreamLimits) -> list[tuple[str, int]]:
    """How the xDS server treats its connections, in gRPC's words."""
    options = [
        ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
        # A second server on the port is told so, instead of being given half of the connections.
        ("grpc.so_reuseport", 0),
        # A fleet that comes back all at once is let in; gRPC's default turns away what comes after the first 1,000.
        ("grpc.server.max_pending_requests", 100_000),
        ("grpc.server.max_pending_requests_hard_limit", 200_000),
        # A peer that vanished without a word is found out within 40 s.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        # Envoys ping every 30 s, and some are set up to do it more often: none is sent away for it.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
        ("grpc.http2.max_ping_strikes", 0),
    ]
    if limits.max_stream_age:
        # A new stream on the old connection would come to the same replica. So the connection takes no new streams (GOAWAY)
        # from shortly before its first one ends; gRPC adds a tenth of its own, up or down.
        options.append(("grpc.max_connection_age_ms", max(1, int(800 * limits.max_stream_age))))
    return options

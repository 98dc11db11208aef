"""Limits of one xDS client, and how long its streams and its connection live."""

from __future__ import annotations

import resource
from dataclasses import dataclass, replace
from typing import Any

from controlplane.errors import Code, Error, invalid
from controlplane.http2.accounts import ClientLimits
from controlplane.http2.limits import ConnectionLimits
from controlplane.xds.coordination import LINGER
from controlplane.xds.lrs import SHORTEST
from controlplane.xds.node import check_metadata

# Largest request: 100,000 names of resources that a returning client holds.
MAX_REQUEST_BYTES = 16 * 1024 * 1024

# A client's id, cluster, metadata and locality together. Envoy's list of its extensions is not stored and does not count.
MAX_NODE_BYTES = 64 * 1024


# Files that the process may open, if the system allows it; and those that are no connections of clients.
_FILES, _OTHER_FILES = 32_768, 512


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Limits of the streams of one client. Durations are seconds."""

    # Open streams of one node id. An Envoy has one stream of ADS, and one more for each type that it gets from another
    # service. gRPC's C core has one for each model that it calls.
    streams_per_node: int = 256
    # Names that one stream may be subscribed to, all types together.
    names_per_stream: int = 200_000
    # A stream lives for about this long, then the client is asked to open a new one. Up to a tenth more or less, so that
    # clients that connected together leave one by one. 0: no limit.
    max_stream_age: float = 0.0
    # How long a removal waits for the node's other streams to stop using the resource.
    linger: float = LINGER
    # The first request must come within this time after the stream was opened.
    first_request_timeout: float = 15.0
    # How long clients that support TTLs use a resource without hearing that it is still valid. A heartbeat is sent three times
    # in this time. Whole seconds; 0: no TTL.
    resource_ttl: int = 0
    # How long after a NACK the resources that were refused together are sent again in smaller parts. Until then, the good
    # ones wait for the bad one, and new routes wait for their clusters. It only limits how often a client that
    # refuses everything is sent something, so it is short.
    nack_retry_delay: float = 1.0
    # How often clients report their load, while there are few clients.
    load_report_interval: float = SHORTEST

    def admit(self, node: Any, streams: int) -> None:
        """Check that a node that has this many streams may open one more. Errors: INVALID_ARGUMENT, RESOURCE_EXHAUSTED."""
        if not node.id:
            raise invalid("node.id", "is required on the first request of a stream", "NODE_REQUIRED")
        size = len(node.id) + len(node.cluster) + node.metadata.ByteSize() + node.locality.ByteSize()
        if size > MAX_NODE_BYTES:
            message = f"node: its id, cluster, metadata and locality take {size} bytes, and may take {MAX_NODE_BYTES}"
            raise Error(Code.RESOURCE_EXHAUSTED, "NODE_TOO_LARGE", message)
        check_metadata(node.metadata)
        if streams >= self.streams_per_node:
            message = f"node {node.id[:100]} has {streams} streams open already, and may have {self.streams_per_node}"
            raise Error(Code.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS", message)

    def check_names(self, count: int) -> None:
        """Check the number of names that a stream subscribes to. Errors: RESOURCE_EXHAUSTED."""
        if count > self.names_per_stream:
            message = f"{count} names on one stream; at most {self.names_per_stream} are served"
            raise Error(Code.RESOURCE_EXHAUSTED, "TOO_MANY_NAMES", message)

    @property
    def max_connection_age(self) -> float:
        """Return the age in seconds at which a connection takes no new streams (GOAWAY); 0 for no limit.

        A new stream on the old connection would reach the same replica, so the connection must refuse streams shortly before
        its first stream ends. Transports add or subtract up to a tenth.
        """
        return 0.8 * self.max_stream_age


def connection_limits(limits: StreamLimits) -> ConnectionLimits:
    """Return the limits of a connection for the transport `http2`."""
    return ConnectionLimits(max_message_bytes=MAX_REQUEST_BYTES, max_age=limits.max_connection_age)


def client_limits() -> ClientLimits:
    """Return the limits of all clients for the transport `http2`. Connections must leave files for everything else.

    The process may open as many files as the system's hard limit allows, from now on.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    limits = ClientLimits()
    if soft == resource.RLIM_INFINITY or soft >= limits.total_connections + _OTHER_FILES:
        return limits
    total = max(soft // 2, soft - _OTHER_FILES)
    return replace(limits, total_connections=total, connections=min(limits.connections, total * 3 // 4))


def server_options(limits: StreamLimits) -> list[tuple[str, int]]:
    """Return the limits of a connection for the transport `grpc`, as options of gRPC's server."""
    options = [
        ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
        # A few KB can be hundreds of MB when they are decompressed: only `identity` is accepted.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        # A second server on the port gets an error, and not half of the connections.
        ("grpc.so_reuseport", 0),
        # A whole fleet may connect at once; by default gRPC refuses calls after the first 1,000.
        ("grpc.server.max_pending_requests", 100_000),
        ("grpc.server.max_pending_requests_hard_limit", 200_000),
        # A client that disappears without closing its connection is noticed within 40 s.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        # Envoys ping every 30 s, and some are configured to ping more often: none is disconnected for it.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
        ("grpc.http2.max_ping_strikes", 0),
    ]
    if limits.max_connection_age:
        options.append(("grpc.max_connection_age_ms", max(1, int(1_000 * limits.max_connection_age))))
    return options

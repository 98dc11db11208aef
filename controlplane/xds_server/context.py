"""The objects that all streams of one server share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from controlplane.aio.latest import Newest
from controlplane.http2.peer import Peer
from controlplane.published import PublishedRevision
from controlplane.xds.events import StreamEvent, StreamId
from controlplane.xds_server.limits import StreamLimits


@dataclass(frozen=True, slots=True)
class PumpContext:
    """The objects that all pumps of one server share."""

    # The newest revision; None before the first one.
    published: Newest[PublishedRevision | None]
    # Called with each event of a stream.
    report: Callable[[StreamId, StreamEvent], None]
    limits: StreamLimits
    # Called once with each stream that ends, before it is reported as closed.
    on_end: Callable[[StreamId], None]
    # Called with the first request of a stream. Errors: PERMISSION_DENIED.
    check_node: Callable[[StreamId, Peer, Any], None] = lambda stream, peer, node: None

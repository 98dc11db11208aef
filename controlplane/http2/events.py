"""The events that a connection reports to its owner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from controlplane.http2.streams import Stream


class ConnectionEvents(Protocol):
    """Receives the events of one connection."""

    def stream_opened(self, stream: Stream, fields: Mapping[str, str]) -> None:
        """Handle a request's header block: set the stream's `listener`, or end the stream."""

    def settings_received(self) -> None:
        """Handle a SETTINGS frame. The first one proves that the client speaks HTTP/2."""

    def window_opened(self) -> None:
        """Handle a frame after which flow control may permit the server to send more."""

    def goaway_received(self, reason: int) -> None:
        """Handle GOAWAY: the client opens no more streams."""

    def consumed(self, count: int) -> None:
        """Handle DATA bytes that reach no listener: padding, or bytes for a stream that is over."""

    def output_added(self) -> None:
        """Handle new frames in the connection's output. Not called during `receive`, whose caller writes them."""

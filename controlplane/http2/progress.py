"""Finds connections that leave something incomplete, or that have no call, for too long."""

from __future__ import annotations

from controlplane.http2.grpc_connection import GrpcConnection


class Progress:
    """Since when a connection waits for its client. Times are seconds of a monotonic clock; 0 is for none."""

    __slots__ = ("_block_since", "_busy_at", "frame_since")

    def __init__(self, now: float) -> None:
        # When the connection last had an open call.
        self._busy_at = now
        # Since when a part of a frame waits for the rest, and a header block for its next frame.
        self.frame_since = self._block_since = 0.0

    def received(self, at: float, count: int, unparsed: int) -> None:
        """Record that `unparsed` of `count` received bytes are a part of a frame."""
        if not unparsed:
            self.frame_since = 0.0
        elif unparsed < count or not self.frame_since:
            self.frame_since = at

    def idle(self, now: float, grpc: GrpcConnection) -> bool:
        """Return True if the client has had no call for too long."""
        if grpc.calls:
            self._busy_at = now
        return now - self._busy_at > grpc.limits.idle_timeout

    def slow(self, now: float, grpc: GrpcConnection, *, queued: bool, held: bool) -> bool:
        """Return True if a frame, a header block or a message was incomplete for too long.

        `queued`: whole frames wait for their turn. `held`: the connection holds parts of messages.
        """
        self._block_since = (self._block_since or now) if grpc.http2.in_header_block else 0.0
        since = [self._block_since, 0.0 if queued else self.frame_since]
        if held:
            since += [call.waits_since() for call in grpc.calls.values()]
        return any(at and now - at > grpc.limits.incomplete_timeout for at in since)

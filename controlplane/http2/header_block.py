"""A header block that arrives in several frames: one HEADERS and any CONTINUATION (RFC 9113, section 4.3)."""

from __future__ import annotations

from controlplane.http2.frames import ConnectionFault, ErrorCode
from controlplane.http2.headers import MAX_HEADER_LIST

# Bounds of a compressed block: bytes, and frames.
_MAX_BYTES, _MAX_FRAMES = MAX_HEADER_LIST, 64


class HeaderBlock:
    """An incomplete header block. No other frame may come before the rest of it."""

    __slots__ = ("_frames", "end_stream", "received", "stream")

    def __init__(self, stream: int, part: bytes, *, end_stream: bool) -> None:
        """Begin with the part of a HEADERS frame without END_HEADERS. `end_stream`: the frame has END_STREAM."""
        self.stream, self.end_stream = stream, end_stream
        self.received = part
        self._frames = 1

    def add(self, part: bytes) -> None:
        """Add the part of a CONTINUATION frame. Errors: ConnectionFault."""
        self.received += part
        self._frames += 1
        if len(self.received) > _MAX_BYTES or self._frames > _MAX_FRAMES:
            message = f"header block of more than {_MAX_BYTES} bytes or {_MAX_FRAMES} frames"
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, message)

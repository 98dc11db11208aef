"""A header block that arrives in several frames: one HEADERS and any CONTINUATION (RFC 9113, section 4.3)."""

from __future__ import annotations

from controlplane.http2.frames import ConnectionFault, ErrorCode
from controlplane.http2.headers import MAX_HEADER_LIST

# Bounds of a compressed block: bytes, and frames.
_MAX_BYTES, _MAX_FRAMES = MAX_HEADER_LIST, 64


class HeaderBlock:
    """The header block of a connection that is still incomplete, if there is one. No other frame may come in between."""

    __slots__ = ("_frames", "_received", "end_stream", "stream")

    def __init__(self) -> None:
        # The stream of the incomplete block; 0 for none.
        self.stream = 0
        # Set when the HEADERS frame had END_STREAM.
        self.end_stream = False
        self._received = b""
        self._frames = 0

    def begin(self, stream: int, *, end_stream: bool) -> None:
        """Begin a block with a HEADERS frame; `add` its part next."""
        self.stream, self.end_stream = stream, end_stream
        self._received, self._frames = b"", 0

    def add(self, part: bytes, *, last: bool) -> bytes | None:
        """Add the part of one frame. Return the block if this is the last part. Errors: ConnectionFault."""
        self._received += part
        self._frames += 1
        if len(self._received) > _MAX_BYTES or self._frames > _MAX_FRAMES:
            message = f"header block of more than {_MAX_BYTES} bytes or {_MAX_FRAMES} frames"
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, message)
        if not last:
            return None
        block, self._received, self.stream = self._received, b"", 0
        return block

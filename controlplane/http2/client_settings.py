"""The settings that a client announces, as far as a server needs them (RFC 9113, section 6.5.2)."""

from __future__ import annotations

import struct

from controlplane.http2.frames import INITIAL_WINDOW, MAX_FRAME, MAX_WINDOW, ConnectionFault, ErrorCode, Setting

# The server sends no larger frame, even if a client permits it: all other streams wait until a frame is written.
_LARGEST_FRAME = 4 * MAX_FRAME

# Valid values, and the error code for others.
_RANGES = {
    Setting.ENABLE_PUSH: (0, 1, ErrorCode.PROTOCOL_ERROR),
    Setting.INITIAL_WINDOW_SIZE: (0, MAX_WINDOW, ErrorCode.FLOW_CONTROL_ERROR),
    Setting.MAX_FRAME_SIZE: (MAX_FRAME, (1 << 24) - 1, ErrorCode.PROTOCOL_ERROR),
    Setting.ENABLE_CONNECT_PROTOCOL: (0, 1, ErrorCode.PROTOCOL_ERROR),
}

# Read as globals: in Python 3.11 a member of an enum costs ten times as much.
_INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = Setting.INITIAL_WINDOW_SIZE, Setting.MAX_FRAME_SIZE


class ClientSettings:
    """The settings of a client."""

    __slots__ = ("initial_window", "max_frame", "received")

    def __init__(self) -> None:
        # The first SETTINGS frame has come. The client must send it before any other frame.
        self.received = False
        # Bytes that may be sent on a new stream, and in one frame.
        self.initial_window = INITIAL_WINDOW
        self.max_frame = MAX_FRAME

    def apply(self, payload: bytes) -> int:
        """Apply a SETTINGS frame. Return by how many bytes the windows of open streams grow. Errors: ConnectionFault."""
        self.received = True
        before = self.initial_window
        # If a setting is repeated, the last value counts. A frame may repeat one 2,730 times.
        for key, value in dict(struct.iter_unpack(">HL", payload)).items():
            limits = _RANGES.get(key)
            if limits is not None and not limits[0] <= value <= limits[1]:
                raise ConnectionFault(limits[2], f"SETTINGS_{Setting(key).name} of {value}")
            if key == _INITIAL_WINDOW_SIZE:
                self.initial_window = value
            elif key == _MAX_FRAME_SIZE:
                self.max_frame = min(value, _LARGEST_FRAME)
        return self.initial_window - before

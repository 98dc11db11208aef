"""Flow control (RFC 9113, section 5.2): the windows of a connection, and changes to those of its streams."""

from __future__ import annotations

from controlplane.http2.frames import INITIAL_WINDOW, MAX_WINDOW, ConnectionFault, ErrorCode, StreamFault
from controlplane.http2.streams import Stream, Streams


class Windows:
    """The windows of one connection, which all its streams share, in bytes."""

    __slots__ = ("receive", "send")

    def __init__(self, receive: int) -> None:
        # Bytes that the client may send, and that the server may send.
        self.receive = receive
        self.send = INITIAL_WINDOW

    def receive_data(self, size: int, stream: Stream | None = None) -> None:
        """Count a DATA frame against the connection's window, or against a stream's. Errors: ConnectionFault."""
        if stream is None:
            self.receive -= size
            if self.receive < 0:
                raise receive_overflow("connection")
        else:
            stream.receive_window -= size
            if stream.receive_window < 0:
                raise receive_overflow("stream")

    def open_send(self, increment: int, stream: Stream | None = None) -> None:
        """Apply a WINDOW_UPDATE to the connection's window, or to a stream's. Errors: ConnectionFault, StreamFault."""
        fault = ConnectionFault if stream is None else StreamFault
        if stream is None:
            window = self.send = self.send + increment
        else:
            window = stream.send_window = stream.send_window + increment
        if not increment:
            raise fault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of zero")
        if window > MAX_WINDOW:
            raise fault(ErrorCode.FLOW_CONTROL_ERROR, f"window larger than {MAX_WINDOW} bytes")


def receive_overflow(window: str) -> ConnectionFault:
    """Return the fault of a client that sends more DATA than a window permits: the `connection`'s or a `stream`'s."""
    return ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, f"DATA exceeds the {window}'s flow-control window")


def grow_send_windows(streams: Streams, growth: int) -> None:
    """Add `growth` bytes to the send window of every stream; it may be negative. Errors: ConnectionFault."""
    for stream in streams.by_id.values():
        stream.send_window += growth
        if stream.send_window > MAX_WINDOW:
            message = f"SETTINGS_INITIAL_WINDOW_SIZE makes a window larger than {MAX_WINDOW} bytes"
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, message)

"""Bounds of one connection: bytes, streams and seconds."""

from __future__ import annotations

from dataclasses import dataclass, field

from controlplane.http2.frames import INITIAL_WINDOW


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds of one connection. Durations are seconds, sizes are bytes."""

    # Largest gRPC message that a client may send, after decompression.
    max_message_bytes: int = 16 * 1024 * 1024
    # Streams that a client may have open at a time (SETTINGS_MAX_CONCURRENT_STREAMS).
    max_streams: int = 1_024
    # Bytes that a client may send on one stream before the server has read them (SETTINGS_INITIAL_WINDOW_SIZE).
    stream_window: int = 256 * 1024

    # The server asks the client to leave the connection (GOAWAY) at about this age, up to a tenth more or less. 0: never.
    max_age: float = 0.0
    # A client must complete TLS and send HTTP/2's preface within this time.
    preface_timeout: float = 10.0
    # A client that was silent for `keepalive_interval` gets a PING, and is disconnected `keepalive_timeout` later unless it
    # answers or reads.
    keepalive_interval: float = 30.0
    keepalive_timeout: float = 10.0
    # Time between two checks of all connections for such clients.
    keepalive_sweep: float = 2.5
    # A connection without open calls is closed after this time.
    idle_timeout: float = 60.0
    # A frame, a header block or a message must be complete within this time after its first byte.
    incomplete_timeout: float = 20.0
    # After the last frame, the server waits this long for the client to close the connection. If the server closed at once,
    # the kernel would reset the connection when the client writes again, and data that the client has not read would be lost.
    close_timeout: float = 0.5
    # The unsent part of a message and the trailers of an ended call wait this long for a client that does not read.
    end_timeout: float = 5.0

    # At this many unwritten bytes the connection makes no further DATA frames. Up to `write_chunk` bytes are joined into one
    # write.
    write_high: int = 256 * 1024
    write_chunk: int = 64 * 1024

    # The server sends a WINDOW_UPDATE for the connection after each time it has handled this many received bytes.
    window_update_bytes: int = field(init=False)
    # Bytes that a client may send on all streams before the server has read them: two of the largest messages, and the bytes
    # that wait for the next WINDOW_UPDATE. It is larger than HTTP/2's initial window, because WINDOW_UPDATE can't make a
    # window smaller.
    connection_window: int = field(init=False)

    def __post_init__(self) -> None:
        update = self.max_message_bytes // 8
        object.__setattr__(self, "window_update_bytes", update)
        object.__setattr__(self, "connection_window", max(2 * self.max_message_bytes + update, 2 * INITIAL_WINDOW))

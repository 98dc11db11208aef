"""HTTP/2 as the `h2` library has it, and a shorter way for the plainest of its frames.

Nearly all that goes over an xDS stream are DATA frames with nothing special about them. The library takes 9 µs to write one
and 12 to read one, and all that it comes to are two numbers: the windows of the stream and of the connection become smaller.
So a frame that is

    DATA, not empty, without flags: not padded, and not the last one of its stream,
    of a stream on which that direction is open, and which did not say how much it will carry (content-length),
    not in the middle of a block of headers

does just that here, to the library's own numbers, in about 1 µs. So does a WINDOW_UPDATE, of which some clients send one for
each message, to the numbers of the other direction. Every other frame is the library's, and so is everything that is wrong.
Two of the numbers are in attributes that the library does not document: `WINDOWS` below, which a test looks for.
"""

from __future__ import annotations

import struct
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import FrameTooLargeError
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream
from hyperframe.frame import GoAwayFrame

# Length in three bytes, type, flags, stream.
_HEADER = struct.Struct(">HBBBL")
HEADER_BYTES = 9
_PREFACE = 24

DATA, HEADERS, PUSH_PROMISE, WINDOW_UPDATE, CONTINUATION = 0, 1, 5, 8, 9
_END_HEADERS = 4
_LARGEST_WINDOW = 2**31 - 1

# What `cut` says of a frame that is done with: it opened a window.
OPENED = -1

# Of the connection, and of a stream: how much the client may still send.
WINDOWS = "_inbound_flow_control_window_manager", "_inbound_window_manager"

Buffer = bytes | memoryview

_CONFIG = H2Configuration(
    client_side=False, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
)


class Http2(H2Connection):
    """The server's side of a connection, and how what comes is cut into frames."""

    def __init__(self, streams: int, stream_window: int, connection_window: int) -> None:
        """At most so many streams at a time; windows are what a client may send before it is taken, in bytes."""
        super().__init__(_CONFIG)
        settings = {
            SettingCodes.MAX_CONCURRENT_STREAMS: streams,
            SettingCodes.INITIAL_WINDOW_SIZE: stream_window,
            SettingCodes.MAX_HEADER_LIST_SIZE: self.DEFAULT_MAX_HEADER_LIST_SIZE,
        }
        self.local_settings = Settings(client=False, initial_values=settings)
        self.initiate_connection()
        self.increment_flow_control_window(connection_window - 65_535)
        # How much of the preface is still to come.
        self._preface = _PREFACE
        # A block of headers goes on in the next frame.
        self._in_headers = False
        # Not looked up for each frame.
        self._window: Any = getattr(self, WINDOWS[0])

    def cut(self, data: bytes, at: int) -> tuple[int, int]:
        """The frame that begins at `at`: its end, and the stream if it is plain DATA, OPENED, or 0 if it is the library's.

        The end is 0 if the frame is not whole. Errors: FrameTooLargeError.
        """
        left = len(data) - at
        if self._preface:
            taken = min(self._preface, left)
            self._preface -= taken
            return at + taken, 0
        if left < HEADER_BYTES:
            return 0, 0
        high, low, kind, flags, stream = _HEADER.unpack_from(data, at)
        length = high << 8 | low
        if length > self.max_inbound_frame_size:
            raise FrameTooLargeError(f"a frame of {length} bytes")
        end = at + HEADER_BYTES + length
        if left < HEADER_BYTES + length:
            return 0, 0
        if kind == DATA:
            return end, 0 if flags or self._in_headers or not length else stream
        if kind == WINDOW_UPDATE and length == 4 and not self._in_headers:
            return end, OPENED if self._open(stream, int.from_bytes(data[end - 4 : end], "big")) else 0
        if kind in (HEADERS, PUSH_PROMISE, CONTINUATION):
            self._in_headers = not flags & _END_HEADERS
        return end, 0

    def _open(self, number: int, more: int) -> bool:
        """Opens a window, if there is nothing to be said against it."""
        holder = self.streams.get(number) if number else self
        if holder is None or not more or holder.outbound_flow_control_window + more > _LARGEST_WINDOW:
            return False
        if isinstance(holder, H2Stream) and not holder.open:
            return False
        holder.outbound_flow_control_window += more
        return True

    def received(self, stream: H2Stream, size: int) -> None:
        """So much came in a plain frame. Errors: FlowControlError."""
        self._window.window_consumed(size)
        getattr(stream, WINDOWS[1]).window_consumed(size)

    def send(self, stream: H2Stream, rest: list[Buffer], out: list[Buffer], limit: int) -> int:
        """Cuts what may be sent of `rest` into frames, about `limit` bytes at most, into `out`. Returns their bytes."""
        sent = 0
        number = stream.stream_id
        while rest and sent < limit:
            room = min(self.outbound_flow_control_window, stream.outbound_flow_control_window, self.max_outbound_frame_size)
            if room <= 0:
                break
            at, size = len(out), 0
            out.append(b"")
            while rest and size < room:
                part = rest[0]
                if len(part) <= room - size:
                    del rest[0]
                else:
                    view = memoryview(part)
                    part, rest[0] = view[: room - size], view[room - size :]
                out.append(part)
                size += len(part)
            out[at] = _HEADER.pack(size >> 8, size & 0xFF, DATA, 0, number)
            self.outbound_flow_control_window -= size
            stream.outbound_flow_control_window -= size
            sent += HEADER_BYTES + size
        return sent

    def goodbye(self) -> bytes:
        """A GOAWAY after which those streams that are open go on. The library knows only ends that are the end."""
        goaway = GoAwayFrame(0, last_stream_id=self.highest_inbound_stream_id, error_code=ErrorCodes.NO_ERROR)
        return goaway.serialize()

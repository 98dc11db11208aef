"""The bytes between the server and a child: frames, each with its length before it."""

from __future__ import annotations

import os
import select
import struct
import time

_LENGTH = struct.Struct(">I")
# Bytes of a frame. A listener has some kilobytes.
MAX_FRAME = 16 << 20


class Closed(OSError):
    """The other side is gone."""


class TooLate(OSError):
    """No frame came in time."""


def send(fd: int, *frames: bytes) -> None:
    """Write frames. Errors: OSError."""
    left = memoryview(b"".join(part for frame in frames for part in (_LENGTH.pack(len(frame)), frame)))
    while left:
        left = left[os.write(fd, left) :]


def receive(fd: int, seconds: float | None = None) -> bytes:
    """Read one frame. Errors: Closed; TooLate if it has not come after so many seconds, None: wait for ever."""
    deadline = None if seconds is None else time.monotonic() + seconds
    (length,) = _LENGTH.unpack(_read(fd, _LENGTH.size, deadline))
    if length > MAX_FRAME:
        raise Closed(f"a frame of {length:,} bytes")
    return _read(fd, length, deadline)


def _read(fd: int, size: int, deadline: float | None) -> bytes:
    data = bytearray()
    while len(data) < size:
        if deadline is not None and not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TooLate
        part = os.read(fd, size - len(data))
        if not part:
            raise Closed
        data += part
    return bytes(data)

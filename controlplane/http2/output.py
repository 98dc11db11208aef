"""The frames of a connection that are not written to its socket yet."""

from __future__ import annotations

from controlplane.http2.events import ConnectionEvents
from controlplane.http2.frames import DATA, HEADER, HEADER_BYTES, Buffer


class Output:
    """Frames that are to be written, in order."""

    __slots__ = ("_events", "buffers", "closed", "silent", "size")

    def __init__(self, events: ConnectionEvents) -> None:
        self.buffers: list[Buffer] = []
        # Bytes in `buffers`.
        self.size = 0
        # True once the last GOAWAY was added: no frame may follow it.
        self.closed = False
        # Set while `Connection.receive` runs: frames are not reported, since its caller writes the output afterwards.
        self.silent = False
        self._events = events

    def add(self, data: bytes) -> None:
        """Add whole frames, and report them (`output_added`) unless `silent`. A closed output takes none."""
        if self.closed:
            return
        self.buffers.append(data)
        self.size += len(data)
        if not self.silent:
            self._events.output_added()

    def add_data_frame(self, stream: int, unsent: list[Buffer], size: int) -> None:
        """Move all of `unsent`, `size` bytes, into one DATA frame, and report nothing."""
        self.buffers += (HEADER.pack(size >> 8, size & 0xFF, DATA, 0, stream), *unsent)
        self.size += HEADER_BYTES + size
        unsent.clear()

    def add_data_frames(self, stream: int, unsent: list[Buffer], size: int, max_frame: int) -> None:
        """Move the first `size` bytes of `unsent` into DATA frames that are as large as permitted."""
        at, view = 0, memoryview(unsent[0])
        full_header = HEADER.pack(max_frame >> 8, max_frame & 0xFF, DATA, 0, stream)
        while size:
            left = min(size, max_frame)
            header = full_header if left == max_frame else HEADER.pack(left >> 8, left & 0xFF, DATA, 0, stream)
            self.buffers.append(header)
            self.size += HEADER_BYTES + left
            size -= left
            while left:
                part = view[at : at + left]
                self.buffers.append(part)
                left -= len(part)
                at += len(part)
                if at == len(view):
                    del unsent[0]
                    at, view = 0, memoryview(unsent[0] if unsent else b"")
        if at:
            unsent[0] = view[at:]

    def take(self) -> tuple[list[Buffer], int]:
        """Remove and return the frames, and their size in bytes."""
        buffers, size = self.buffers, self.size
        self.buffers, self.size = [], 0
        return buffers, size

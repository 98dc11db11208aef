"""Messages between the main process and a worker: pickled values over a socket pair, each after its length.

Both ends are this program, run by one user, and the socket has no name. So messages are trusted.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
from collections.abc import Callable
from typing import Any, cast

_LENGTH_BYTES = 8

# Above this many unsent bytes, `writable` is false.
_HIGH_WATER = 256 * 1024


class Link(asyncio.Protocol):
    """One end of a socket pair.

    It calls `on_message` with each message, `on_writable` when `writable` becomes true again, and `on_lost` once, when the
    other end is gone.
    """

    # Above this many unsent bytes, the link is aborted.
    MAX_UNSENT = 256 * 1024 * 1024

    def __init__(
        self, on_message: Callable[[Any], None], on_lost: Callable[[], None], on_writable: Callable[[], None] = lambda: None
    ) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._on_writable = on_writable
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        # True while the other end reads about as fast as this one sends. While false, send only small messages.
        self.writable = False

    async def connect(self, sock: socket.socket) -> None:
        """Use a connected, non-blocking socket. Errors: OSError."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=sock)

    def send(self, message: object) -> None:
        """Send a message, without waiting. A message to a closed link is dropped."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        transport.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
        if transport.get_write_buffer_size() > self.MAX_UNSENT:
            transport.abort()

    def close(self) -> None:
        """Close this end after all messages have been written."""
        if self._transport is not None:
            self._transport.close()

    # ------------------------------------------------------------------------------------------------- for asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(_HIGH_WATER)
        self.writable = True

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= _LENGTH_BYTES:
            end = start + _LENGTH_BYTES + int.from_bytes(self._buffer[start : start + _LENGTH_BYTES], "big")
            if len(self._buffer) < end:
                break
            message = pickle.loads(memoryview(self._buffer)[start + _LENGTH_BYTES : end])
            start = end
            self._on_message(message)
        del self._buffer[:start]

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._on_writable()

    def connection_lost(self, error: Exception | None) -> None:
        self.writable = False
        self._transport = None
        self._on_lost()

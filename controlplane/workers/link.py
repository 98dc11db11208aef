"""Messages between the main process and a worker: pickled values over a socket pair, each with its length before it.

Both ends are this program, of one user, and the socket has no name: what comes is trusted.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
from collections.abc import Callable
from typing import Any, cast

from controlplane.errors import Code, Error

_LENGTH = 8

# Bytes that wait for the other end before `ready` says no; and at the most, however urgent: then the link is cut.
_WAITING = 256 * 1024
_MOST = 256 * 1024 * 1024


class Link(asyncio.Protocol):
    """One end. `received` is called with each message, `lost` once when there is no other end any more."""

    def __init__(
        self, received: Callable[[Any], None], lost: Callable[[], None], resumed: Callable[[], None] = lambda: None
    ) -> None:
        self._received = received
        self._lost = lost
        self._resumed = resumed
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        # Whether the other end takes what is sent about as fast as it is sent; `resumed` is called when it does again.
        self.ready = False

    @staticmethod
    async def over(sock: socket.socket, link: Link) -> None:
        """Puts `link` on a connected socket."""
        await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=sock)

    def send(self, message: object) -> None:
        """Sends it, sooner or later; never waits. What is not `ready` should be sent little."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        transport.write(len(data).to_bytes(_LENGTH, "big") + data)
        if transport.get_write_buffer_size() > _MOST:
            transport.abort()

    def close(self) -> None:
        """Closes this end, after all that was sent."""
        if self._transport is not None:
            self._transport.close()

    # ------------------------------------------------------------------------------------------------- for asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(_WAITING)
        self.ready = True

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        at = 0
        while len(self._buffer) - at >= _LENGTH:
            end = at + _LENGTH + int.from_bytes(self._buffer[at : at + _LENGTH], "big")
            if len(self._buffer) < end:
                break
            message = pickle.loads(memoryview(self._buffer)[at + _LENGTH : end])
            at = end
            self._received(message)
        del self._buffer[:at]

    def pause_writing(self) -> None:
        self.ready = False

    def resume_writing(self) -> None:
        self.ready = True
        self._resumed()

    def connection_lost(self, error: Exception | None) -> None:
        self.ready = False
        self._transport = None
        self._lost()


def gone() -> Error:
    """What is said of a worker that does not answer."""
    return Error(Code.UNAVAILABLE, "WORKER_GONE", "a worker process does not answer; try again")

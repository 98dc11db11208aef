"""Closing a socket so that the client can read everything that was written to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from controlplane.http2.limits import ConnectionLimits


class Closing:
    """The one timer of a connection, and the steps of closing its socket.

    at once                    no more writes (a FIN over TCP); bytes of the client are read and dropped
    after `close_timeout`      close, even if the client did not. TLS begins here, because it has a closing handshake
    after `keepalive_timeout`  abort, if the client still has not read everything that was written
    """

    __slots__ = ("_limits", "_loop", "_timer", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, limits: ConnectionLimits) -> None:
        self._transport = transport
        self._loop = loop
        self._limits = limits
        self._timer: asyncio.TimerHandle | None = None

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Set the timer. It replaces the timer that was set before."""
        self.cancel()
        self._timer = self._loop.call_later(seconds, call)

    def cancel(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def begin(self) -> None:
        """Close the socket in steps."""
        if self._transport.can_write_eof():
            self._transport.write_eof()
            self._transport.resume_reading()
            self.after(self._limits.close_timeout, self._close)
        else:
            self._close()

    def _close(self) -> None:
        self._transport.close()
        # `close` waits until the client has read everything that was written. It has no time limit of its own.
        self.after(self._limits.keepalive_timeout, self._transport.abort)

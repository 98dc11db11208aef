"""Closing a socket so that the client can read everything that was written to it."""

from __future__ import annotations

import asyncio

from controlplane.http2.limits import ConnectionLimits


class Closing:
    """Closes the socket of a connection in steps.

    at once                    no more writes (a FIN over TCP); bytes of the client are read and dropped
    after `close_timeout`      close, even if the client did not. TLS begins here, because it has a closing handshake
    after `keepalive_timeout`  abort, if the client still has not read everything that was written
    """

    __slots__ = ("_limits", "_loop", "_timer", "_transport")

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        limits: ConnectionLimits,
        *,
        drop_input: bool = True,
    ) -> None:
        """Begin with the first step. Without `drop_input`, nothing is read: dropping a flood would cost CPU, too."""
        self._transport = transport
        self._loop = loop
        self._limits = limits
        # Takes the next step.
        self._timer: asyncio.TimerHandle
        if transport.can_write_eof():
            transport.write_eof()
            if drop_input:
                transport.resume_reading()
            else:
                transport.pause_reading()
            self._timer = loop.call_later(limits.close_timeout, self._close)
        else:
            self._close()

    def cancel(self) -> None:
        """Take no further step: the socket is gone."""
        self._timer.cancel()

    def _close(self) -> None:
        self._transport.close()
        # `close` waits until the client has read everything that was written. It has no time limit of its own.
        self._timer = self._loop.call_later(self._limits.keepalive_timeout, self._transport.abort)

"""Keepalive: finds clients that are gone although their connection is open (gRPC's PING, RFC 9113, section 6.7)."""

from __future__ import annotations

import asyncio
import enum
import fcntl
import socket
import sys
import termios
from collections.abc import Callable

from controlplane.http2.limits import ConnectionLimits


class Action(enum.Enum):
    """The action that `Keepalive.check` asks for."""

    NONE = enum.auto()
    PING = enum.auto()
    DISCONNECT = enum.auto()


class Keepalive:
    """Decides when to ping a client, and when to disconnect it. Times are seconds of a monotonic clock.

    A client is alive if it sends something, or if it reads. Reading counts because the client may have to read megabytes of
    output before it can see the PING and answer it.
    """

    __slots__ = ("_active_at", "_limits", "_pinged_at", "_unread")

    def __init__(self, limits: ConnectionLimits, now: float) -> None:
        self._limits = limits
        # When the client was last active.
        self._active_at = now
        # When the unanswered PING was sent, or when the client last read output after that; 0 while no PING is unanswered.
        self._pinged_at = 0.0
        # Bytes that the client had not read at the last check.
        self._unread = 0

    def active(self, now: float) -> None:
        """Record that the client has sent something, or reads again."""
        self._active_at, self._pinged_at = now, 0.0

    def check(self, now: float, unread: Callable[[], int], *, may_ping: bool) -> Action:
        """Return what to do now; `unread` returns how many bytes the client has not read."""
        if self._pinged_at:
            before, self._unread = self._unread, unread()
            if self._unread < before:
                self._pinged_at = now
            elif now - self._pinged_at > self._limits.keepalive_timeout:
                return Action.DISCONNECT
        elif now - self._active_at > self._limits.keepalive_interval and may_ping:
            self._pinged_at, self._unread = now, unread()
            return Action.PING
        return Action.NONE


def unread_bytes(transport: asyncio.Transport) -> int:
    """Return the bytes that the client has not read, as far as TCP knows: in the transport and in this side's kernel."""
    return transport.get_write_buffer_size() + kernel_unsent(transport.get_extra_info("socket"))


def kernel_unsent(sock: socket.socket) -> int:
    """Return the bytes in the kernel that the client's kernel has not acknowledged; 0 where the kernel does not say."""
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0

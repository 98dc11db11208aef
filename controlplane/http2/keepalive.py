"""Keepalive: finds clients that are gone although their connection is open (gRPC's PING, RFC 9113, section 6.7)."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import sys
import termios


class UnansweredPing:
    """A PING that a silent client has not answered. Times are seconds of a monotonic clock.

    A client is alive if it sends something, or if it reads. Reading counts because the client may have to read megabytes of
    output before it can see the PING and answer it.
    """

    __slots__ = ("_since", "_unread")

    def __init__(self, now: float, unread: int) -> None:
        """`unread` is the number of bytes that the client has not read."""
        # When the PING was sent, or when the client was last seen to read after that.
        self._since = now
        self._unread = unread

    def waited(self, now: float, unread: int) -> float:
        """Return for how many seconds the client has neither answered nor read anything."""
        before, self._unread = self._unread, unread
        if unread < before:
            self._since = now
        return now - self._since


def unread_bytes(transport: asyncio.Transport) -> int:
    """Return the bytes that the client has not read, as far as TCP knows: in the transport and in this side's kernel."""
    return transport.get_write_buffer_size() + kernel_unsent(transport.get_extra_info("socket"))


def kernel_unsent(sock: socket.socket) -> int:
    """Return the bytes in the kernel that the client's kernel has not acknowledged; 0 where the kernel does not say."""
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0

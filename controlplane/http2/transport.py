"""A connection's socket: reads, writes, pauses, timeouts and closing. It uses callbacks of the event loop, and no tasks.

It protects the server from its client:

    the client does not read           the socket is full: no more frames are made, and nothing is read from the client
    the client is expensive            all work that it causes is charged in wall time to the connection and to its address
                                       (`accounts.py`). It is done in slices, and clients that used much wait for their turn
                                       (`fair_queue.py`). Far beyond that, the connection ends with ENHANCE_YOUR_CALM
    the client is idle or slow         the connection closes when it has no call, or something stays incomplete, for too long
    the client is gone                 it does not answer a PING (`keepalive.py`)
    the client breaks the protocol     it gets a GOAWAY, and the connection closes

Frames that are made in one turn of the event loop are written together.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from typing import Protocol, cast

from controlplane.http2.accounts import Account, Accounts
from controlplane.http2.charges import Charges
from controlplane.http2.closing import Closing
from controlplane.http2.fair_queue import SLICE
from controlplane.http2.frames import ConnectionFault, ErrorCode
from controlplane.http2.grpc_connection import GrpcConnection, Service
from controlplane.http2.keepalive import UnansweredPing, unread_bytes
from controlplane.http2.peer import Peer, address
from controlplane.http2.progress import Progress

# A connection takes no new streams from so many seconds before its client's certificate expires.
EXPIRES_EARLY = 1.0


class Host(Service, Protocol):
    """The server of a connection, as the connection sees it."""

    accounts: Accounts
    # New connections are refused.
    stopping: bool
    # True while reading from clients can wait.
    busy: Callable[[], bool]

    def opened(self, connection: SocketTransport) -> None:
        """Add a connection."""

    def closed(self, connection: SocketTransport) -> None:
        """Remove a connection."""

    def defer(self, connection: SocketTransport) -> bool:
        """Call `catch_up` later. Return False if the connection must read now."""

    def flush_soon(self, connection: SocketTransport) -> None:
        """Call `flush` at the end of this turn of the event loop."""

    def queue(self, connection: SocketTransport, account: Account, *, heavy: bool) -> None:
        """Call `catch_up` when it is the connection's turn."""

    def refused(self, connection: SocketTransport, reason: str, error: str) -> None:
        """Count and log a connection that is closed because of what its client did."""


class SocketTransport(asyncio.Protocol):
    """The socket of one connection."""

    __slots__ = (
        "__weakref__",
        "_active_at",
        "_flush_scheduled",
        "_host",
        "_loop",
        "_ping",
        "_progress",
        "_queued",
        "_speaks_http2",
        "_timer",
        "_transport",
        "_unparsed",
        "_work",
        "charges",
        "grpc",
    )

    def __init__(self, host: Host) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._transport = cast(asyncio.Transport, None)
        # One after the other: the limit for the client's preface, the connection's age, the steps of closing.
        self._timer: asyncio.TimerHandle | Closing = cast(asyncio.TimerHandle, None)
        self.grpc = GrpcConnection(host, self, self._loop.time)
        # When the client last sent something or read again, and a PING that it has not answered since then.
        self._active_at = 0.0
        self._ping: UnansweredPing | None = None
        self.charges = cast(Charges, None)
        self._progress = Progress(self._loop.time())
        # True while the connection waits for its turn: nothing is read from it.
        self._queued = False
        # Work of its calls that waits for its turn.
        self._work: list[Callable[[], None]] = []
        # True once the client has sent the preface and SETTINGS.
        self._speaks_http2 = False
        # Received bytes: a part of a frame, or more while reading is deferred.
        self._unparsed = b""
        self._flush_scheduled = False

    @property
    def peer(self) -> Peer:
        """Return the client."""
        return self.grpc.peer

    # ------------------------------------------------------------------------------------------ called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start with a new connection, unless the server stops, TLS did not negotiate HTTP/2, or there are too many."""
        host = self._host
        self._transport = cast(asyncio.Transport, transport)
        self._timer = self._loop.call_later(host.limits.preface_timeout, self.abort)
        peer = Peer(address(transport.get_extra_info("peername")), transport.get_extra_info("credential"))
        self.grpc.peer = peer
        self.charges = Charges(host.accounts, peer.address, self, peer.identity)
        tls = transport.get_extra_info("ssl_object")
        # So that uvloop writes at once. Otherwise it would first read from all sockets that have data.
        self._transport.set_write_buffer_limits(high=0)
        if host.stopping or (tls is not None and tls.selected_alpn_protocol() != "h2"):
            self._transport.abort()
            return
        if self.charges.full():
            host.refused(self, "too many connections", "of this address, or of all")
            self._transport.abort()
            return
        self._active_at = self._loop.time()
        host.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End every call: the socket is gone."""
        self.grpc.closed = True
        self._timer.cancel()
        self._work.clear()
        self.grpc.abort_calls()
        self.charges.close()
        self._host.closed(self)

    def data_received(self, data: bytes) -> None:
        """Handle received bytes, now or later."""
        if self.grpc.http2.output.closed:
            return
        now = self._active_at = self._loop.time()
        self._ping = None
        if self._unparsed:
            data = self._unparsed + data
        host = self._host
        if self._queued or self.charges.must_wait(now):
            self._unparsed = data
            self.charges.keep(len(data))
            self._wait_for_turn()
        elif len(data) < host.limits.write_chunk and host.busy() and host.defer(self):
            self._unparsed = data
        else:
            self._receive(data, now, now + SLICE)

    def pause_writing(self) -> None:
        """Stop sending and reading: the socket is full."""
        self.grpc.writable = False
        # Stop reading, too: answers to the client's frames, such as PING, would add to the output that it does not read.
        self._update_reading()

    def resume_writing(self) -> None:
        """Send and read again: the socket has room."""
        self.grpc.writable = True
        # The client reads, so it is alive. It has no other way to show this, because the server read nothing from it
        # meanwhile.
        self._active_at, self._ping = self._loop.time(), None
        self._update_reading()
        # In the next turn of the event loop: the socket may be full again at once, and the client must be read from in
        # between.
        self._loop.call_soon(self.grpc.window_opened)

    # ------------------------------------------------------------------------------------------ called by GrpcConnection

    def settings_received(self) -> None:
        """Record that the client speaks HTTP/2, and start the connection's age."""
        if self._speaks_http2:
            return
        self._speaks_http2 = True
        self._timer.cancel()
        age = self._host.limits.max_age * random.uniform(0.9, 1.1) or math.inf
        if self.peer.credential is not None:
            # Before its streams end, so that the new ones come on a connection with a new certificate.
            age = min(age, self.peer.credential.expires - time.time() - EXPIRES_EARLY)
        if age < math.inf:
            self._timer = self._loop.call_later(max(0.0, age), self.grpc.drain)

    def output_added(self) -> None:
        """Write the connection's output at the end of this turn of the event loop."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._host.flush_soon(self)

    def finish(self) -> None:
        """Close the connection after `close_timeout`, unless the client closes it first."""
        self._loop.call_later(self._host.limits.close_timeout, self.close)

    def close(self, reason: ErrorCode = ErrorCode.NO_ERROR) -> None:
        """Send the last GOAWAY, and close when the client has read it."""
        if self.grpc.http2.closed or self.grpc.closed or self._transport.is_closing():
            return
        self.grpc.http2.close(reason)
        self._unparsed = b""
        self.charges.keep(0)
        self.flush()
        self._timer.cancel()
        drop_input = reason is not ErrorCode.ENHANCE_YOUR_CALM
        self._timer = Closing(self._transport, self._loop, self._host.limits, drop_input=drop_input)

    # ---------------------------------------------------------------------------------------------- called by the server

    def catch_up(self, deadline: float = 0.0) -> None:
        """Handle bytes and work that waited, until the deadline; 0 is one slice from now."""
        if self.grpc.closed:
            return
        start = self._loop.time()
        deadline = deadline or start + SLICE
        was_queued, self._queued = self._queued, False
        while self._work:
            self._work[0]()
            del self._work[:1]  # now, so that `later` sees that work is being done
            if self._loop.time() > deadline:
                break
        if self._unparsed and not self._work:
            self._receive(self._unparsed, start, deadline)
        else:
            self.flush()
            self.charges.spend(start)
        if self._work:
            self._wait_for_turn()
        if was_queued and not self._queued:
            self._update_reading()

    def later(self, work: Callable[[], None]) -> None:
        """Do work of a call when it is the connection's turn."""
        self._work.append(work)
        if len(self._work) > 1:  # the first one has its turn already
            return
        now = self._loop.time()
        if self._queued or self.charges.must_wait(now):
            self._wait_for_turn()
        else:
            self._loop.call_soon(self.catch_up)

    def calm(self, reason: str, error: str = "the client used more than it may") -> None:
        """Close the connection with ENHANCE_YOUR_CALM, because it used too much of something."""
        if self.grpc.http2.closed or self.grpc.closed:
            return
        self._host.refused(self, reason, error)
        self._work.clear()
        self.grpc.abort_calls()
        self.close(ErrorCode.ENHANCE_YOUR_CALM)

    def flush(self) -> None:
        """Write the connection's output."""
        self._flush_scheduled = False
        grpc = self.grpc
        output = grpc.http2.output
        if grpc.closed or not output.buffers:
            return
        buffers, size = output.take()
        if size <= grpc.limits.write_chunk:
            self._transport.write(b"".join(buffers))
        else:
            self._transport.writelines(buffers)
        if grpc.output_full and grpc.writable:
            grpc.output_full = False
            self._loop.call_soon(grpc.window_opened)

    def check_alive(self, now: float) -> None:
        """Ping a silent client; disconnect one that does not answer."""
        if self._transport.is_closing():
            return
        limits, grpc = self._host.limits, self.grpc
        if self._progress.idle(now, grpc) and not grpc.http2.closed:
            self._host.refused(self, "idle", f"no call for {limits.idle_timeout:g} s")
            self.close()
            return
        if self._progress.slow(now, grpc, queued=self._queued, held=self.charges.held > 0):
            self.calm("slow", f"a frame or a message was not complete after {limits.incomplete_timeout:g} s")
        if self._ping is not None:
            if self._ping.waited(now, unread_bytes(self._transport)) > limits.keepalive_timeout:
                self.abort()
        elif now - self._active_at > limits.keepalive_interval and self._speaks_http2 and not self.grpc.http2.closed:
            self._ping = UnansweredPing(now, unread_bytes(self._transport))
            self.grpc.http2.ping()

    def abort(self) -> None:
        """Close at once."""
        if not self.grpc.closed:
            self._transport.abort()

    # ----------------------------------------------------------------------------------------------------------- private

    def _receive(self, data: bytes, start: float, deadline: float) -> None:
        """Handle bytes until the deadline, and charge the time since `start`."""
        http2 = self.grpc.http2
        try:
            unparsed = http2.receive(data, deadline)
        except ConnectionFault as fault:
            self._host.refused(self, "protocol error", str(fault)[:200])
            self.grpc.abort_calls()
            self.close(fault.reason)
            self.charges.spend(start)
            return
        except Exception as error:
            self._host.log.error("connection failed", peer=self.peer.address, exc_info=error)
            self._unparsed = b""
            self.abort()
            return
        if unparsed or self._unparsed:
            self._progress.received(start, len(data), len(unparsed))
            self._unparsed = unparsed
            self.charges.keep(len(unparsed))
        self.flush()
        frames, http2.frames = http2.frames, 0
        self.charges.spend(start, frames)
        if http2.interrupted:
            self._wait_for_turn()

    def _wait_for_turn(self) -> None:
        """Handle the rest when it is this connection's turn; read nothing more meanwhile."""
        if self._queued or self.grpc.closed or self.grpc.http2.closed:
            return
        self._queued = True
        self._update_reading()
        self._host.queue(self, self.charges.account, heavy=self.charges.heavy(self._loop.time()))

    def _update_reading(self) -> None:
        """Read from the client while the socket has room and the connection does not wait for its turn."""
        if self._transport.is_closing() or self.grpc.http2.closed:  # `Closing` decides
            return
        if self.grpc.writable and not self._queued:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

"""A connection over which xDS is spoken: gRPC's protocol on HTTP/2, on the event loop, without a task a stream.

What gRPC makes of HTTP/2 ("gRPC over HTTP2") is little: a call is a stream, its method is the path, each message goes into
DATA behind five bytes of prefix (`grpc_messages.py`), and how it ended comes in trailers. `connection.py` does HTTP/2; this
file does what is left, which is mostly about who may make whom wait:

    a client that does not read      its window is full, so its pump is asked for nothing more (`grpc_call.py`); or its
                                     socket is, and then nothing is read from it either
    a client that says too much      its pump does not listen: what it says stays in the window of its stream, which is not
                                     opened again until the pump has taken it
    a client that costs too much     pings, resets, empty frames: whatever it is, the time that a connection takes has a
                                     budget, and beyond it the connection is left alone for a while
    a client that is gone            has heard a ping for `_ANSWER` seconds and said nothing
    a client that speaks no HTTP/2   is told so (GOAWAY), if that is possible, and the connection is closed

A connection may have many streams, and mostly has one. What is written in one turn of the event loop goes out at once.
"""

from __future__ import annotations

import asyncio
import fcntl
import random
import socket
import sys
import termios
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

from controlplane.http2.budget import Budget
from controlplane.http2.connection import Connection, Stream
from controlplane.http2.frames import Buffer, ConnectionFault, ErrorCode
from controlplane.http2.grpc_call import Call
from controlplane.http2.headers import Headers
from controlplane.http2.peer import Peer, address

if TYPE_CHECKING:
    from controlplane.http2.server import Server

# So much is written to a connection before it is asked whether it takes more. As one piece, if it is no more than this.
_HIGH = 256 * 1024
_PIECE = 64 * 1024


class SocketTransport(asyncio.Protocol):
    """One connection of a client."""

    __slots__ = (
        "__weakref__",
        "_begun",
        "_blocked",
        "_budget",
        "_calls",
        "_crowded",
        "_heard",
        "_in_turn",
        "_is_dirty",
        "_left",
        "_loop",
        "_pinged",
        "_resting",
        "_tail",
        "_taken",
        "_timer",
        "_transport",
        "closed",
        "draining",
        "http2",
        "limits",
        "methods",
        "peer",
        "server",
        "unknown_method",
        "writable",
    )

    def __init__(self, server: Server) -> None:
        self.server = server
        self.methods = server.methods
        self.peer = Peer("")
        self.limits = server.limits
        self.unknown_method = server.unknown_method
        # False while the socket is full.
        self.writable = True
        # No new calls are taken.
        self.draining = False
        self.closed = False
        self._loop = asyncio.get_running_loop()
        self.http2 = Connection(
            self, self._loop.time, self.limits.max_streams, self.limits.stream_window, self.limits.connection_window
        )
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._calls: dict[int, Call] = {}
        # Calls that have something to say and no room for it.
        self._blocked: dict[Call, None] = {}
        # What came is being taken; there is something to be written at the end of the turn.
        self._in_turn = self._is_dirty = False
        # A call waits because so much is to be written already, and not for the client.
        self._crowded = False
        # The beginning of a frame that is still to come.
        self._tail = b""
        # Received and taken, and not given back to the connection's window yet.
        self._taken = 0
        # Its time; and whether it is left alone, since it took too much.
        self._budget = Budget(self._loop.time())
        self._resting = False
        # When it said something last; when it was pinged since then, 0 if it was not, or took something of what comes before
        # the ping; and how much it had not taken then.
        self._heard = self._loop.time()
        self._pinged = 0.0
        self._left = 0
        self._begun = False
        self._timer: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------------------------------------- from the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.peer = Peer(address(transport.get_extra_info("peername")))
        secured = transport.get_extra_info("ssl_object")
        # Without TLS, so that uvloop writes at once what it is given, and not after what came in this turn has been read.
        self._transport.set_write_buffer_limits(high=_HIGH if secured is not None else 0)
        if self.server.stopping or (secured is not None and secured.selected_alpn_protocol() != "h2"):
            self._transport.abort()
            return
        self.server.connections.add(self)
        self._after(self.limits.preface_timeout, self._check_begun)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._lose()
        self.server.left(self)

    def data_received(self, data: bytes) -> None:
        if self.http2.over:
            return
        self._heard, self._pinged = self._loop.time(), 0.0
        if self._tail:
            data = self._tail + data
        if len(data) < _PIECE and self.server.busy() and self.server.defer(self):
            self._tail = data
        else:
            self._take(data)

    def catch_up(self) -> None:
        """What waited is taken now."""
        if self._tail and not self.closed:
            self._take(self._tail)

    def _take(self, data: bytes) -> None:
        self._in_turn = True
        try:
            self._tail = self.http2.receive(data)
        except ConnectionFault as error:
            self._tail = b""
            self._wrong(error)
        except Exception as error:
            self.server.log.error("connection failed", peer=self.peer.address, exc_info=error)
            self._tail = b""
            self.abort()
        self._in_turn = False
        self.flush()

    def spent(self, seconds: float) -> None:
        """So much of the server's time went on what the connection says."""
        pause = self._budget.spend(seconds, self._loop.time())
        if pause and not self._resting and not self.closed:
            self._resting = self.http2.held = True
            self._pause()
            self._loop.call_later(pause, self._rested)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.writable = False
        # What it says would have to be answered, if only PINGs and SETTINGS, and it does not take the answers.
        self._pause()

    def resume_writing(self) -> None:
        self.writable = True
        # Who takes what it is sent is there, even if it can't say so: that is read only while there is room for answers.
        self._heard, self._pinged = self._loop.time(), 0.0
        self._resume()
        # Not before what it says was read once: it might be full again right away, for as long as there is something to send.
        self._loop.call_soon(self.opened)

    # ------------------------------------------------------------------------------------------------------ from HTTP/2

    def requested(self, stream: Stream, fields: Mapping[str, str]) -> None:
        """The client has opened a stream."""
        if self.draining:
            self.http2.reset(stream, ErrorCode.REFUSED_STREAM)
            return
        call = self._calls[stream.id] = Call(self, stream)
        call.open(fields)

    def began(self) -> None:
        """It is HTTP/2."""
        if self._begun:
            return
        self._begun = True
        assert self._timer is not None
        self._timer.cancel()
        self._timer = None
        if self.limits.max_age:
            age = self.limits.max_age * random.uniform(0.9, 1.1)
            self._after(age, self.drain)

    def opened(self) -> None:
        """There may be room for what waits."""
        if not self._blocked or not self.writable or self.closed:
            return
        self._crowded = False
        blocked, self._blocked = self._blocked, {}
        for call in blocked:
            call.notify()

    def leaving(self, reason: int) -> None:
        """The client goes; it may still want what is under way."""
        if reason:
            self._lose()
            self._close()
        elif not self.draining:
            self.draining = True
            if not self._calls:
                self._part()

    def wrote(self) -> None:
        """There is something to write: at the end of this turn."""
        if not self._in_turn and not self._is_dirty:
            self._is_dirty = True
            self.server.dirty(self)

    # ------------------------------------------------------------------------------------------------------ for calls

    def write(self, call: Call, unsent: list[Buffer]) -> None:
        """Sends as much of `rest` as may be sent now, and leaves what may not."""
        if not self.writable:
            return
        http2 = self.http2
        if http2.send(call.stream, unsent, _HIGH):
            self.wrote()
        if http2.size >= _HIGH:
            self._crowded = True

    def wait(self, call: Call) -> None:
        """A call has something to say, once there is room for it."""
        self._blocked[call] = None

    def send_headers(self, call: Call, headers: Headers, *, end: bool = False) -> None:
        """Sends these; `end` ends the stream, in both directions."""
        self.http2.headers(call.stream, headers, end=end)

    def reset(self, call: Call, reason: ErrorCode) -> None:
        """Ends a call's stream without a word."""
        self.http2.reset(call.stream, reason)

    def remove(self, call: Call) -> None:
        """A call is over."""
        self._calls.pop(call.stream.id, None)
        self._blocked.pop(call, None)
        if self.draining and not self._calls and not self.closed:
            self._part()

    def consumed(self, count: int) -> None:
        """So many bytes of DATA are done with."""
        self._taken += count
        if self._taken >= self.limits.window_update_bytes and not self.closed:
            self.http2.more(self._taken)
            self._taken = 0

    def open_window(self, call: Call, count: int) -> None:
        """Opens a call's window by so many bytes."""
        self.http2.more(count, call.stream)

    # ----------------------------------------------------------------------------------------------- for the server

    def flush(self) -> None:
        """Writes what there is."""
        self._is_dirty = False
        if self.closed or not self.http2.out:
            return
        out, size = self.http2.written()
        if size <= _PIECE:
            self._transport.write(b"".join(out))
        else:
            self._transport.writelines(out)
        if self._crowded and self.writable:
            self._crowded = False
            self._loop.call_soon(self.opened)

    def drain(self) -> None:
        """Takes no new calls, and closes once those that are open are over (GOAWAY)."""
        if self.draining or self.closed:
            return
        self.draining = True
        self.http2.greet()
        self.http2.leave()
        if not self._calls:
            self._part()

    def abort(self) -> None:
        """Closes at once."""
        if not self.closed:
            self._transport.abort()

    def look_after(self, now: float) -> None:
        """Pings who has not said anything for long, and leaves who does not answer."""
        if self._transport.is_closing():
            return
        if self._pinged:
            if self._takes():
                self._pinged = now  # it has not come to the ping yet
            elif now - self._pinged > self.limits.keepalive_timeout:
                self.abort()
        elif now - self._heard > self.limits.keepalive_interval and self._begun and not self.http2.over:
            self._pinged = now
            self.http2.ping()
            self._takes()

    # --------------------------------------------------------------------------------------------------------- inside

    def _takes(self) -> bool:
        """Whether there is less for the client to take than when this was asked before: to be written, or in the kernel."""
        before = self._left
        self._left = self._transport.get_write_buffer_size() + unsent(self._transport.get_extra_info("socket"))
        return self._left < before

    def _check_begun(self) -> None:
        if not self._begun:
            self.abort()

    def _wrong(self, error: ConnectionFault) -> None:
        """What the client said is not HTTP/2. It is told so, and everything of it ends."""
        self.server.log.info("connection closed: not HTTP/2 as it should be", peer=self.peer.address, error=str(error)[:200])
        self._lose()
        self._close(error.reason)

    def _lose(self) -> None:
        """Ends every call: nobody is there any more."""
        for call in list(self._calls.values()):
            try:
                call.aborted()
            except Exception as error:
                self.server.log.error("stream failed", peer=self.peer.address, exc_info=error)

    def _part(self) -> None:
        """All is said. The client is to close; if it does not, that is done for it."""
        self._loop.call_later(self.limits.close_timeout, self._close)

    def _close(self, reason: ErrorCode = ErrorCode.NO_ERROR) -> None:
        """Says that nothing more comes, and waits for the client to close. TLS has a farewell of its own."""
        if self.http2.over or self.closed or self._transport.is_closing():
            return
        self.http2.close(reason)
        self.flush()
        if self._transport.can_write_eof():
            self._transport.write_eof()
            self._transport.resume_reading()
            self._after(self.limits.close_timeout, self._end)
        else:
            self._end()

    def _end(self) -> None:
        self._transport.close()
        # Which waits until the client has taken what was written: not for ever.
        self._after(self.limits.keepalive_timeout, self.abort)

    def _after(self, seconds: float, then: Callable[[], None]) -> None:
        """Sets the one timer anew."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, then)

    def _pause(self) -> None:
        if not self.http2.over and not self._transport.is_closing():
            self._transport.pause_reading()

    def _rested(self) -> None:
        self._resting = self.http2.held = False
        self.catch_up()
        if not self._resting:
            self._resume()

    def _resume(self) -> None:
        if self.writable and not self._resting and not self._transport.is_closing():
            self._transport.resume_reading()


def unsent(sock: socket.socket) -> int:
    """Bytes that the kernel has and the other side does not, as far as TCP knows; 0 where the kernel does not say."""
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0

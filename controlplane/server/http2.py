"""A connection over which xDS is spoken: gRPC's protocol on the `h2` library, on the event loop, without a task a stream.

What gRPC makes of HTTP/2 ("gRPC over HTTP2") is little: a call is a stream, its method is the path, each message goes into
DATA behind five bytes of prefix (`framing.py`), and how it ended comes in trailers. The library does HTTP/2; this file does
what is left, which is mostly about who may make whom wait:

    a client that does not read      its window is full, so its pump is asked for nothing more (`http2_call.py`); or its
                                     socket is, and then nothing is read from it either
    a client that says too much      its pump does not listen: what it says stays in the window of its stream, which is not
                                     opened again until the pump has taken it
    a client that costs too much     pings, resets, empty frames: whatever it is, the time that a connection takes has a
                                     budget, and beyond it the connection is left alone for a while
    a client that is gone            has heard a ping for `_ANSWER` seconds and said nothing
    a client that speaks no HTTP/2   is told so (GOAWAY), if that is possible, and the connection is closed

One connection has many streams at most times one. What is written in one turn of the event loop goes out at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import structlog
from h2.connection import ConnectionState
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError

from controlplane.server.frames import HEADER_BYTES, OPENED, Buffer, Http2
from controlplane.server.http2_call import STREAM_WINDOW, Call, Headers
from controlplane.server.limits import MAX_REQUEST_BYTES, Budget

if TYPE_CHECKING:
    from controlplane.server.http2_server import Server

log = structlog.get_logger("xds")

# A connection that has said nothing for so long is asked whether it is there; and is closed when it does not answer. Seconds.
_SILENCE, _ANSWER = 30.0, 10.0

# How long a client may take to begin: TLS, and HTTP/2's preface.
PREFACE = 10.0

# How long a connection that is over waits for the client to close it, which has read all then. Seconds.
FAREWELL = 0.5

_STREAMS = 1_024
# Two of the largest requests can be on their way at a time.
_CONNECTION_WINDOW = 2 * MAX_REQUEST_BYTES

# What it costs to open a window, seconds: thousands of times in a row are a flood.
_OPENING = 2e-6

# So much is written to a connection before it is asked whether it takes more. As one piece, if it is no more than this.
_HIGH = 256 * 1024
_PIECE = 64 * 1024


class Connection(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.methods = server.methods
        self.peer = ""
        self.h2 = Http2(_STREAMS, STREAM_WINDOW, _CONNECTION_WINDOW)
        # False while the socket is full.
        self.writable = True
        # No new calls are taken.
        self.draining = False
        self.closed = False
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._calls: dict[int, Call] = {}
        # Calls that have something to say and no room for it.
        self._blocked: dict[Call, None] = {}
        # What is to be written next, and how much of it there is.
        self._out: list[Buffer] = []
        self._size = 0
        self._in_turn = self._is_dirty = False
        # The beginning of a frame that is still to come.
        self._tail = b""
        # Received and taken, and not given back to the connection's window yet.
        self._taken = 0
        # Its time; and whether it is left alone, since it took too much.
        self._budget = Budget(self._loop.time())
        self._resting = False
        # When it said something last; and when it was pinged since then, 0 if it was not.
        self._heard = self._loop.time()
        self._pinged = 0.0
        self._begun = False
        self._timer: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------------------------------------- from the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_HIGH)
        self.peer = address(transport.get_extra_info("peername"))
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        secured = transport.get_extra_info("ssl_object")
        if self.server.stopping or (secured is not None and secured.selected_alpn_protocol() != "h2"):
            self._transport.abort()
            return
        self.server.connections.add(self)
        self._timer = self._loop.call_later(PREFACE, self._check_begun)
        self._gather()
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._lose()
        self.server.left(self)

    def data_received(self, data: bytes) -> None:
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
            self._read(data)
        except ProtocolError as error:
            self._wrong(error)
        except Exception:  # whatever it was, it is this connection's
            log.exception("connection failed", peer=self.peer)
            self.abort()
        self._in_turn = False
        self.flush()

    def _read(self, data: bytes) -> None:
        """Takes what came frame by frame, and leaves the rest if it takes too long. Errors: ProtocolError."""
        h2, calls = self.h2, self._calls
        at, whole, opened = 0, len(data), False
        while at < whole and not self._resting:
            end, stream = h2.cut(data, at)
            if not end:
                break
            call = calls.get(stream)
            if call is not None and call.plain is not None:
                # As nearly all are. What it costs is the budget of the call's pump.
                h2.received(call.plain, end - at - HEADER_BYTES)
                call.data(data[at + HEADER_BYTES : end], 0)
            elif stream == OPENED:
                self.spent(_OPENING)
                opened = True
            else:
                self._frame(data[at:end])
            at = end
        self._tail = data[at:] if at < whole else b""
        if opened:
            self._unblock()

    def _frame(self, data: bytes) -> None:
        """Leaves a frame to the library, and does what follows. Errors: ProtocolError."""
        began = self._loop.time()
        for event in self.h2.receive_data(data):
            if handle := self._HANDLERS.get(type(event)):
                handle(self, event)
        self._gather()
        self.spent(self._loop.time() - began)

    def spent(self, seconds: float) -> None:
        """So much of the server's time went on what the connection says."""
        pause = self._budget.spend(seconds, self._loop.time())
        if pause and not self._resting and not self.closed:
            self._resting = True
            self._pause()
            self._loop.call_later(pause, self._rested)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.writable = False
        # What it says would have to be answered, if only by the library, and it does not take the answers.
        self._pause()

    def resume_writing(self) -> None:
        self.writable = True
        self._resume()
        self._unblock()

    # ------------------------------------------------------------------------------------------------------ for calls

    def write(self, call: Call, rest: list[Buffer]) -> None:
        """Sends as much of `rest` as may be sent now, and leaves what may not."""
        if not self.writable or self._size >= _HIGH or call.stream is None:
            return
        if sent := self.h2.send(call.stream, rest, self._out, _HIGH - self._size):
            self._size += sent
            self._later()

    def wait(self, call: Call) -> None:
        """A call has something to say, once there is room for it."""
        self._blocked[call] = None

    def headers(self, call: Call, headers: Headers, *, end: bool = False) -> None:
        """Sends these; `end` ends the stream, in both directions."""
        with contextlib.suppress(ProtocolError):  # it is closed already
            self.h2.send_headers(call.id, headers, end_stream=end)
            if end and not call.half_closed:
                # The client need say no more (RFC 9113, 8.1).
                self.h2.reset_stream(call.id, ErrorCodes.NO_ERROR)
        self._gather()

    def reset(self, call: Call, code: ErrorCodes) -> None:
        """Ends a call's stream without a word."""
        with contextlib.suppress(ProtocolError):
            self.h2.reset_stream(call.id, code)
        self._gather()

    def forget(self, call: Call) -> None:
        """A call is over."""
        self._calls.pop(call.id, None)
        self._blocked.pop(call, None)
        if self.draining and not self._calls and not self.closed:
            self._part()

    def took(self, count: int) -> None:
        """So many bytes of DATA are done with."""
        self._taken += count
        if self._taken >= _CONNECTION_WINDOW // 4 and not self.closed:
            with contextlib.suppress(ProtocolError):
                self.h2.increment_flow_control_window(self._taken)
            self._taken = 0
            self._gather()

    def more(self, call: Call, count: int) -> None:
        """Opens a call's window by so many bytes."""
        with contextlib.suppress(ProtocolError):
            self.h2.increment_flow_control_window(count, call.id)
        self._gather()

    # ----------------------------------------------------------------------------------------------- for the server

    def flush(self) -> None:
        """Writes what there is."""
        self._is_dirty = False
        if self.closed:
            return
        out, size = self._out, self._size
        self._out, self._size = [], 0
        if out:
            if size <= _PIECE:
                self._transport.write(b"".join(out))
            else:
                self._transport.writelines(out)
        if self._blocked and self.writable and out:
            # Those that had no room because of what was just written.
            self._loop.call_soon(self._unblock)

    def drain(self) -> None:
        """Takes no new calls, and closes once those that are open are over (GOAWAY)."""
        if self.draining or self.closed:
            return
        self.draining = True
        self._gather()
        self._out.append(self.h2.goodbye())
        self._later()
        if not self._calls:
            self._part()

    def abort(self) -> None:
        """Closes at once."""
        if not self.closed:
            self._transport.abort()

    def look_after(self, now: float) -> None:
        """Pings who has not said anything for long, and leaves who does not answer."""
        if self._pinged:
            if now - self._pinged > _ANSWER:
                self.abort()
        elif now - self._heard > _SILENCE and self._begun and self.h2.state_machine.state != ConnectionState.CLOSED:
            self._pinged = now
            self.h2.ping(b"\0" * 8)
            self._gather()

    # --------------------------------------------------------------------------------------------------------- inside

    def _requested(self, event: RequestReceived) -> None:
        if not self._begun:
            self._begin()
        call = Call(self, event.stream_id, self.h2.streams.get(event.stream_id))
        headers = {name: value.decode("latin-1") for name, value in event.headers}
        if self.draining:
            self.reset(call, ErrorCodes.REFUSED_STREAM)
            return
        self._calls[call.id] = call
        call.open(headers)

    def _data(self, event: DataReceived) -> None:
        call = self._calls.get(event.stream_id)
        padding = event.flow_controlled_length - len(event.data)
        if call is None:
            self.took(event.flow_controlled_length)
            return
        self.took(padding)
        call.data(event.data, padding)

    def _ended(self, event: StreamEnded) -> None:
        if call := self._calls.get(event.stream_id):
            call.said_all()

    def _was_reset(self, event: StreamReset) -> None:
        if call := self._calls.get(event.stream_id):
            call.lost()

    def _opened(self, event: WindowUpdated) -> None:
        if self._blocked:
            self._unblock()

    def _changed(self, event: RemoteSettingsChanged) -> None:
        if not self._begun:
            self._begin()
        self._unblock()

    def _terminated(self, event: ConnectionTerminated) -> None:
        """The client goes; it may still want what is under way."""
        if event.error_code:
            self.abort()
        else:
            self.draining = True
            if not self._calls:
                self._part()

    _HANDLERS: Mapping[type[Event], Callable[[Any, Any], None]] = {
        RequestReceived: _requested,
        DataReceived: _data,
        StreamEnded: _ended,
        StreamReset: _was_reset,
        WindowUpdated: _opened,
        RemoteSettingsChanged: _changed,
        ConnectionTerminated: _terminated,
    }

    def _begin(self) -> None:
        """It is HTTP/2."""
        self._begun = True
        assert self._timer is not None
        self._timer.cancel()
        self._timer = None
        if self.server.limits.max_stream_age:
            # A new stream on the old connection would come to the same replica: from shortly before its first one ends, the
            # connection takes no new ones.
            age = 0.8 * self.server.limits.max_stream_age * random.uniform(0.9, 1.1)
            self._timer = self._loop.call_later(age, self.drain)

    def _check_begun(self) -> None:
        if not self._begun:
            self.abort()

    def _wrong(self, error: ProtocolError) -> None:
        """What the client said is not HTTP/2. It is told so, and everything of it ends."""
        log.info("connection closed: not HTTP/2 as it should be", peer=self.peer, error=str(error)[:200])
        self._lose()
        if self.h2.state_machine.state != ConnectionState.CLOSED:
            self.h2.close_connection(error.error_code)
        self._gather()
        self.flush()
        self._transport.close()

    def _lose(self) -> None:
        """Ends every call: nobody is there any more."""
        for call in list(self._calls.values()):
            call.lost()

    def _part(self) -> None:
        """All is said. The client is to close; if it does not, that is done for it."""
        self._later()
        self._loop.call_later(FAREWELL, self._close)

    def _close(self) -> None:
        if not self.closed:
            self._transport.close()

    def _pause(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def _rested(self) -> None:
        self._resting = False
        self.catch_up()
        if not self._resting:
            self._resume()

    def _resume(self) -> None:
        if self.writable and not self._resting and not self._transport.is_closing():
            self._transport.resume_reading()

    def _unblock(self) -> None:
        if not self._blocked or not self.writable or self.closed:
            return
        blocked, self._blocked = self._blocked, {}
        for call in blocked:
            call.go_on()

    def _gather(self) -> None:
        """Takes over what the library has to say."""
        if data := self.h2.data_to_send():
            self._out.append(data)
            self._size += len(data)
            self._later()

    def _later(self) -> None:
        """There is something to write: at the end of this turn."""
        if not self._in_turn and not self._is_dirty:
            self._is_dirty = True
            self.server.dirty(self)


def address(name: Any) -> str:
    """A socket's name as people write it: `127.0.0.1:5000`, `[::1]:5000`."""
    if not isinstance(name, tuple):
        return str(name or "")
    host, port = str(name[0]).removeprefix("::ffff:"), name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

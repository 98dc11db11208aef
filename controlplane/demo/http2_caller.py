"""HTTP/2 connections of the load."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import h2.config
import h2.connection
import h2.events

from controlplane.demo.driver import Connection, Driver, Pace
from controlplane.demo.load import VERSION_HEADER
from controlplane.http2.frames import GOAWAY, HEADER, HEADER_BYTES, LOW_31_BITS


@dataclass(slots=True)
class Sent:
    """A request in flight on an HTTP/2 stream."""

    pace: Pace
    start: float
    user: int
    # The answer's version and the time of its head; None and 0.0 before the head has come.
    version: str | None = None
    head: float = 0.0
    # Bytes of the body that have come, and its content-length (-1 without one).
    received: int = 0
    announced: int = -1


class Http2(Connection):
    """One HTTP/2 connection (prior knowledge) with several requests in flight.

    After a GOAWAY (RFC 9113, section 6.8) it finishes the requests in flight, and sends nothing more. Its successor, another
    connection that is made at once, gets its slots and the requests that the server has not processed.
    """

    def __init__(self, driver: Driver, number: int, slot: int) -> None:
        super().__init__(driver, number)
        # The slots that send on this connection.
        self.paces = [Pace(self.group, slot * self.group.slots + i) for i in range(self.group.slots)]
        self.streams: dict[int, Sent] = {}
        # Requests that are sent when the connection has been made.
        self.unsent: list[Sent] = []
        # None until a GOAWAY.
        self.successor: Http2 | None = None
        self.buffer = bytearray()
        self.slot = slot

    def is_wanted(self) -> bool:
        return bool(self.unsent) or super().is_wanted()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.generation += 1
        self.buffer.clear()
        config = h2.config.H2Configuration(validate_outbound_headers=False, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(2**30)
        unsent, self.unsent = self.unsent, []
        for sent in unsent:
            self.request(sent)
        self.flush()
        busy = {id(sent.pace) for sent in unsent}
        for pace in self.paces:
            if id(pace) not in busy:
                self.pause(pace)

    def pause(self, pace: Pace) -> None:
        """Send the next request of a slot when it is due."""
        delay = pace.delay()
        if delay:
            asyncio.get_running_loop().call_later(delay, self.send, pace, self.generation)
        else:
            self.send(pace, self.generation)

    def send(self, pace: Pace, generation: int) -> None:
        """Send the next user's request, unless the connection of this generation is closed."""
        closed = self.transport is None or self.transport.is_closing() or self.successor is not None
        if closed or generation != self.generation or (user := self.driver.next_user()) is None:
            return
        self.request(Sent(pace, time.time(), user))

    def request(self, sent: Sent) -> None:
        """Send a request on a new stream."""
        stream, g = self.h2.get_next_available_stream_id(), self.group
        headers = [
            (":method", "POST" if g.body else "GET"),
            (":scheme", "http"),
            (":authority", g.authority),
            (":path", g.path),
        ]
        cookie = g.user_header.removeprefix("cookie:")
        headers.append(("cookie", f"{cookie}=u{sent.user}") if cookie != g.user_header else (g.user_header, f"u{sent.user}"))
        if g.body:
            headers += [("content-type", "application/json"), ("content-length", str(len(g.body.encode())))]
        self.streams[stream] = sent
        self.h2.send_headers(stream, headers, end_stream=not g.body)
        if g.body:
            self.h2.send_data(stream, g.body.encode(), end_stream=True)
        self.flush()

    def flush(self) -> None:
        """Write what h2 has to send."""
        if self.transport is not None and (data := self.h2.data_to_send()):
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        frames, last_streams = take_frames(self.buffer)
        for event in self.h2.receive_data(frames):
            if isinstance(event, h2.events.ResponseReceived):
                self.head(event.stream_id, dict(event.headers or ()))
            elif isinstance(event, h2.events.DataReceived):
                if (state := self.streams.get(event.stream_id)) is not None:
                    state.received += len(event.data or b"")
                self.h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.end(event.stream_id, "")
            elif isinstance(event, h2.events.StreamReset):
                self.end(event.stream_id, f"stream reset with {event.error_code}")
        for last_stream in last_streams:
            self.leave(last_stream)
        self.flush()
        if self.successor is not None and not self.streams and self.transport is not None:
            self.transport.close()

    def leave(self, last_stream: int) -> None:
        """Act on a GOAWAY: the server has processed, or will process, the streams up to `last_stream`."""
        if self.successor is None:
            self.successor = Http2(self.driver, self.number, self.slot)
            busy = {id(sent.pace) for sent in self.streams.values()}
            self.successor.paces = [pace for pace in self.paces if id(pace) not in busy]
            self.driver.background(self.successor.connect())
        for stream in [stream for stream in self.streams if stream > last_stream]:
            sent = self.streams.pop(stream)
            self.successor.take(sent.pace, Sent(sent.pace, sent.start, sent.user))

    def take(self, pace: Pace, unsent: Sent | None = None) -> None:
        """Take over a slot from a connection that gets no new requests, with a request that it has not sent successfully."""
        if self.successor is not None:
            self.successor.take(pace, unsent)
            return
        self.paces.append(pace)
        connected = self.transport is not None
        if unsent is None and connected:
            self.pause(pace)
        elif unsent is not None and connected:
            self.request(unsent)
        elif unsent is not None:
            self.unsent.append(unsent)

    def head(self, stream: int, headers: dict[Any, Any]) -> None:
        """Record the version in an answer's head, or fail the request."""
        if headers.get(":status") != "200" or VERSION_HEADER not in headers:
            self.end(stream, f"status {headers.get(':status')}")
        elif (state := self.streams.get(stream)) is not None:
            state.version, state.head = headers[VERSION_HEADER], time.time()
            state.announced = int(headers.get("content-length", -1))

    def end(self, stream: int, failure: str) -> None:
        """Record the request of a stream that has ended. It succeeded if `failure` is empty and the body is complete."""
        if (state := self.streams.pop(stream, None)) is None:
            return
        if not failure and state.announced not in (-1, state.received):
            failure = f"{state.received} of {state.announced} bytes"
        if not failure and state.version is None:
            failure = "ended without an answer"
        self.driver.done(state.start, state.head, state.user, self.number, None if failure else state.version, failure)
        if self.successor is None:
            self.pause(state.pace)
        else:
            self.successor.take(state.pace)

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        for stream in list(self.streams):
            self.end(stream, f"connection closed ({error or 'EOF'})")
        if self.successor is None:
            self.reconnect()


def take_frames(buffer: bytearray) -> tuple[bytes, list[int]]:
    """Remove the complete frames from a buffer. Return them without GOAWAY frames, and the last stream of each of those.

    h2 accepts no frame after a GOAWAY, although the server goes on with its streams.
    """
    frames, last_streams, start = bytearray(), [], 0
    while len(buffer) - start >= HEADER_BYTES:
        high, low, kind, *_ = HEADER.unpack_from(buffer, start)
        end = start + HEADER_BYTES + (high << 8 | low)
        if end > len(buffer):
            break
        if kind == GOAWAY:
            last_streams.append(int.from_bytes(buffer[start + HEADER_BYTES : start + HEADER_BYTES + 4]) & LOW_31_BITS)
        else:
            frames += buffer[start:end]
        start = end
    del buffer[:start]
    return bytes(frames), last_streams

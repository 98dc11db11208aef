"""HTTP/1.1 connections of the load."""

from __future__ import annotations

import asyncio
import time

from controlplane.demo.driver import Connection, Driver, Pace
from controlplane.demo.load import VERSION_HEADER


class Http1(Connection):
    """One HTTP/1.1 connection, one request at a time.

    After an answer with `connection: close` it sends nothing more (RFC 9112, section 9.6), and another one is made.
    """

    def __init__(self, driver: Driver, number: int, slot: int) -> None:
        super().__init__(driver, number)
        self.pace = Pace(self.group, slot)
        self.buffer = bytearray()
        # The request in flight as (start, user); None between requests.
        self.sent: tuple[float, int] | None = None
        # The answer's version; None before its head has come.
        self.version: str | None = None
        # Bytes of the body that are still to come; None for a chunked body.
        self.remaining: int | None = 0
        # Time of the answer's head; 0.0 before it has come.
        self.head = 0.0
        # True if the answer is the last one on this connection.
        self.leaving = False
        g = self.group
        line = f"{'POST' if g.body else 'GET'} {g.path} HTTP/1.1\r\nhost: {g.authority}\r\n"
        length = f"content-type: application/json\r\ncontent-length: {len(g.body.encode())}\r\n" if g.body else ""
        cookie = g.user_header.removeprefix("cookie:")
        key = f"cookie: {cookie}=u" if cookie != g.user_header else f"{g.user_header}: u"
        # The request's bytes before and after the user's number.
        self.before, self.after = f"{line}{length}{key}".encode(), b"\r\n\r\n" + g.body.encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.generation += 1
        self.buffer.clear()
        self.leaving = False
        self.pause()

    def pause(self) -> None:
        """Send the next request when it is due."""
        delay = self.pace.delay()
        if delay:
            asyncio.get_running_loop().call_later(delay, self.send, self.generation)
        else:
            self.send(self.generation)

    def send(self, generation: int) -> None:
        """Send the next user's request, unless the connection of this generation is closed."""
        closed = self.transport is None or self.transport.is_closing() or generation != self.generation
        if closed or self.transport is None or (user := self.driver.next_user()) is None:
            return
        self.version, self.remaining, self.head = None, 0, 0.0
        self.sent = time.time(), user
        self.transport.write(self.before + str(user).encode() + self.after)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.sent is None:
            return self.fail("an answer without a request")
        if self.version is None and not self.read_head():
            return None
        if self.remaining is None:
            if not self.read_chunks():
                return None
        elif len(self.buffer) < self.remaining:
            return None
        else:
            del self.buffer[: self.remaining]
        (start, user), self.sent = self.sent, None
        self.driver.done(start, self.head, user, self.number, self.version)
        if self.leaving and self.transport is not None:
            return self.transport.close()
        return self.pause()

    def read_head(self) -> bool:
        """Parse the answer's head. Return False if it is incomplete, or if the request has failed."""
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        lines = self.buffer[:end].decode("latin-1").split("\r\n")
        del self.buffer[: end + 4]
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        if lines[0].split(" ")[1] != "200" or VERSION_HEADER not in headers:
            self.fail(lines[0] + " " + bytes(self.buffer[:200]).decode("latin-1"))
            return False
        self.version, self.head = headers[VERSION_HEADER], time.time()
        self.leaving = headers.get("connection", "").lower() == "close"
        self.remaining = None if headers.get("transfer-encoding") == "chunked" else int(headers["content-length"])
        return True

    def read_chunks(self) -> bool:
        """Consume complete chunks. Return True after the last one."""
        while (end := self.buffer.find(b"\r\n")) >= 0:
            size = int(self.buffer[:end].split(b";")[0], 16)
            if len(self.buffer) < end + 2 + size + 2:
                return False
            del self.buffer[: end + 2 + size + 2]
            if size == 0:
                return True
        return False

    def fail(self, failure: str) -> None:
        """Record the request in flight as failed, and close the connection."""
        if self.sent is not None:
            (start, user), self.sent = self.sent, None
            self.driver.done(start, self.head, user, self.number, None, failure)
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        cut = "in the middle of the answer" if self.version is not None else "before the answer"
        self.fail(f"connection closed {cut} ({error or 'EOF'})")
        self.reconnect()

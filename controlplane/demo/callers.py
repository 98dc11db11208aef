"""The process inside `load.py`: connections that call, each slot in a closed loop.

    python -m controlplane.demo.callers DIR/spec.json

tells how it goes in DIR/status.json, and ends on SIGTERM, or when all passes are through, with DIR/records.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events

from controlplane.demo.load import FAILED, ROW, VERSION_HEADER, Group


class Driver:
    """Gives out users and takes in results; shared by all connections."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.groups = [Group(**g) for g in spec["groups"]]
        self.rows = bytearray()
        self.counts: Counter[str] = Counter()
        self.versions: dict[str, int] = {}
        self.failures: list[str] = []
        # Requests under way; the process ends when it is to stop and there are none.
        self.busy = 0
        self.stopping = asyncio.Event()
        self._idle = asyncio.Event()
        first, users = spec["first_user"], spec["users"]
        turns = itertools.repeat(None, spec["passes"]) if spec["passes"] else itertools.repeat(None)
        self._users: Iterator[int] = (u for _ in turns for u in range(first, first + users))

    def next_user(self) -> int | None:
        """The user who calls next; None when no one does any more."""
        user = None if self.stopping.is_set() else next(self._users, None)
        if user is None:
            self.stopping.set()
            self.check_idle()
        else:
            self.busy += 1
        return user

    def done(self, start: float, head: float, user: int, group: int, version: str | None, failure: str = "") -> None:
        """One request has ended; `head` 0.0: its answer never began; `version` None: it failed, in words in `failure`."""
        end = time.time()
        self.busy -= 1
        if version is None:
            number = FAILED
            self.counts["failed"] += 1
            if len(self.failures) < 50:
                self.failures.append(f"{start:.6f} +{end - start:.3f} s u{user} {self.groups[group].path}: {failure}")
        else:
            number = self.versions.setdefault(version, len(self.versions))
            self.counts[version] += 1
        self.rows += ROW.pack(start, head or end, end, user, number, group)
        self.check_idle()

    def check_idle(self) -> None:
        """Wakes `drained` when there is nothing left to wait for."""
        if self.stopping.is_set() and self.busy == 0:
            self._idle.set()

    async def drained(self) -> None:
        """Waits until it is to stop, and then for the requests under way; for those at most 30 s."""
        await self.stopping.wait()
        self.check_idle()
        try:
            await asyncio.wait_for(self._idle.wait(), 30)
        except TimeoutError:
            self.failures.insert(0, f"{self.busy} requests were never answered")
            self.rows += ROW.pack(time.time(), time.time(), time.time(), 0, FAILED, 0) * self.busy

    def write(self, file: Path) -> None:
        """Writes the records: a line of JSON, then rows."""
        groups = [g.name for g in self.groups]
        head = json.dumps({"versions": list(self.versions), "groups": groups, "failures": self.failures})
        file.write_bytes(head.encode() + b"\n" + self.rows)


class Pace:
    """When a slot may send again: `rate` is of the group, spread evenly over its slots."""

    def __init__(self, group: Group, slot: int) -> None:
        self.interval = group.connections * group.slots / group.rate if group.rate else 0.0
        self.next = time.monotonic() + self.interval * slot / (group.connections * group.slots)

    def delay(self) -> float:
        """Seconds to wait before the next request; 0.0: none. A slot that is late does not hurry to make up for it."""
        if not self.interval:
            return 0.0
        now = time.monotonic()
        wait, self.next = max(0.0, self.next - now), max(now, self.next) + self.interval
        return wait


class Connection(asyncio.Protocol):
    """What the two kinds of connection share: they connect, and connect anew when they were closed."""

    def __init__(self, driver: Driver, number: int) -> None:
        self.driver = driver
        self.number = number
        self.group = driver.groups[number]
        # None while not connected.
        self.transport: asyncio.Transport | None = None
        # Grows with each connection: a request that was due on an earlier one is not sent on this one.
        self.generation = 0

    async def connect(self) -> None:
        """Connects; where that fails, it counts as the next user's failed request, and is tried again a little later."""
        while not self.driver.stopping.is_set():
            start = time.time()
            try:
                await asyncio.get_running_loop().create_connection(lambda: self, self.group.host, self.group.port)
                return
            except OSError as error:
                if (user := self.driver.next_user()) is not None:
                    self.driver.done(start, 0.0, user, self.number, None, f"could not connect: {error}")
                await asyncio.sleep(0.1)

    def connect_anew(self) -> None:
        """Connects again, unless it is all over."""
        self.transport = None
        if not self.driver.stopping.is_set():
            _background(self.connect())


class Http1(Connection):
    """One HTTP/1.1 connection, one request at a time."""

    def __init__(self, driver: Driver, number: int, slot: int) -> None:
        super().__init__(driver, number)
        self.pace = Pace(self.group, slot)
        self.buffer = bytearray()
        # The request under way, (start, user); None between requests.
        self.sent: tuple[float, int] | None = None
        # The answer's version, once its head is there; how its body ends: bytes still to come, or None for chunked.
        self.version: str | None = None
        self.left: int | None = 0
        self.head = 0.0
        g = self.group
        line = f"{'POST' if g.body else 'GET'} {g.path} HTTP/1.1\r\nhost: {g.authority}\r\n"
        length = f"content-type: application/json\r\ncontent-length: {len(g.body.encode())}\r\n" if g.body else ""
        cookie = g.user_header.removeprefix("cookie:")
        key = f"cookie: {cookie}=u" if cookie != g.user_header else f"{g.user_header}: u"
        self.before, self.after = f"{line}{length}{key}".encode(), b"\r\n\r\n" + g.body.encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.generation += 1
        self.buffer.clear()
        self.pause()

    def pause(self) -> None:
        """Sends the next request when it is due."""
        delay = self.pace.delay()
        if delay:
            asyncio.get_running_loop().call_later(delay, self.send, self.generation)
        else:
            self.send(self.generation)

    def send(self, generation: int) -> None:
        closed = self.transport is None or self.transport.is_closing() or generation != self.generation
        if closed or self.transport is None or (user := self.driver.next_user()) is None:
            return
        self.version, self.left, self.head = None, 0, 0.0
        self.sent = time.time(), user
        self.transport.write(self.before + str(user).encode() + self.after)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.sent is None:
            return self.fail("an answer that nobody asked for")
        if self.version is None and not self.read_head():
            return None
        if self.left is None:
            if not self.read_chunks():
                return None
        elif len(self.buffer) < self.left:
            return None
        else:
            del self.buffer[: self.left]
        (start, user), self.sent = self.sent, None
        self.driver.done(start, self.head, user, self.number, self.version)
        return self.pause()

    def read_head(self) -> bool:
        """Takes the answer's head off the buffer; False when it is not all there, or the answer has failed."""
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
        self.left = None if headers.get("transfer-encoding") == "chunked" else int(headers["content-length"])
        return True

    def read_chunks(self) -> bool:
        """Takes whole chunks off the buffer; True when the last one was there."""
        while (end := self.buffer.find(b"\r\n")) >= 0:
            size = int(self.buffer[:end].split(b";")[0], 16)
            if len(self.buffer) < end + 2 + size + 2:
                return False
            del self.buffer[: end + 2 + size + 2]
            if size == 0:
                return True
        return False

    def fail(self, failure: str) -> None:
        if self.sent is not None:
            (start, user), self.sent = self.sent, None
            self.driver.done(start, self.head, user, self.number, None, failure)
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        cut = "in the middle of the answer" if self.version is not None else "before the answer"
        self.fail(f"connection closed {cut} ({error or 'EOF'})")
        self.connect_anew()


@dataclass(slots=True)
class Sent:
    """A request under way on an HTTP/2 stream."""

    pace: Pace
    start: float
    user: int
    # Its answer's version and when it began; None and 0.0 before that.
    version: str | None = None
    head: float = 0.0
    # Bytes of the body: so far, and announced (-1: not).
    got: int = 0
    announced: int = -1


class Http2(Connection):
    """One HTTP/2 connection (prior knowledge) with several requests under way at once."""

    def __init__(self, driver: Driver, number: int, slot: int) -> None:
        super().__init__(driver, number)
        self.paces = [Pace(self.group, slot * self.group.slots + i) for i in range(self.group.slots)]
        self.streams: dict[int, Sent] = {}
        # Set once the other side has said GOAWAY: what is under way is finished, nothing new is sent on this connection.
        self.leaving = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.leaving = transport, False
        self.generation += 1
        config = h2.config.H2Configuration(validate_outbound_headers=False, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(2**30)
        self.flush()
        for pace in self.paces:
            self.pause(pace)

    def pause(self, pace: Pace) -> None:
        """Sends the next request of a slot when it is due."""
        delay = pace.delay()
        if delay:
            asyncio.get_running_loop().call_later(delay, self.send, pace, self.generation)
        else:
            self.send(pace, self.generation)

    def send(self, pace: Pace, generation: int) -> None:
        closed = self.transport is None or self.transport.is_closing() or self.leaving
        if closed or generation != self.generation or (user := self.driver.next_user()) is None:
            return
        stream, g = self.h2.get_next_available_stream_id(), self.group
        headers = [
            (":method", "POST" if g.body else "GET"),
            (":scheme", "http"),
            (":authority", g.authority),
            (":path", g.path),
        ]
        cookie = g.user_header.removeprefix("cookie:")
        headers.append(("cookie", f"{cookie}=u{user}") if cookie != g.user_header else (g.user_header, f"u{user}"))
        if g.body:
            headers += [("content-type", "application/json"), ("content-length", str(len(g.body.encode())))]
        self.streams[stream] = Sent(pace, time.time(), user)
        self.h2.send_headers(stream, headers, end_stream=not g.body)
        if g.body:
            self.h2.send_data(stream, g.body.encode(), end_stream=True)
        self.flush()

    def flush(self) -> None:
        if self.transport is not None and (data := self.h2.data_to_send()):
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                self.head(event.stream_id, dict(event.headers or ()))
            elif isinstance(event, h2.events.DataReceived):
                if (state := self.streams.get(event.stream_id)) is not None:
                    state.got += len(event.data or b"")
                self.h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.end(event.stream_id, "")
            elif isinstance(event, h2.events.StreamReset):
                self.end(event.stream_id, f"stream reset with {event.error_code}")
            elif isinstance(event, h2.events.ConnectionTerminated):
                self.leaving = True
        self.flush()
        if self.leaving and not self.streams and self.transport is not None:
            self.transport.close()

    def head(self, stream: int, headers: dict[Any, Any]) -> None:
        if headers.get(":status") != "200" or VERSION_HEADER not in headers:
            self.end(stream, f"status {headers.get(':status')}")
        elif (state := self.streams.get(stream)) is not None:
            state.version, state.head = headers[VERSION_HEADER], time.time()
            state.announced = int(headers.get("content-length", -1))

    def end(self, stream: int, failure: str) -> None:
        """A stream has ended, well when `failure` is empty and its body is whole."""
        if (state := self.streams.pop(stream, None)) is None:
            return
        if not failure and state.announced not in (-1, state.got):
            failure = f"{state.got} of {state.announced} bytes"
        if not failure and state.version is None:
            failure = "ended without an answer"
        self.driver.done(state.start, state.head, state.user, self.number, None if failure else state.version, failure)
        self.pause(state.pace)

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        for stream in list(self.streams):
            self.end(stream, f"connection closed ({error or 'EOF'})")
        if not self.driver.stopping.is_set():
            _background(self.connect())


_tasks: set[asyncio.Task[None]] = set()


def _background(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.get_running_loop().create_task(work)
    _tasks.add(task)  # the loop itself keeps only a weak reference
    task.add_done_callback(_tasks.discard)


async def _drive(spec: dict[str, Any], directory: Path) -> None:
    driver = Driver(spec)
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, driver.stopping.set)
    for number, group in enumerate(driver.groups):
        kind = Http2 if group.http2 else Http1
        for slot in range(group.connections):
            _background(kind(driver, number, slot).connect())

    async def tell() -> None:
        status, fresh = directory / "status.json", directory / "status.new"
        while True:
            if driver.counts:
                fresh.write_text(json.dumps(driver.counts))
                os.replace(fresh, status)
            await asyncio.sleep(0.1)

    _background(tell())
    await driver.drained()
    driver.write(directory / "records.new")
    os.replace(directory / "records.new", directory / "records")


if __name__ == "__main__":
    spec_file = Path(sys.argv[1])
    asyncio.run(_drive(json.loads(spec_file.read_text()), spec_file.parent))

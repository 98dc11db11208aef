"""The load's bookkeeping: which user sends next and when, and the result of each request."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

from controlplane.demo.load import FAILED, MAX_FAILURES, ROW, Group

# Seconds for which the driver waits for requests in flight when it stops.
_DRAIN_TIMEOUT = 30.0


class Driver:
    """Hands out users and records results. All connections share one driver."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.groups = [Group(**g) for g in spec["groups"]]
        self.rows = bytearray()
        self.counts: Counter[str] = Counter()
        self.versions: dict[str, int] = {}
        self.failures: list[str] = []
        # Requests in flight. The process ends when the driver is stopping and there are none.
        self.busy = 0
        self.stopping = asyncio.Event()
        self._idle = asyncio.Event()
        # The event loop keeps only weak references to its tasks.
        self._tasks: set[asyncio.Task[None]] = set()
        first, users = spec["first_user"], spec["users"]
        turns = itertools.repeat(None, spec["passes"]) if spec["passes"] else itertools.repeat(None)
        self._users: Iterator[int] = (u for _ in turns for u in range(first, first + users))

    def next_user(self) -> int | None:
        """Return the user who sends the next request; None if there is none left."""
        user = None if self.stopping.is_set() else next(self._users, None)
        if user is None:
            self.stopping.set()
            self.check_idle()
        else:
            self.busy += 1
        return user

    def done(self, start: float, head: float, user: int, group: int, version: str | None, failure: str = "") -> None:
        """Record a request that has ended.

        `head` is the time of the answer's head, 0.0 if there was none. `version` is None if the request failed; `failure`
        then says why.
        """
        end = time.time()
        self.busy -= 1
        if version is None:
            number = FAILED
            self.counts["failed"] += 1
            if len(self.failures) < MAX_FAILURES:
                self.failures.append(f"{start:.6f} +{end - start:.3f} s u{user} {self.groups[group].path}: {failure}")
        else:
            number = self.versions.setdefault(version, len(self.versions))
            self.counts[version] += 1
        self.rows += ROW.pack(start, head or end, end, user, number, group)
        self.check_idle()

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine as a task."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def check_idle(self) -> None:
        """Wake `drained` if the driver is stopping and no request is in flight."""
        if self.stopping.is_set() and self.busy == 0:
            self._idle.set()

    async def drained(self) -> None:
        """Wait until the driver is stopping, and then up to 30 s for the requests in flight."""
        await self.stopping.wait()
        self.check_idle()
        try:
            await asyncio.wait_for(self._idle.wait(), _DRAIN_TIMEOUT)
        except TimeoutError:
            self.failures.insert(0, f"{self.busy} requests were never answered")
            self.rows += ROW.pack(time.time(), time.time(), time.time(), 0, FAILED, 0) * self.busy

    def write(self, file: Path) -> None:
        """Write the records: a line of JSON, then the rows."""
        groups = [g.name for g in self.groups]
        head = json.dumps({"versions": list(self.versions), "groups": groups, "failures": self.failures})
        file.write_bytes(head.encode() + b"\n" + self.rows)


class Pace:
    """Spreads a group's rate evenly over its slots: decides when a slot may send again."""

    def __init__(self, group: Group, slot: int) -> None:
        self.interval = group.connections * group.slots / group.rate if group.rate else 0.0
        self.next = time.monotonic() + self.interval * slot / (group.connections * group.slots)

    def delay(self) -> float:
        """Return the seconds to wait before the next request. A slot that is late does not catch up."""
        if not self.interval:
            return 0.0
        now = time.monotonic()
        wait, self.next = max(0.0, self.next - now), max(now, self.next) + self.interval
        return wait


class Connection(asyncio.Protocol):
    """The common part of HTTP/1.1 and HTTP/2 connections: connecting, and reconnecting after a close."""

    def __init__(self, driver: Driver, number: int) -> None:
        self.driver = driver
        self.number = number
        self.group = driver.groups[number]
        # None while not connected.
        self.transport: asyncio.Transport | None = None
        # Incremented with each connection, so that a request scheduled on an earlier one is not sent on this one.
        self.generation = 0

    async def connect(self) -> None:
        """Connect. A failed attempt counts as a failed request of the next user; try again after 0.1 s."""
        while self.is_wanted():
            start = time.time()
            try:
                await asyncio.get_running_loop().create_connection(lambda: self, self.group.host, self.group.port)
                return
            except OSError as error:
                if (user := self.driver.next_user()) is not None:
                    self.driver.done(start, 0.0, user, self.number, None, f"could not connect: {error}")
                await asyncio.sleep(0.1)

    def is_wanted(self) -> bool:
        """Return True if there is something to send on a new connection."""
        return not self.driver.stopping.is_set()

    def reconnect(self) -> None:
        """Connect again, unless the driver is stopping."""
        self.transport = None
        if not self.driver.stopping.is_set():
            self.driver.background(self.connect())

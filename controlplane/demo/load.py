"""Users who call without a pause, and a record of every request: when it started, when it ended, which version answered.

The load runs in a process of its own (`callers.py`), so that it neither slows what it measures nor waits for it. It is a
closed loop: each slot sends its next request when it has the whole answer to the last. A request has failed when its answer
is not 200, is not whole, or never came; nothing is tried again, nothing is counted on luck.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from controlplane.demo.process import Process
from controlplane.errors import Code, Error

# Names the version that answered; a 200 without it has failed.
VERSION_HEADER = "x-model-version"
# How a request is recorded: start, head, end, user, version (FAILED: none), group.
ROW = struct.Struct("<dddIHH")
FAILED = 0xFFFF


@dataclass(frozen=True, slots=True)
class Group:
    """Slots that send the same kind of request to one address."""

    host: str
    port: int
    path: str
    name: str = ""
    http2: bool = False
    connections: int = 8
    slots: int = 1  # requests under way at once on each connection; more than 1 needs http2
    rate: float = 0.0  # requests a second of the whole group; 0: as fast as they are answered
    body: str = ""  # empty: a GET
    user_header: str = "x-user"  # `cookie:NAME` sends a cookie instead
    authority: str = "turnout.test"


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as its sender saw it. Times are seconds since the epoch."""

    start: float
    # When the head of the answer came: it was routed before that. As `end` when none came.
    head: float
    end: float
    user: int
    # The version that answered; None when it failed.
    version: str | None
    group: str


@dataclass(frozen=True, slots=True)
class Records:
    """What became of a load."""

    requests: Sequence[Request]
    # The first failures, in words; at most 50.
    failures: Sequence[str]

    @property
    def failed(self) -> int:
        """How many requests failed."""
        return sum(r.version is None for r in self.requests)

    def by_version(self, since: float = 0.0, until: float = float("inf")) -> Counter[str]:
        """Answered requests that started in [since, until), by version."""
        return Counter(r.version for r in self.requests if r.version is not None and since <= r.start < until)


class Load:
    """A load under way, seen from the outside."""

    def __init__(self, groups: Sequence[Group], *, users: int, passes: int = 0, first_user: int = 0) -> None:
        """Calls as users `u{first_user}` … in turn; `passes` > 0 ends by itself when each user called that often."""
        self._temporary = tempfile.TemporaryDirectory(prefix="turnout-load-")
        self.directory = Path(self._temporary.name)
        spec = {"groups": [asdict(g) for g in groups], "users": users, "passes": passes, "first_user": first_user}
        spec_file = self.directory / "spec.json"
        spec_file.write_text(json.dumps(spec))
        command = [sys.executable, "-m", "controlplane.demo.callers", str(spec_file)]
        self.process = Process("the load", command, self.directory / "load.log")

    async def start(self) -> None:
        """Starts, and returns when the first answer is there. Errors: UNAVAILABLE when none comes within 20 s."""
        await self.process.start()
        deadline = time.monotonic() + 20
        # A short load can be over before it has told how it goes.
        while not self.progress() and not (self.directory / "records").exists():
            self.process.check()
            if time.monotonic() > deadline:
                raise Error(Code.UNAVAILABLE, "NO_ANSWER", "no request was answered within 20 s")
            await asyncio.sleep(0.02)

    def progress(self) -> dict[str, int]:
        """Answers so far by version, and failures as `failed`, at most 0.1 s old; empty before the first."""
        status = self.directory / "status.json"
        found: dict[str, int] = json.loads(status.read_text()) if status.exists() else {}
        return found

    async def stop(self) -> Records:
        """Sends nothing more, waits for the answers under way (at most 30 s), and returns the records."""
        await self.process.stop(40)
        return self._records()

    async def finish(self, seconds: float = 300.0) -> Records:
        """Waits until all passes are through, and returns the records. Errors: UNAVAILABLE when it takes too long."""
        deadline = time.monotonic() + seconds
        while self.process.running:
            if time.monotonic() > deadline:
                raise Error(Code.UNAVAILABLE, "LOAD_TOO_SLOW", f"the load did not end within {seconds:g} s")
            await asyncio.sleep(0.02)
        return self._records()

    async def close(self) -> None:
        """Ends it and forgets its records."""
        await self.process.kill()
        self._temporary.cleanup()

    def _records(self) -> Records:
        file = self.directory / "records"
        if not file.exists():
            self.process.check()
            raise Error(Code.INTERNAL, "NO_RECORDS", f"the load left no records\n{self.process.log_tail()}")
        head, _, rows = file.read_bytes().partition(b"\n")
        said = json.loads(head)
        names, groups = said["versions"], said["groups"]
        requests = [
            Request(start, head, end, user, None if version == FAILED else names[version], groups[group])
            for start, head, end, user, version, group in ROW.iter_unpack(rows)
        ]
        return Records(requests, said["failures"])

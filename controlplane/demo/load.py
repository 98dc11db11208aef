"""Users who send requests without a pause, and a record of every request: start, end, and the version that answered.

The load runs in its own process (`callers.py`), so that it neither slows what it measures nor waits for it. It is a closed
loop: each slot sends its next request when it has the complete answer to the last. A request has failed if its answer is not
200, is incomplete, or never came. Nothing is retried. When a server ends a connection (`connection: close`, GOAWAY), the
next requests go over another one, and with them those that were not processed according to GOAWAY, as from any client.
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

# Header with the version that answered. A 200 without it counts as failed.
VERSION_HEADER = "x-model-version"
# A recorded request: start, head, end, user, version (FAILED if none answered), group.
ROW = struct.Struct("<dddIHH")
FAILED = 0xFFFF
# Failures whose texts are recorded.
MAX_FAILURES = 50


@dataclass(frozen=True, slots=True)
class Group:
    """Slots that send the same kind of request to one address."""

    host: str
    port: int
    path: str
    name: str = ""
    http2: bool = False
    connections: int = 8
    slots: int = 1  # requests in flight on each connection; more than 1 needs http2
    rate: float = 0.0  # requests a second of the whole group; 0: as fast as answers come
    body: str = ""  # empty: a GET
    user_header: str = "x-user"  # `cookie:NAME` sends a cookie instead
    authority: str = "turnout.test"


@dataclass(frozen=True, slots=True)
class Request:
    """One request as its sender saw it. Times are seconds since the epoch."""

    start: float
    # Time of the answer's head: the request was routed before. Equal to `end` if there was no head.
    head: float
    end: float
    user: int
    # The version that answered; None if the request failed.
    version: str | None
    group: str


@dataclass(frozen=True, slots=True)
class Records:
    """The recorded requests of a load."""

    requests: Sequence[Request]
    # Texts of the first failures; at most MAX_FAILURES.
    failures: Sequence[str]

    @property
    def failed(self) -> int:
        """The number of failed requests."""
        return sum(r.version is None for r in self.requests)

    def by_version(self, since: float = 0.0, until: float = float("inf")) -> Counter[str]:
        """Count answered requests that started in [since, until), by version."""
        return Counter(r.version for r in self.requests if r.version is not None and since <= r.start < until)


class Load:
    """A running load: starts and stops the process, and reads its records."""

    def __init__(self, groups: Sequence[Group], *, users: int, passes: int = 0, first_user: int = 0) -> None:
        """Send requests as users `u{first_user}` and following, in turn. With `passes` > 0 each user sends that many."""
        self._temporary = tempfile.TemporaryDirectory(prefix="turnout-load-")
        self.directory = Path(self._temporary.name)
        spec = {"groups": [asdict(g) for g in groups], "users": users, "passes": passes, "first_user": first_user}
        spec_file = self.directory / "spec.json"
        spec_file.write_text(json.dumps(spec))
        command = [sys.executable, "-m", "controlplane.demo.callers", str(spec_file)]
        self.process = Process("the load", command, self.directory / "load.log")

    async def start(self) -> None:
        """Start, and return after the first answer. Errors: UNAVAILABLE if none comes within 20 s."""
        await self.process.start()
        deadline = time.monotonic() + 20
        # A short load can end before it reports any progress.
        while not self.progress() and not (self.directory / "records").exists():
            self.process.check()
            if time.monotonic() > deadline:
                raise Error(Code.UNAVAILABLE, "NO_ANSWER", "no request was answered within 20 s")
            await asyncio.sleep(0.02)

    def progress(self) -> dict[str, int]:
        """Return answers so far by version, and failures as `failed`, at most 0.1 s old; empty before the first."""
        status = self.directory / "status.json"
        counts: dict[str, int] = json.loads(status.read_text()) if status.exists() else {}
        return counts

    async def stop(self) -> Records:
        """Send nothing more, wait up to 30 s for the requests in flight, and return the records."""
        await self.process.stop(40)
        return self._records()

    async def finish(self, seconds: float = 300.0) -> Records:
        """Wait until all passes are done, and return the records. Errors: UNAVAILABLE after `seconds`."""
        deadline = time.monotonic() + seconds
        while self.process.running:
            if time.monotonic() > deadline:
                raise Error(Code.UNAVAILABLE, "LOAD_TOO_SLOW", f"the load did not end within {seconds:g} s")
            await asyncio.sleep(0.02)
        return self._records()

    async def close(self) -> None:
        """Kill the process and delete its records."""
        await self.process.kill()
        self._temporary.cleanup()

    def _records(self) -> Records:
        file = self.directory / "records"
        if not file.exists():
            self.process.check()
            raise Error(Code.INTERNAL, "NO_RECORDS", f"the load left no records\n{self.process.log_tail()}")
        head, _, rows = file.read_bytes().partition(b"\n")
        summary = json.loads(head)
        names, groups = summary["versions"], summary["groups"]
        requests = [
            Request(start, head, end, user, None if version == FAILED else names[version], groups[group])
            for start, head, end, user, version, group in ROW.iter_unpack(rows)
        ]
        return Records(requests, summary["failures"])

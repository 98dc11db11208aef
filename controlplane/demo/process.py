"""A child process that ends with its parent, and a log for when it fails. Linux only."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from controlplane.errors import Code, Error
from controlplane.workers.die_with_parent import die_with_parent


class Startable(ABC):
    """An owner of processes. `async with` starts them, and ends them afterwards, also if starting fails."""

    async def __aenter__(self) -> Self:
        try:
            await self._enter()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        await self.close()

    async def _enter(self) -> None:
        """Start the processes for `async with`. A subclass whose `start` does not wait may also wait here."""
        await self.start()

    @abstractmethod
    async def start(self) -> None:
        """Start the processes."""

    @abstractmethod
    async def close(self) -> None:
        """End the processes, and remove their files."""


class Process:
    """One child process. It ends with the thread that started it."""

    def __init__(self, name: str, command: Sequence[str], log: Path, env: dict[str, str] | None = None) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self.env = env
        # None before the first start.
        self._child: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Its process id. Errors: INTERNAL if it was never started."""
        if self._child is None:
            raise Error(Code.INTERNAL, "NOT_STARTED", f"{self.name} was not started")
        return self._child.pid

    @property
    def running(self) -> bool:
        """True if it was started and has not ended."""
        return self._child is not None and self._child.returncode is None

    async def start(self) -> None:
        """Start the program, and append its output to the log. Errors: INTERNAL if it is running."""
        if self.running:
            raise Error(Code.INTERNAL, "RUNNING", f"{self.name} is running already")
        with self.log.open("ab") as log:
            self._child = await asyncio.create_subprocess_exec(
                *die_with_parent(self.command), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=self.env
            )

    async def stop(self, seconds: float = 10.0) -> int | None:
        """Send SIGTERM, and SIGKILL after `seconds`. Return the exit status; None if it never ran."""
        if self._child is None:
            return None
        if self._child.returncode is None:
            self._child.terminate()
            try:
                await asyncio.wait_for(self._child.wait(), seconds)
            except TimeoutError:
                return await self.kill()
        return self._child.returncode

    async def kill(self) -> int | None:
        """Send SIGKILL. Return the exit status; None if it never ran."""
        if self._child is None:
            return None
        if self._child.returncode is None:
            self._child.kill()
        return await self._child.wait()

    def check(self) -> None:
        """Check that it is running. Errors: UNAVAILABLE with the end of its log if it is not."""
        if not self.running:
            status = "was not started" if self._child is None else f"ended with status {self._child.returncode}"
            raise Error(Code.UNAVAILABLE, "PROCESS_ENDED", f"{self.name} {status}\n{self.log_tail()}".rstrip())

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines of its log."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 32_768))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])

    def cpu_seconds(self) -> float:
        """Return the CPU time of its threads, to the nanosecond. Threads that have ended are not counted."""
        tasks = Path(f"/proc/{self.pid}/task")
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9

    def rss_bytes(self) -> int:
        """Return its resident memory in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

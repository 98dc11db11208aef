"""The process of a worker: start it on a socket, kill it, and wait until it is gone."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys

from controlplane.workers.die_with_parent import die_with_parent

# A process that has closed its socket and does not exit within this time is killed. Seconds.
_EXIT_TIMEOUT = 5.0


def spawn(fd: int) -> subprocess.Popen[bytes]:
    """Start `process.py` on a socket. Errors: OSError."""
    # The worker has its own session, so that Ctrl-C reaches only the main process, which then stops the workers.
    command = die_with_parent([sys.executable, "-m", "controlplane.workers.process", str(fd)])
    return subprocess.Popen(command, pass_fds=[fd], stdin=subprocess.DEVNULL, start_new_session=True)


class ChildProcess:
    """A worker's process. Before `start` it has no process, and the other methods do nothing."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return the process id; 0 before `start`."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> socket.socket:
        """Start the process, and return this end of its socket. Errors: OSError."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            with theirs:
                self._process = spawn(theirs.fileno())
        except OSError:
            ours.close()
            raise
        return ours

    def kill(self) -> None:
        """Kill the process (SIGKILL)."""
        if self._process is not None:
            self._process.kill()

    async def wait(self) -> int:
        """Wait until the process is gone, and return its exit code; 0 when it was never started."""
        if self._process is None:
            return 0
        try:
            return await asyncio.to_thread(self._process.wait, _EXIT_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return await asyncio.to_thread(self._process.wait)

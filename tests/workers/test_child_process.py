"""The process of a worker."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from controlplane.workers import child_process
from controlplane.workers.child_process import ChildProcess


def program(code: str) -> Callable[[int], subprocess.Popen[bytes]]:
    """Return a `spawn` that runs a few lines of Python instead of a worker; `FD` in them is the socket."""

    def spawn(fd: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", code.replace("FD", str(fd))], pass_fds=[fd])

    return spawn


async def test_a_process_gets_the_other_end_of_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "spawn", program("import socket; socket.socket(fileno=FD).send(b'hello'); exit(3)"))
    process = ChildProcess()
    assert process.pid == 0
    assert await process.wait() == 0
    with process.start() as sock:
        assert not sock.getblocking()
        sock.setblocking(True)
        assert (sock.recv(100), sock.recv(100)) == (b"hello", b"")
    assert process.pid
    assert await process.wait() == 3


async def test_a_process_can_be_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "spawn", program("import time; time.sleep(600)"))
    process = ChildProcess()
    process.kill()  # nothing runs yet
    with process.start():
        process.kill()
        assert await process.wait() == -9


async def test_a_process_that_does_not_exit_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "spawn", program("import time; time.sleep(600)"))
    monkeypatch.setattr(child_process, "_EXIT_TIMEOUT", 0.05)
    process = ChildProcess()
    with process.start():
        assert await process.wait() == -9


def test_no_socket_is_left_when_a_process_can_not_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> subprocess.Popen[bytes]:
        raise BlockingIOError

    monkeypatch.setattr(child_process, "spawn", fail)
    before = os.listdir("/proc/self/fd") if sys.platform == "linux" else []
    process = ChildProcess()
    with pytest.raises(BlockingIOError):
        process.start()
    assert process.pid == 0
    assert (os.listdir("/proc/self/fd") if sys.platform == "linux" else []) == before

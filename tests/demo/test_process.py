"""A child process: its log, its end, CPU time and memory."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest

from controlplane.demo.process import Process, Startable
from controlplane.errors import Code, Error


def python(code: str, folder: Path) -> Process:
    return Process("the child", [sys.executable, "-u", "-c", code], folder / "log")


async def test_a_process_that_runs_and_is_stopped(tmp_path: Path) -> None:
    process = python("print('ready'); import time; time.sleep(60)", tmp_path)
    with pytest.raises(Error, match="the child was not started"):
        process.check()
    assert (process.running, await process.stop(), await process.kill()) == (False, None, None)
    await process.start()
    process.check()
    assert process.running
    with pytest.raises(Error, match="is running already"):
        await process.start()
    deadline = time.monotonic() + 20
    while process.log_tail() != "ready":
        assert time.monotonic() < deadline
    assert 0 < process.cpu_seconds() < 20
    assert process.rss_bytes() > 1_000_000
    assert await process.stop() == -15
    assert not process.running


async def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready'); time.sleep(60)"
    process = python(code, tmp_path)
    await process.start()
    deadline = time.monotonic() + 20
    while process.log_tail() != "ready":
        assert time.monotonic() < deadline
    assert await process.stop(0.2) == -9


async def test_an_ended_process_is_an_error_with_the_end_of_its_log(tmp_path: Path) -> None:
    process = python("print('\\n'.join(map(str, range(100)))); raise SystemExit(3)", tmp_path)
    await process.start()
    deadline = time.monotonic() + 20
    while process.running:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    with pytest.raises(Error) as caught:
        process.check()
    assert caught.value.code is Code.UNAVAILABLE
    assert caught.value.message.startswith("the child ended with status 3\n80\n81\n")
    assert process.log_tail(2) == "98\n99"
    # The log of the next run is appended.
    await process.start()
    assert await process.stop() is not None


def test_a_process_that_never_ran_has_no_id_and_no_log(tmp_path: Path) -> None:
    process = python("", tmp_path)
    assert process.log_tail() == ""
    with pytest.raises(Error, match="was not started"):
        _ = process.pid


async def test_processes_end_with_their_block_also_if_the_start_fails() -> None:
    calls: list[str] = []

    class Recorder(Startable):
        def __init__(self, failure: Exception | None) -> None:
            self.failure = failure

        async def start(self) -> None:
            calls.append("start")
            if self.failure is not None:
                raise self.failure

        async def close(self) -> None:
            calls.append("close")

    async with Recorder(None):
        calls.append("block")
    assert calls == ["start", "block", "close"]
    with pytest.raises(ValueError, match="no port"):
        async with Recorder(ValueError("no port")):
            calls.append("never")
    assert calls[3:] == ["start", "close"]

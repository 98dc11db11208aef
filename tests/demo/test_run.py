"""`turnout demo` as a user runs it: short here, with everything real."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from controlplane.demo import run, scenario
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest

pytestmark = pytest.mark.envoy


@pytest.fixture
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories are made: what is left of them can be seen."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def left(temp: Path) -> list[str]:
    """Temporary directories, and processes that have something to do with them."""
    found = [str(p) for p in temp.iterdir()]
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                command = (process / "cmdline").read_text()
            except OSError:
                continue
            if str(temp) in command:
                found.append(command.replace("\0", " "))
    return found


def test_holds_what_it_promises(temp: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = run.main(users=300, envoys=2, seconds=1.0, form="json")
    out, err = capfd.readouterr()
    said = json.loads(out)
    assert (code, said["broken"]) == (0, [])
    assert said["kept"] is True
    assert said["failed"] == 0
    switch, undo = said["moves"]
    assert (switch["revision"], undo["revision"]) == (2, 3)
    assert switch["nodesAcked"] == undo["nodesAcked"] == 2
    assert switch["requestsBefore"].keys() == {"blue"}
    assert switch["requestsAfter"]["green"] > 100
    assert switch["accuracyAfter"] > undo["accuracyAfter"] > 0.8
    assert "All promises kept" in err
    assert "\x1b" not in err  # not a terminal: plain
    assert left(temp) == []


def test_a_promise_that_does_not_hold_is_exit_1(
    temp: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = scenario.manifest

    def broken(gateway_ports: Mapping[str, int], version_ports: Mapping[str, int]) -> Manifest:
        """Point green at blue's server: the fleet ACKs the switch, but users still reach blue."""
        return original(gateway_ports, dict.fromkeys(version_ports, version_ports["blue"]))

    async def unasked(demo: run.Demo, version: str) -> float:
        return 0.5

    monkeypatch.setattr(scenario, "manifest", broken)
    monkeypatch.setattr(run.Demo, "_accuracy", unasked)
    assert run.main(users=50, envoys=1, seconds=0.5) == 1
    out, _ = capfd.readouterr()
    assert "These promises were not kept" in out
    assert "started after the last ACK reached blue" in out
    assert left(temp) == []


Start = Callable[[bool, str], Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def start(temp: Path) -> AsyncIterator[Start]:
    """Starts the demo in a session of its own, and returns when it has printed something."""
    started: list[asyncio.subprocess.Process] = []

    async def start(keep: bool, until: str) -> asyncio.subprocess.Process:
        call = f"from controlplane.demo.run import main; raise SystemExit(main(keep={keep}, users=50, envoys=1, seconds=1.0))"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-u", "-c", call, stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        started.append(process)
        assert process.stdout is not None
        async with asyncio.timeout(60):
            while until not in (line := (await process.stdout.readline()).decode()):
                assert line, f"ended before it said {until!r}"
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize(
    ("keep", "until", "number", "code"),
    [
        (False, "users send requests, and blue", signal.SIGINT, 130),
        (False, "with an embedded store", signal.SIGTERM, 130),
        (True, "Ctrl-C ends everything", signal.SIGINT, 0),
    ],
)
async def test_an_interrupt_leaves_nothing(
    temp: Path, start: Start, keep: bool, until: str, number: signal.Signals, code: int
) -> None:
    process = await start(keep, until)
    # As a terminal does it: to the whole group.
    os.killpg(process.pid, number)
    assert await asyncio.wait_for(process.wait(), 30) == code
    assert left(temp) == []

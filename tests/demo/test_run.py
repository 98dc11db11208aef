"""`turnout demo` with real processes, for a shorter time."""

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
    """Return the folder of all temporary directories, so that a test can look for leftovers."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def leftovers(temp: Path) -> list[str]:
    """Return temporary directories that still exist, and processes that use them."""
    traces = [str(p) for p in temp.iterdir()]
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                command = (process / "cmdline").read_text()
            except OSError:
                continue
            if str(temp) in command:
                traces.append(command.replace("\0", " "))
    return traces


def test_the_demo_keeps_its_promises(temp: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = run.main(users=300, envoys=2, seconds=1.0, form="json")
    out, err = capfd.readouterr()
    receipt = json.loads(out)
    assert (code, receipt["broken"]) == (0, [])
    assert receipt["kept"] is True
    assert receipt["failed"] == 0
    switch, undo = receipt["moves"]
    assert (switch["revision"], undo["revision"]) == (2, 3)
    assert switch["nodesAcked"] == undo["nodesAcked"] == 2
    assert switch["requestsBefore"].keys() == {"blue"}
    assert switch["requestsAfter"]["green"] > 100
    assert switch["accuracyAfter"] > undo["accuracyAfter"] > 0.8
    assert "All promises kept" in err
    assert "\x1b" not in err  # not a terminal: plain
    assert leftovers(temp) == []


def test_a_broken_promise_exits_with_1(temp: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert "started more than 50 ms after the last ACK reached blue" in out
    assert leftovers(temp) == []


Start = Callable[[bool, str], Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def start(temp: Path) -> AsyncIterator[Start]:
    """Return a function that starts the demo in its own session, and waits for a text."""
    started: list[asyncio.subprocess.Process] = []

    async def start(keep: bool, until: str) -> asyncio.subprocess.Process:
        call = f"from controlplane.demo.run import main; raise SystemExit(main(keep={keep}, users=50, envoys=1, seconds=1.0))"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-u", "-c", call, stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        started.append(process)
        assert process.stdout is not None
        async with asyncio.timeout(100):
            while until not in (line := (await process.stdout.readline()).decode()):
                assert line, f"the demo ended before it printed {until!r}"
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
        pytest.param(False, "with an embedded store", signal.SIGTERM, 130, marks=pytest.mark.slow),
        pytest.param(True, "Ctrl-C ends everything", signal.SIGINT, 0, marks=pytest.mark.slow),
    ],
)
async def test_an_interrupt_leaves_nothing_behind(
    temp: Path, start: Start, keep: bool, until: str, number: signal.Signals, code: int
) -> None:
    process = await start(keep, until)
    # A terminal sends the signal to the whole group.
    os.killpg(process.pid, number)
    assert await asyncio.wait_for(process.wait(), 30) == code
    assert leftovers(temp) == []

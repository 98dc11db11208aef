"""The picture of a switch: recorded from real commands, and up to date."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from controlplane.demo import recording
from controlplane.demo.recording import COMMANDS, Step, lines, record, run

ROOT = Path(__file__).parents[2]


def texts(picture: str) -> list[str]:
    namespace = "{http://www.w3.org/2000/svg}"
    return ["".join(row.itertext()) for row in ElementTree.fromstring(picture).iter(f"{namespace}text")]


def test_the_picture_in_the_repository_shows_these_commands() -> None:
    file = ROOT / "docs" / "switch.svg"
    assert file.stat().st_size < 60_000
    listed = texts(file.read_text(encoding="utf-8"))
    assert [line.removeprefix("$ ") for line in listed if line.startswith("$ ")] == list(COMMANDS), "run `make picture`"
    assert any(line.startswith("Held by 3 of 3 nodes; commit to last ACK ") for line in listed)


def test_a_command_prints_as_in_a_terminal() -> None:
    step = run("test -t 1 && echo yes; echo :10000/", os.environ, 123)
    assert step.command == "test -t 1 && echo yes; echo :10000/"
    assert step.output == b"yes\r\n:123/\r\n"
    with pytest.raises(subprocess.CalledProcessError):
        run("echo no >&2; exit 3", os.environ, 123)


def test_output_follows_its_command_and_the_next_command_follows_a_pause() -> None:
    listed = lines([Step("a", b"1\r\n\x1b[32m2\x1b[0m\r\n", 0.1), Step("b", b"3\r\n", 0.2)])
    assert [line.text.plain for line in listed] == ["$ a", "1", "2", "", "$ b", "3"]
    times = [round(line.time, 2) for line in listed]
    assert times == sorted(times)
    assert times[0] == 0
    assert times[4] - times[2] == pytest.approx(recording._PAUSE)


@pytest.mark.envoy
def test_a_recording_of_real_commands() -> None:
    steps = asyncio.run(record())
    assert [step.command for step in steps] == list(COMMANDS)
    before, switch, after, status, undo = (step.output.decode() for step in steps)
    assert '"blue"' in before
    assert "Revision 2 by ada@lab: reads 99 %" in switch
    assert "\x1b[" in switch
    assert "Held by 3 of 3 nodes" in switch
    assert '"green"' in after
    assert "3 in sync" in status
    assert "Revision 3 by ada@lab" in undo

"""The tour of the README, run as a reader pastes it: real model servers, a real control plane, a real Envoy.

Each `sh` block is run in one shell. Each line of a `text` block must be in the output of the `sh` block before it; numbers and
the author may differ. Fixed ports are replaced by free ones, so that the test can run beside other programs.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.demo.ports import free_port

pytestmark = pytest.mark.envoy

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PORTS = ("8001", "8002", "10000")


def tour() -> str:
    """Return the text of the tour."""
    return (ROOT / "README.md").read_text().partition("<!-- tour -->")[2].partition("<!-- /tour -->")[0]


def blocks() -> list[tuple[str, list[str]]]:
    """Return each block of commands with the lines that its output must have."""
    steps: list[tuple[str, list[str]]] = []
    for kind, text in BLOCK.findall(tour()):
        if kind == "sh":
            steps.append((text, []))
        else:
            assert kind == "text"
            steps[-1][1].extend(line.strip() for line in text.splitlines())
    return steps


def pattern(line: str) -> str:
    """Return a regular expression for a line: numbers and the author may differ."""
    text = re.sub(r"[\d,.]*\d", "<n>", re.sub(r"\w+@\w+", "<author>", line))
    return re.escape(text).replace("<n>", r"[\d,.]*\d").replace("<author>", r"\S+@\S+").replace(r"\ ms", r"\ m?s")


@pytest.fixture
def clone(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """Return a folder with the examples, and a free port for each fixed one."""
    ports = {port: str(free_port()) for port in PORTS}
    (tmp_path / "examples").mkdir()
    example = (ROOT / "examples" / "digits.yaml").read_text()
    for fixed, free in ports.items():
        example = example.replace(fixed, free)
    (tmp_path / "examples" / "digits.yaml").write_text(example)
    return tmp_path, ports


def test_the_tour_works_when_it_is_pasted(clone: tuple[Path, dict[str, str]]) -> None:
    folder, ports = clone
    steps = blocks()
    assert len(steps) >= 5
    script = "set -eu\n" + "".join(f"echo '=== {i}'\n{commands}" for i, (commands, _) in enumerate(steps))
    for fixed, free in ports.items():
        script = script.replace(fixed, free)
    script = script.replace("bootstrap edge-1", "bootstrap edge-1 --admin-port 0")
    # `wait` reports the signal that ended the last job, and ends the script with it.
    script = script.replace("\nwait\n", "\nwait || true\n")
    temporary = folder / "tmp"
    temporary.mkdir()
    env = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(folder),
        "TMPDIR": str(temporary),
        "TURNOUT_API": f"127.0.0.1:{free_port()}",
        "TURNOUT_XDS": f"127.0.0.1:{free_port()}",
        "TURNOUT_AUTHOR": "ada@tests",
        "TURNOUT_METRICS": f"127.0.0.1:{free_port()}",
    }
    process = subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=120)
    finally:
        # Background programs of a tour that failed half-way are in the same session.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    logs = "".join(f"{log.name}:\n{log.read_text()[-2000:]}" for log in temporary.rglob("*.log"))
    assert process.returncode == 0, f"{output}\n{logs}"
    for i, (commands, lines) in enumerate(steps):
        printed = output.partition(f"=== {i}\n")[2].partition(f"=== {i + 1}\n")[0]
        for line in lines:
            assert re.search(pattern(line), printed), f"{commands}printed\n{printed}\nwithout {line!r}"
    # The tour deletes what it made, and leaves nothing in the clone.
    assert list(temporary.iterdir()) == []
    assert sorted(p.name for p in folder.iterdir()) == ["examples", "tmp"]


def test_the_tour_has_no_placeholder_and_no_comment() -> None:
    """A placeholder fails when it is pasted, and a comment fails in an interactive zsh."""
    for commands, _ in blocks():
        assert not re.search(r"(?<![\w$])[A-Z]{3,}\b(?!=)", commands)
        assert "#" not in commands

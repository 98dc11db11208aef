"""The benchmark of many Envoys runs, and reads the record of requests correctly."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.envoys import Cell, _read
from bench.rig import Switch
from controlplane.demo.load import Records, Request

REPOSITORY = Path(__file__).parents[2]


def answered(start: float, head: float, version: str | None) -> Request:
    """A request as its sender saw it."""
    return Request(start, head, head + 0.001, 1, version, "load")


def test_the_last_answer_by_the_old_version_is_found() -> None:
    switches = [("green", Switch(0.05, 0.06, 200, 10.0)), ("blue", Switch(0.03, 0.04, 200, 20.0))]
    requests = [
        answered(9.0, 9.1, "blue"),
        answered(9.9, 10.02, "blue"),  # in flight at the commit
        answered(10.01, 10.04, "blue"),
        answered(10.03, 10.035, "green"),
        answered(10.06, 10.07, "blue"),  # after the last ACK
        answered(10.08, 10.2, None),
        answered(12.0, 12.1, "green"),
        answered(19.9, 20.01, "blue"),  # routed after the next commit, so not late for the first switch
        answered(20.02, 20.025, "green"),
        answered(21.0, 21.1, "blue"),
    ]
    cell = Cell()
    _read(cell, switches, Records(requests, []))
    assert cell.ack == [0.05, 0.03]
    assert cell.sent == pytest.approx([0.06, 0.02])
    assert cell.answered == pytest.approx([0.07, 0.025])
    assert cell.between == [2, 1]
    assert cell.late == [1, 0]


def test_a_switch_that_no_request_fell_into_has_no_last_answer() -> None:
    cell = Cell()
    _read(cell, [("green", Switch(0.05, 0.06, 200, 10.0))], Records([answered(9.0, 9.1, "blue")], []))
    assert (cell.sent, cell.answered, cell.between, cell.late) == ([0.0], [0.0], [0], [0])


@pytest.mark.envoy
def test_envoys(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "envoys", "--quick", "--count", "3", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads((tmp_path / "envoys.json").read_text())
    assert found["envoys"] == 3
    assert found["failed"] == 0
    assert found["requests"] > found["fewest_requests_of_an_envoy"] > 0
    assert found["envoy_pss_bytes"] > 1_000_000
    for cell in (found["without_load"], found["under_load"]):
        assert cell["ack_seconds"]["count"] == 3
        assert 0 < cell["ack_seconds"]["low"] <= cell["wall_seconds"]["high"]
    assert found["without_load"]["control_cpu_seconds"]["low"] > 0
    assert found["under_load"]["last_old_answered_seconds"]["count"] == 3
    assert "3 Envoys" in (tmp_path / "envoys.md").read_text()

"""Completion of commands and names in a shell."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.cli.conftest import TURNOUT, Run, Server


def completed(line: str) -> list[str]:
    """Return the completions that bash offers for the last word."""
    count = str(len(line.split(" ")) - 1)
    env = {**os.environ, "_TURNOUT_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": count}
    result = subprocess.run([TURNOUT], capture_output=True, text=True, env=env, timeout=60)
    assert result.stderr == ""
    return result.stdout.split()


def test_commands_and_names_are_completed(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    applied.connect("edge-2\nevil\x1b[2J")
    applied.connect("edge-3;$(evil)")
    assert completed("turnout sw") == ["switch"]
    assert completed("turnout switch ir") == ["iris"]
    assert completed("turnout switch iris --to ") == ["blue", "green"]
    assert completed("turnout delete ") == ["gateways/edge", "models/iris"]
    assert completed("turnout nodes e") == ["edge-1"]
    assert completed("turnout nodes f") == ["forget"]
    assert completed("turnout nodes a") == ["adopt"]
    assert completed("turnout nodes adopt e") == ["edge-1"]
    # Only nodes that are not connected can be forgotten.
    assert completed("turnout nodes forget e") == []


def test_without_a_server_nothing_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNOUT_API", "127.0.0.1:1")
    assert completed("turnout switch ir") == []

"""Completion of commands and names in a shell."""

from __future__ import annotations

import os
import subprocess

import pytest

from controlplane.cli.main import main
from tests.cli.conftest import TURNOUT, Run, Server


def variables(line: str) -> dict[str, str]:
    """Return the variables with which bash asks the program for completions of the last word."""
    return {"_TURNOUT_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}


def completed_by_the_program(line: str) -> list[str]:
    """Return the completions that bash offers for the last word."""
    env = {**os.environ, **variables(line)}
    result = subprocess.run([TURNOUT], capture_output=True, text=True, env=env, timeout=60)
    assert result.stderr == ""
    return result.stdout.split()


def test_commands_and_names_are_completed(
    run: Run, applied: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def completed(line: str) -> list[str]:
        """Return what the program prints, without a process of its own."""
        for name, value in variables(line).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit):
            main([])
        out, err = capfd.readouterr()
        assert err == ""
        return out.split()

    applied.connect("edge-1")
    applied.connect("edge-2\nevil\x1b[2J")
    applied.connect("edge-3;$(evil)")
    assert completed_by_the_program("turnout sw") == completed("turnout sw") == ["switch"]
    assert completed_by_the_program("turnout switch ir") == completed("turnout switch ir") == ["iris"]
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
    assert completed_by_the_program("turnout switch ir") == []

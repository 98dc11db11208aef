"""Commands in a terminal: output that is updated in place, questions, and colours."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from pathlib import Path

import pytest

from controlplane.cli.exits import Exit
from tests.cli.conftest import Run, Server, ignore_response
from tests.cli.terminal import terminal


def test_status_is_updated_until_ctrl_c(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    with terminal("status", "--watch") as screen:
        screen.until("blue 100%")
        run("split", "iris", "blue=7000", "green=3000", "--no-wait")
        screen.until("blue 70%, green 30%")
        screen.process.send_signal(signal.SIGINT)
        assert screen.end() == Exit.INTERRUPTED
        assert "Traceback" not in screen.seen


def test_a_watch_of_nodes_is_updated(run: Run, applied: Server) -> None:
    with terminal("nodes", "--watch") as screen:
        screen.until("0 in sync")
        applied.connect("edge-1")
        screen.until("nodes/edge-1")
        screen.process.send_signal(signal.SIGINT)
        assert screen.end() == Exit.INTERRUPTED


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """Send SIGINT until the process ends. Python can miss one that comes just before it reads a line.

    One that comes while the process ends because of the last one would change its exit status, so it waits for a while.
    """
    for _ in range(20):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
            return


@pytest.mark.parametrize(("answer", "code"), [("n\n", Exit.INTERRUPTED), ("y\n", Exit.OK), ("", Exit.INTERRUPTED)])
def test_delete_asks(run: Run, applied: Server, answer: str, code: Exit) -> None:
    with terminal("delete", "models/iris", "gateways/edge") as screen:
        screen.until("Delete 2 objects? [y/N]")
        assert "live at gateways/edge, blue 100%" in screen.plain
        assert "listens on 0.0.0.0:10000" in screen.plain
        if answer:
            screen.type(answer)
        else:
            interrupt(screen.process)
        assert screen.end() == code
    assert (run("get", "models", "-o", "json").json == {"models": []}) is (code is Exit.OK)


def test_a_receipt_in_colour_and_without(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    with terminal("switch", "iris", "--to", "green") as screen:
        assert screen.end() == 0
        assert "Held by 1 of 1 node" in screen.plain
        assert "\x1b[1;32m" in screen.seen
    with terminal("switch", "iris", "--to", "blue", NO_COLOR="1") as screen:
        assert screen.end() == 0
        assert "\x1b[1;32m" not in screen.seen
        assert "\x1b[33m" not in screen.seen


def test_ctrl_c_while_waiting_says_that_the_revision_was_made(
    run: Run, applied: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applied.connect("silent"), "_apply", ignore_response)
    with terminal("switch", "iris", "--to", "green") as screen:
        screen.until("0/1 node")
        screen.process.send_signal(signal.SIGINT)
        assert screen.end() == Exit.INTERRUPTED
        assert "Revision 2 was made. Only the waiting was interrupted." in screen.plain
        assert "Traceback" not in screen.seen


def test_nothing_is_cut_at_80_columns(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    run("switch", "iris", "--to", "green", "--reason", "a reason that is longer than what fits into a narrow column")
    for command in (["nodes"], ["status"], ["get", "all"], ["traffic"]):
        with terminal(*command) as screen:
            assert screen.end() == 0
            assert "…" not in screen.plain
            assert max(len(line.rstrip()) for line in screen.plain.splitlines()) <= 80


def test_model_names_are_not_cut_at_80_columns(run: Run, applied: Server, minimal: Path) -> None:
    minimal.write_text(minimal.read_text().replace("iris", "fraud-cards"))
    assert run("apply", "-f", minimal, "--force").code == 0
    with terminal("traffic") as screen:
        assert screen.end() == 0
    assert "models/fraud-cards  green" in screen.plain
    assert "models/fraud-cards  blue" in screen.plain

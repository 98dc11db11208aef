"""`turnout status`, on a real control plane with xDS clients."""

from __future__ import annotations

import json
import os
import signal
import subprocess

from controlplane.cli.exits import Exit
from tests.cli.conftest import TURNOUT, Run, Server


def test_status(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    run("split", "iris", "blue=90%", "green=10%")
    table = run("status").out
    assert "Revision 2. Nodes: 1 in sync, 0 behind, 0 refusing, 0 gone" in table
    assert "blue 90%, green 10%" in table
    report = run("status", "-o", "json").json
    assert report["models"][0]["split"] == {"blue": 9000, "green": 1000}
    assert report["summary"]["synced"] == 1
    assert report["nodes"] == []


def test_watch_prints_one_object_a_line_until_ctrl_c(run: Run, applied: Server) -> None:
    command = [TURNOUT, "status", "--watch", "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            first = json.loads(process.stdout.readline())
            assert first["models"][0]["split"] == {"blue": 10000}
            assert run("switch", "iris", "--to", "green", "--no-wait").code == 0
            second = next(update for line in process.stdout if (update := json.loads(line))["summary"]["revision"] == "2")
            assert second["models"][0]["split"] == {"green": 10000}
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == Exit.INTERRUPTED
            assert process.stderr.read() == ""
        finally:
            process.kill()

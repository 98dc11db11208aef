"""`turnout serve` as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from controlplane.cli.exits import Exit
from tests.cli.conftest import Run, Server

TURNOUT = str(Path(sys.executable).parent / "turnout")


TURNOUT = str(Path(sys.executable).parent / "turnout")


def test_every_setting_of_serve_is_in_its_help(run: Run) -> None:
    assert "--xds-transport" in run("serve", "--help").out


def test_serve_until_sigterm(tmp_path: Path) -> None:
    command = [
        TURNOUT,
        "serve",
        "--data",
        str(tmp_path / "data"),
        "--api",
        "127.0.0.1:0",
        "--xds",
        "127.0.0.1:0",
        "--metrics",
        "off",
    ]
    with subprocess.Popen([*command, "--log-format", "json"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            serving = next(line for line in process.stderr if '"serving"' in line)
            assert '"revision": 0' in serving
            process.send_signal(signal.SIGTERM)
            log = process.stderr.read()
            assert process.wait(20) == 0
            assert '"stopped"' in log.splitlines()[-1]
            assert "Traceback" not in log
        finally:
            process.kill()


def test_a_port_in_use_is_6(run: Run, server: Server, tmp_path: Path) -> None:
    result = subprocess.run(
        [TURNOUT, "serve", "--data", str(tmp_path / "other"), "--api", server.api, "--xds", "127.0.0.1:0", "--metrics", "off"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TURNOUT_LOG_FORMAT": "json"},
    )
    assert result.returncode == Exit.UNAVAILABLE
    assert f"{server.api} is taken" in result.stderr
    assert "Traceback" not in result.stderr

"""`turnout serve` as a process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from controlplane.cli import settings
from controlplane.cli.exits import Exit
from controlplane.cli.settings import SETTINGS, SWITCHES
from controlplane.errors import Code, Error
from tests.cli.conftest import TURNOUT, Run, Server


def test_every_setting_is_an_option_with_a_help(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    printed = run("serve", "--help").out
    for name in SETTINGS:
        flag = "--" + name.replace("_", "-")
        assert re.search(rf"{flag} .*Default: ", printed), flag


# Left out: paths and commands, because every text is one, and `probe`, whose flag takes no text.
_ANY_TEXT = ("data", "secret_key_file", "secret_key_command", "audit", *SWITCHES)


@pytest.mark.parametrize("name", [name for name in SETTINGS if name not in _ANY_TEXT])
def test_a_wrong_value_of_every_option_is_named_by_its_flag(run: Run, name: str) -> None:
    flag = "--" + name.replace("_", "-")
    result = run("serve", flag, "wrong")
    assert (result.code, result.err.startswith(f"Error: {flag}: ")) == (Exit.INVALID, True), result.err


def test_switches_are_flags_without_a_value(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    chosen: list[tuple[str | None, str | None]] = []

    def record(flags: dict[str, str | None], file: str | None, *, serving: bool) -> None:
        chosen.append((flags["probe"], flags["insecure"]))
        raise Error(Code.INTERNAL, "STOP", "stop here")

    monkeypatch.setattr(settings, "config", record)
    for flags in ([], ["--probe"], ["--no-probe"], ["--insecure"]):
        run("serve", *flags)
    assert chosen == [(None, None), ("on", None), ("off", None), (None, "on")]


@pytest.mark.parametrize("port", ["api", "xds"])
def test_an_address_that_others_can_reach_is_refused_without_tls(run: Run, tmp_path: Path, port: str) -> None:
    refused = run("serve", "--data", tmp_path / "data", f"--{port}", "0.0.0.0:18000")
    assert refused.code == Exit.INVALID
    assert refused.err.startswith(
        f"Error: --{port}: 0.0.0.0:18000 can be reached from other machines, and this port has no TLS"
    )
    assert "--insecure" in refused.err
    assert not (tmp_path / "data").exists()


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


def test_a_new_store_is_logged_and_a_lost_one_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert "new store: started a new history, without a revision" in served(data)
    assert "the store has no revision yet" in served(data)
    (data / "turnout.db").unlink()
    log = served(data, code=Exit.CONFLICT)
    assert f"{data} shows signs of earlier use, and there is no store in it: turnout.db is missing" in log
    assert "start anew with --init" in log
    assert "new store: started a new history, without a revision" in served(data, "--init")
    assert "is a store already: start without --init" in served(data, "--init", code=Exit.CONFLICT)


def served(data: Path, *flags: str, code: int = 0) -> str:
    """Start the server, stop it as soon as it serves, and return its log."""
    ports = ["--api", "127.0.0.1:0", "--xds", "127.0.0.1:0", "--metrics", "off"]
    command = [TURNOUT, "serve", "--data", str(data), *ports, *flags]
    lines = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if "serving" in line and "Envoys keep" not in line:
                process.send_signal(signal.SIGTERM)
        assert process.wait(20) == code
    return "".join(lines)


def test_a_port_in_use_exits_with_6(run: Run, server: Server, tmp_path: Path) -> None:
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

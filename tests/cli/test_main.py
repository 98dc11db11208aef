"""The command line as a whole: help, usage, exit codes, and what a user never sees."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.cli import exits
from controlplane.cli.commands import COMMANDS
from controlplane.cli.exits import Exit, exit_code
from controlplane.errors import Code, Error
from tests.cli.conftest import MINIMAL, Run, Server

TURNOUT = str(Path(sys.executable).parent / "turnout")
NOWHERE = "127.0.0.1:1"


def test_help_teaches(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = run("--help")
    assert done.code == 0
    for panel in COMMANDS:
        assert panel in done.out
    assert "turnout switch iris --to green" in done.out
    for code, meaning in exits.MEANINGS.items():
        assert f"{code.value}  {meaning}" in done.out
    assert max(map(len, done.out.splitlines())) <= 80


@pytest.mark.parametrize("command", [c for commands in COMMANDS.values() for c in commands])
def test_every_command_has_an_example(run: Run, command: str) -> None:
    done = run(command, "--help")
    assert done.code == 0
    if command != "version":
        assert done.out.count(f"turnout {command}") >= 2


def test_nothing_said_is_help(run: Run) -> None:
    done = run()
    assert "Usage: turnout" in done.out + done.err
    assert done.code == Exit.USAGE


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["swich"], "Did you mean 'switch'?"),
        (["switch"], "Missing argument"),
        (["switch", "iris"], "'iris' has no version: add --to VERSION, or write iris=VERSION"),
        (["split", "iris", "blue"], "'blue' is not VERSION=SHARE"),
        (["split", "iris", "blue=33.333%"], "a share is a whole number of basis points"),
        (["split", "iris", "blue=nan"], "a share is a whole number of basis points"),
        (["split", "iris", "blue=110%"], "from 0 to 10,000"),
        (["split", "iris", "blue=1", "blue=2"], "version 'blue' is given twice"),
        (["undo", "--to", "yesterday"], "'yesterday' is not a revision: write a number try: "),
        (["undo", "--to=-1"], "'-1' is not a revision: write a number try: "),
        (["undo", "--to", "latest"], "name an earlier one"),
        (["diff", "yesterday"], "'yesterday' is not a revision: write a number, or latest try: "),
        (["get", "everything"], "'everything' is none of: gateways, models"),
        (["get", "models", "-o", "xml"], "'xml' is not one of"),
        (["delete", "iris"], "'iris' has no kind: write models/iris, gateways/iris or secrets/iris"),
        (["delete", "nodes/edge"], "'nodes/edge' is no model, gateway or secret"),
        (["--api", "nowhere", "get", "models"], "'nowhere' is not HOST:PORT"),
        (["get", "models", "--api", "http://x:1"], "is not HOST:PORT"),
        (["serve", "--xds-shell", "grpc"], "Error: --xds-shell is now called --xds-transport try: turnout serve --help"),
        (["serve", "--xds-shell=grpc"], "Error: --xds-shell is now called --xds-transport"),
        (["apply"], "Missing option"),
        (["bootstrap", "edge", "-o", "table"], "a bootstrap is yaml or json"),
        (["completion", "tcsh"], "'tcsh' is not one of"),
    ],
)
def test_usage(run: Run, monkeypatch: pytest.MonkeyPatch, args: list[str], said: str) -> None:
    monkeypatch.setenv("TURNOUT_API", NOWHERE)
    done = run(*args)
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert said in " ".join(done.err.split())


def test_every_error_has_an_exit_code() -> None:
    assert {code: exit_code(Error(code, "X", "x")) for code in Code} == {
        Code.INVALID_ARGUMENT: 3,
        Code.NOT_FOUND: 4,
        Code.ALREADY_EXISTS: 5,
        Code.FAILED_PRECONDITION: 5,
        Code.ABORTED: 5,
        Code.RESOURCE_EXHAUSTED: 5,
        Code.UNAVAILABLE: 6,
        Code.INTERNAL: 1,
    }


def test_invalid_input_is_3(run: Run) -> None:
    done = run("apply", "-f", "-", stdin="models: [{nme: iris}]")
    assert done.code == Exit.INVALID
    assert done.err == "Error: <stdin>:1: models[0]: unknown key 'nme'; did you mean 'name'?\n"


def test_an_unreachable_server_is_6_and_says_what_to_do(run: Run) -> None:
    done = run("get", "models", "--api", NOWHERE)
    assert (done.code, done.out) == (Exit.UNAVAILABLE, "")
    assert f"the control plane at {NOWHERE} can't be reached" in done.err
    assert "TURNOUT_API" in done.err
    assert "turnout serve" in done.err


def test_a_server_that_is_away_is_tried_again(run: Run) -> None:
    done = run("--retry-for", "0.4", "get", "models", "--api", NOWHERE)
    assert done.code == Exit.UNAVAILABLE
    assert done.err.startswith(f"{NOWHERE} does not answer; retrying for 0.4 s …\n")


def test_a_defect_is_1_without_a_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr("controlplane.cli.schema.text", broken)
    done = run("schema")
    assert done.code == Exit.UNEXPECTED
    assert "unexpected: ZeroDivisionError: of all things" in done.err


def test_ctrl_c_is_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("controlplane.cli.schema.text", interrupted)
    assert run("schema").code == Exit.INTERRUPTED


def test_many_problems_are_cut(run: Run) -> None:
    done = run("apply", "-f", "-", stdin="models:\n" + "  - {nme: x}\n" * 100)
    assert done.err.count("\n") == 31
    assert done.err.endswith("and 70 more\n")


def test_the_real_command(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(MINIMAL)
    done = subprocess.run([TURNOUT, "validate", "--offline", "-f", str(file)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Valid: 1 gateway, 1 model.")


def test_a_reader_that_goes_away_is_not_an_error() -> None:
    command = f"{TURNOUT} schema | head -c 10; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("schema >&-", 0, ""),
        ("version >/dev/full", 1, "Error: the output can't be written: no space left on device\n"),
        ("schema >/dev/full", 1, "Error: the output can't be written: no space left on device\n"),
        ("version >/dev/full 2>&1", 1, ""),
        ("version >&- 2>&-", 0, ""),
    ],
)
def test_an_output_that_takes_nothing(command: str, code: int, said: str) -> None:
    done = subprocess.run(["bash", "-c", f"{TURNOUT} {command}"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)


@pytest.mark.parametrize("command", ["status --watch", "nodes --watch -o json"])
def test_a_watch_ends_when_nobody_reads_it_though_nothing_happens(applied: Server, command: str) -> None:
    pipe = f"{TURNOUT} --api {applied.api} {command} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (Exit.BROKEN_PIPE, "", 1)


def test_what_an_encoding_lacks_is_written_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("mödels: []")
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [TURNOUT, "validate", "--offline", "-f", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ)
    assert (done.returncode, done.stdout) == (3, "")
    assert "unknown key 'm\\xf6dels'" in done.stderr


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
            rest = process.stderr.read()
            assert process.wait(20) == 0
            assert '"stopped"' in rest.splitlines()[-1]
            assert "Traceback" not in rest
        finally:
            process.kill()


def test_a_port_that_is_taken_is_6(run: Run, server: Server, tmp_path: Path) -> None:
    done = subprocess.run(
        [TURNOUT, "serve", "--data", str(tmp_path / "other"), "--api", server.api, "--xds", "127.0.0.1:0", "--metrics", "off"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TURNOUT_LOG_FORMAT": "json"},
    )
    assert done.returncode == Exit.UNAVAILABLE
    assert f"{server.api} is taken" in done.stderr
    assert "Traceback" not in done.stderr

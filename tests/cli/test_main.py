"""Running a command: usage errors, exit codes, closed pipes, and no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.cli.exits import Exit
from tests.cli.conftest import MINIMAL, TURNOUT, Run, Server

NOWHERE = "127.0.0.1:1"


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["swich"], "Did you mean 'switch'?"),
        (["switch"], "Missing argument"),
        (["switch", "iris"], "'iris' has no version: add --to VERSION, or write iris=VERSION"),
        (["split", "iris", "blue"], "'blue' is not VERSION=SHARE"),
        (["split", "iris", "blue=33.333%"], "a share is percent with at most two decimals"),
        (["split", "iris", "blue=nan"], "or a whole number of basis points"),
        (["split", "iris", "blue=110%"], "from 0 to 10,000"),
        (["split", "iris", "blue=90%", "green=1000"], "mix percent (blue=90%) and basis points (green=1000). 1% is 100 basis"),
        (["split", "iris", "blue=90", "green=10"], "sum to 100 basis points, which is 1%"),
        (["split", "iris", "blue=1", "blue=2"], "version 'blue' is given twice"),
        (["undo", "--to", "41"], "turnout restore-state 41"),
        (["restore-state", "yesterday"], "'yesterday' is not a revision: write a number try: "),
        (["restore-state", "latest"], "name an earlier one"),
        (["revert", "yesterday"], "'yesterday' is not a revision: write a number, or latest try: "),
        (["diff", "yesterday"], "'yesterday' is not a revision: write a number, or latest try: "),
        (["get", "everything"], "'everything' is no kind of objects; write one of: gateways, models"),
        (["get", "modles"], "'modles' is no kind of objects; did you mean 'models'?"),
        (["get", "models/iris", "edge"], "'edge' has no kind"),
        (["get", "models/"], "'models/' has no name: write models/NAME"),
        (["get", "models/iris", "nodes/edge-1"], "nodes can't be shown together with other kinds"),
        (["get", "models", "-o", "xml"], "'xml' is not one of"),
        (["status", "--state", "banana"], "Invalid value for '--state': 'banana' is not one of"),
        (["delete", "iris"], "'iris' has no kind: write one of gateways/iris, models/iris, secrets/iris"),
        (["delete", "owls/edge"], "'owls' is no kind of objects; write one of: gateways, models, secrets"),
        (["--api", "nowhere", "get", "models"], "'nowhere' is not HOST:PORT"),
        (["--api", "127.0.0.1:99999", "status"], "'127.0.0.1:99999' is not HOST:PORT"),
        (["get", "models", "--api", "http://x:1"], "is not HOST:PORT"),
        (["serve", "--xds-shell", "grpc"], "Error: --xds-shell is now called --xds-transport try: turnout serve --help"),
        (["serve", "--xds-shell=grpc"], "Error: --xds-shell is now called --xds-transport"),
        (["apply"], "Missing option"),
        (["bootstrap", "edge", "-o", "table"], "a bootstrap is yaml or json"),
        (["completion", "tcsh"], "'tcsh' is not one of"),
    ],
)
def test_usage(run: Run, monkeypatch: pytest.MonkeyPatch, args: list[str], expected: str) -> None:
    monkeypatch.setenv("TURNOUT_API", NOWHERE)
    result = run(*args)
    assert (result.code, result.out) == (Exit.USAGE, "")
    assert expected in " ".join(result.err.split())


def test_invalid_input_exits_with_3(run: Run) -> None:
    result = run("apply", "-f", "-", stdin="models: [{nme: iris}]")
    assert result.code == Exit.INVALID
    assert result.err == "Error: <stdin>:1: models[0]: unknown key 'nme'; did you mean 'name'?\n"


def test_an_unreachable_server_exits_with_6_and_advice(run: Run) -> None:
    result = run("get", "models", "--api", NOWHERE)
    assert (result.code, result.out) == (Exit.UNAVAILABLE, "")
    assert f"nothing listens at {NOWHERE}" in result.err
    assert "TURNOUT_API" in result.err
    assert "turnout serve" in result.err


def test_a_call_to_an_unreachable_server_is_retried(run: Run) -> None:
    result = run("--retry-for", "0.4", "get", "models", "--api", NOWHERE)
    assert result.code == Exit.UNAVAILABLE
    assert result.err.startswith(f"{NOWHERE} does not answer; retrying for 0.4 s …\n")


def test_a_defect_exits_with_1_without_a_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr("controlplane.cli.schema.text", broken)
    result = run("schema")
    assert result.code == Exit.UNEXPECTED
    assert "unexpected: ZeroDivisionError: of all things" in result.err


def test_ctrl_c_exits_with_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("controlplane.cli.schema.text", interrupted)
    assert run("schema").code == Exit.INTERRUPTED


def test_many_problems_are_cut(run: Run) -> None:
    result = run("apply", "-f", "-", stdin="models:\n" + "  - {nme: x}\n" * 100)
    assert result.err.count("\n") == 31
    assert result.err.endswith("and 70 more\n")


def test_the_installed_program(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(MINIMAL)
    result = subprocess.run([TURNOUT, "validate", "--offline", "-f", str(file)], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("Valid: 1 gateway, 1 model.")


def test_a_closed_pipe_is_not_an_error() -> None:
    command = f"{TURNOUT} schema | head -c 10; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("command", "code", "expected"),
    [
        ("schema >&-", 0, ""),
        ("version >/dev/full", 70, "Error: the output can't be written: no space left on device\n"),
        ("schema >/dev/full", 70, "Error: the output can't be written: no space left on device\n"),
        ("version >/dev/full 2>&1", 70, ""),
        ("version >&- 2>&-", 0, ""),
    ],
)
def test_output_that_can_not_be_written(command: str, code: int, expected: str) -> None:
    result = subprocess.run(["bash", "-c", f"{TURNOUT} {command}"], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (code, "", expected)


@pytest.mark.parametrize("command", ["status --watch", "nodes --watch -o json"])
def test_a_watch_without_updates_ends_with_its_reader(applied: Server, command: str) -> None:
    pipe = f"{TURNOUT} --api {applied.api} {command} | head -1; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, timeout=20)
    assert (result.returncode, result.stderr, len(result.stdout.splitlines())) == (Exit.BROKEN_PIPE, "", 1)


def test_a_character_that_the_encoding_lacks_is_escaped(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("mödels: []")
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [TURNOUT, "validate", "--offline", "-f", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ)
    assert (result.returncode, result.stdout) == (3, "")
    assert "unknown key 'm\\xf6dels'" in result.stderr


def test_commands_start_without_the_modules_that_few_of_them_need() -> None:
    slow = {"cryptography", "pydantic", "prometheus_client", "controlplane.compiler", "controlplane.store", "controlplane.app"}
    code = f"import sys, controlplane.cli.main; print(sorted({slow} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

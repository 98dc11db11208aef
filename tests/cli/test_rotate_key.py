"""`turnout rotate-key`, on the directory of a stopped server."""

from __future__ import annotations

import base64
import shlex
from pathlib import Path

import pytest

from controlplane.cli.exits import Exit
from tests.cli.conftest import Run, Server
from tests.pki import pair

FRONT = pair("front.example")


@pytest.fixture
def stopped(run: Run, applied: Server, tmp_path: Path) -> Path:
    """The directory of a server that was stopped after a secret was set."""
    certificate, key = FRONT.files(tmp_path, "front")
    assert run("secret", "set", "front", "--cert", certificate, "--key", key).code == 0
    refused = run("rotate-key", "--data", tmp_path / "data")
    assert (refused.code, "is held by process" in refused.err) == (Exit.CONFLICT, True), "a server uses the store"
    assert len((tmp_path / "data" / "secret.key").read_bytes().split()) == 1
    applied.stop()
    return tmp_path / "data"


def test_a_new_key_seals_and_the_server_starts_with_it(run: Run, stopped: Path) -> None:
    file = stopped / "secret.key"
    (old,) = file.read_bytes().split()
    rotated = run("rotate-key", "--data", stopped)
    assert rotated.code == 0, rotated.err
    assert rotated.out.startswith("Sealed 1 private key with key ")
    assert f"The old keys are still in {file}" in rotated.out
    assert file.read_bytes().split()[1:] == [old]
    dropped = run("rotate-key", "--data", stopped, "--drop-old", "-o", "json")
    assert (dropped.json["resealedKeys"], dropped.json["droppedKeys"]) == (1, 2)
    server = Server(stopped)
    try:
        assert "front.example" in run("--api", server.api, "get", "secrets").out
    finally:
        server.stop()


def test_the_keys_of_a_command_and_of_the_environment(run: Run, stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = (stopped / "secret.key").read_text().strip(), base64.b64encode(b"n" * 32).decode()
    (stopped / "secret.key").unlink()
    both = stopped.parent / "both"
    both.write_text(f"{new}\n{old}\n")
    rotated = run("rotate-key", "--data", stopped, "--secret-key-command", f"cat {shlex.quote(str(both))}")
    assert (rotated.code, "Sealed 1 private key" in rotated.out) == (0, True), rotated.err
    monkeypatch.setenv("TURNOUT_SECRET_KEY", new)
    again = run("rotate-key", "--data", stopped)
    assert "nothing was changed" in again.out, again.err
    failed = run("rotate-key", "--data", stopped, "--secret-key-command", "false")
    assert (failed.code, "exit code 1" in failed.err) == (Exit.CONFLICT, True)


def test_a_directory_without_a_store_is_refused(run: Run, tmp_path: Path) -> None:
    refused = run("rotate-key", "--data", tmp_path)
    assert (refused.code, "holds no store" in refused.err) == (Exit.CONFLICT, True)

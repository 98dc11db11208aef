"""Options that every command with --api has."""

from __future__ import annotations

import time

import pytest

from controlplane.cli.commands import COMMANDS
from controlplane.cli.exits import Exit
from controlplane.cli.shared_options import with_shared_options
from tests.cli.conftest import Run, Server

NOWHERE = "127.0.0.1:1"


def test_a_command_without_a_server_stays_the_same() -> None:
    serve = COMMANDS["Set up"]["serve"]
    assert with_shared_options(serve) is serve


@pytest.mark.parametrize("command", [["status"], ["get", "models"], ["secret", "set", "x", "--ca", __file__]])
def test_retry_for_works_before_and_after_a_command(run: Run, command: list[str]) -> None:
    for args in (["--retry-for", "0.2", *command], [*command, "--retry-for", "0.2"]):
        started = time.monotonic()
        result = run(*args, "--api", NOWHERE)
        assert result.code == Exit.UNAVAILABLE
        assert "does not answer; retrying for 0.2 s" in result.err
        assert time.monotonic() - started < 10


def test_a_negative_time_is_an_error(run: Run, server: Server) -> None:
    assert run("status", "--retry-for", "-1").code == Exit.USAGE

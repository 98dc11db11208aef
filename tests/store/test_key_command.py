"""The command that prints the sealing keys: run once, without a shell; each failure says what is wrong, and shows no key."""

from __future__ import annotations

import sys

import pytest

from controlplane.errors import Error
from controlplane.store.key_command import output_of

PYTHON = f"{sys.executable} -c"


def refused(command: str, timeout: float = 10.0) -> str:
    with pytest.raises(Error) as caught:
        output_of(command, timeout)
    assert caught.value.reason == "SECRET_KEY_COMMAND_FAILED"
    return caught.value.message


def test_the_output_is_returned_and_no_shell_is_used() -> None:
    assert output_of("echo 'a  b' $HOME") == b"a  b $HOME\n"


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("", "is empty"),
        ("a 'b", "is not a command"),
        ("/nonexistent/kms get", "(/nonexistent/kms) can't be run: no such file or directory"),
        (f'{PYTHON} \'import sys; print("the key"); sys.exit("no access\\nto it")\'', "exit code 1: no access to it"),
        (f"{PYTHON} 'import os; os.abort()'", "failed with signal 6"),
    ],
)
def test_a_failure_says_what_is_wrong_and_shows_no_key(command: str, problem: str) -> None:
    message = refused(command)
    assert problem in message
    assert "the key\n" not in message


def test_a_command_that_does_not_end_is_killed() -> None:
    assert "did not end within 0.2 s" in refused("sleep 60", timeout=0.2)

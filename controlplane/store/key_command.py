"""The command that prints the sealing keys, like a client of a key management service (KMS). It is run once, at the start."""

from __future__ import annotations

import shlex
import subprocess

from controlplane.errors import Code, Error, escaped

TIMEOUT = 30.0  # seconds
_MAX_OUTPUT = 64 * 1024
_MAX_ERROR = 300  # characters of stderr in an error


def output_of(command: str, timeout: float = TIMEOUT) -> bytes:
    """Run a command, without a shell, and return what it printed. No error contains that.

    Errors: FAILED_PRECONDITION / SECRET_KEY_COMMAND_FAILED.
    """
    try:
        arguments = shlex.split(command)
    except ValueError as error:
        raise _failed(command, f"is not a command: {error}") from None
    if not arguments:
        raise _failed(command, "is empty: name a program and its arguments")
    try:
        done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise _failed(command, f"did not end within {timeout:g} s, and was killed") from None
    except OSError as error:
        raise _failed(command, f"can't be run: {(error.strerror or '').lower()}") from None
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())[-_MAX_ERROR:]
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        raise _failed(command, f"failed with {how}" + (f": {escaped(said)}" if said else ""))
    return done.stdout[:_MAX_OUTPUT]


def _failed(command: str, problem: str) -> Error:
    program = command.split()[0] if command.split() else "''"
    return Error(
        Code.FAILED_PRECONDITION, "SECRET_KEY_COMMAND_FAILED", f"the command that prints the sealing key ({program}) {problem}"
    )

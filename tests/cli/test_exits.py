"""Exit codes and the errors of files."""

from __future__ import annotations

from controlplane.cli.exits import exit_code
from controlplane.errors import Code, Error


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

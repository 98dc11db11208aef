"""Errors as text and as JSON."""

from __future__ import annotations

import json

import pytest

from controlplane.cli.error_report import report, wants_json
from controlplane.cli.exits import Exit
from controlplane.errors import Code, Error, Violation
from tests.cli.conftest import Run, Server


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["get", "models", "-o", "json"], True),
        (["get", "-ojson"], True),
        (["get", "--output", "json"], True),
        (["get", "--output=json"], True),
        (["get", "-o", "yaml"], False),
        (["get", "-o"], False),
        (["get", "json"], False),
    ],
)
def test_json_is_wanted(args: list[str], expected: bool) -> None:
    assert wants_json(args) is expected


def test_an_error_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    error = Error(Code.ABORTED, "STALE_ETAG", "changed", violations=(Violation("a.b", "is old"),), metadata={"live": "7"})
    assert report(error, as_json=True) is Exit.CONFLICT
    assert json.loads(capsys.readouterr().err) == {
        "error": {
            "code": "ABORTED",
            "reason": "STALE_ETAG",
            "message": "changed",
            "violations": [{"field": "a.b", "description": "is old"}],
            "metadata": {"live": "7"},
            "exitCode": 5,
        }
    }


@pytest.mark.parametrize(
    ("args", "reason", "code"),
    [
        (["switch", "iris", "--to", "red"], "UNKNOWN_VERSION", 3),
        (["get", "models", "wine"], "NOT_FOUND", 4),
        (["undo", "iris"], "NOTHING_TO_UNDO", 5),
        (["apply", "-f", "/nowhere.yaml"], "INVALID_FILE", 3),
        (["get", "models", "--nonsense"], "USAGE", 2),
        (["delete", "models/iris"], "USAGE", 2),
    ],
)
def test_every_error_is_one_json_object(run: Run, applied: Server, args: list[str], reason: str, code: int) -> None:
    result = run(*args, "-o", "json")
    assert (result.code, result.out) == (code, "")
    error = json.loads(result.err.splitlines()[-1])["error"]
    assert (error["reason"], error["exitCode"]) == (reason, code)
    assert error["message"]


def test_a_timeout_prints_the_result_and_an_error(run: Run, applied: Server) -> None:
    from tests.cli.conftest import ignore_response

    node = applied.connect("edge-1")
    node._apply = ignore_response  # type: ignore[method-assign]
    result = run("switch", "iris", "--to", "green", "--timeout", "0.3", "-o", "json")
    assert (result.code, result.json["progress"]["holding"]) == (Exit.TIMEOUT, 0)
    assert json.loads(result.err)["error"]["code"] == "TIMEOUT"

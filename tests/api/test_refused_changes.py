"""The log of refused changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from controlplane.api.refused_changes import RefusedChanges
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1 import model_service_pb2 as mpb
from controlplane.observers.rate_limited_log import LINES_PER_SECOND
from tests.api.api import refused, serving
from tests.fakes.call import Call

SWITCH = "/turnout.v1.ModelService/SwitchTraffic"


def written(method: str, error: Error, request: Any = None, call: Call | None = None) -> list[Any]:
    """Return the lines for one refused call."""
    with capture_logs() as lines:
        RefusedChanges().refused(method, request or mpb.SwitchTrafficRequest(), call or Call(), error)
    return lines


def test_a_line_has_who_what_from_where_and_why() -> None:
    error = Error(Code.RESOURCE_EXHAUSTED, "STORE_FULL", "there is no space left on the disk")
    (line,) = written(SWITCH, error)
    assert line == {
        "event": "change refused",
        "log_level": "error",
        "method": "ModelService/SwitchTraffic",
        "code": "RESOURCE_EXHAUSTED",
        "reason": "STORE_FULL",
        "error": "there is no space left on the disk",
        "author": "ann",
        "caller": "10.0.0.1:5000",
    }


@pytest.mark.parametrize(
    ("code", "level"), [(Code.INVALID_ARGUMENT, "info"), (Code.ABORTED, "warning"), (Code.INTERNAL, "error")]
)
def test_the_level_says_whose_fault_it_is(code: Code, level: str) -> None:
    assert written(SWITCH, Error(code, "X", "x"))[0]["log_level"] == level


def test_reads_and_dry_runs_are_no_changes() -> None:
    error = Error(Code.FAILED_PRECONDITION, "X", "x")
    assert written("/turnout.v1.ModelService/GetModel", error) == []
    assert written("/grpc.health.v1.Health/Check", error) == []
    assert written("/nobody.knows/This", error) == []
    assert written(SWITCH, error, mpb.SwitchTrafficRequest(validate_only=True)) == []
    assert written("/turnout.v1.NodeService/ReconnectNode", error)


def test_texts_are_bounded_and_a_name_that_is_too_long_is_left_out() -> None:
    (line,) = written(SWITCH, Error(Code.ABORTED, "X", "y" * 5_000), call=Call("z" * 500))
    assert len(line["error"]) < 1_100
    assert line["author"] == ""


async def test_many_are_summed_up() -> None:
    log = RefusedChanges()
    with capture_logs() as lines:
        for i in range(LINES_PER_SECOND + 7):
            log.refused(SWITCH, mpb.SwitchTrafficRequest(), Call(), Error(Code.ABORTED, "X", f"error {i}"))
        log.close()
    assert len(lines) == LINES_PER_SECOND + 1
    last = lines[-1]
    assert (last["event"], last["count"], last["error"]) == ("more changes refused", 7, f"error {LINES_PER_SECOND}")


async def test_a_refused_call_of_the_server_is_logged(tmp_path: Path) -> None:
    async with serving(tmp_path, refused_changes=RefusedChanges()) as api:
        with capture_logs() as lines:
            switch = mpb.TrafficSwitch(model="models/none", version="green")
            await refused(api.models.SwitchTraffic(mpb.SwitchTrafficRequest(switches=[switch], force=True)))
            await refused(api.models.GetModel(mpb.GetModelRequest(name="models/none")))
    (line,) = [line for line in lines if line["event"] == "change refused"]
    assert (line["method"], line["code"]) == ("ModelService/SwitchTraffic", "NOT_FOUND")
    assert line["caller"].startswith("127.0.0.1:")

"""Errors as the status of a stream."""

from __future__ import annotations

import grpc
import pytest
from structlog.testing import capture_logs

from controlplane.errors import Code, Error
from controlplane.http2.grpc_status import Status, StatusCode, StatusError
from controlplane.xds_server.status import XdsHandler, to_status


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_a_status_of_its_name(code: Code) -> None:
    status = to_status(Error(code, "REASON", "a sentence"))
    assert grpc.StatusCode[code.name].value == (status.code, code.value)
    assert (status.code.name, status.message, status.details) == (code.name, "a sentence", b"")


def test_an_unexpected_exception_is_logged_and_hidden() -> None:
    with capture_logs() as lines:
        status = XdsHandler().status_of(RuntimeError("a secret"))
    assert status == Status(StatusCode.INTERNAL, "something went wrong in the control plane; its log says what")
    assert [line["event"] for line in lines] == ["stream failed"]


def test_an_error_is_not_logged() -> None:
    with capture_logs() as lines:
        status = XdsHandler().status_of(Error(Code.UNAVAILABLE, "REASON", "later"))
    assert status == Status(StatusCode.UNAVAILABLE, "later")
    assert not lines


def test_a_status_error_of_the_package_keeps_its_status() -> None:
    with capture_logs() as lines:
        status = XdsHandler().status_of(StatusError(StatusCode.INTERNAL, "cut off"))
    assert status == Status(StatusCode.INTERNAL, "cut off")
    assert not lines

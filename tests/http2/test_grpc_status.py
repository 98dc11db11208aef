"""Statuses and their trailers, compared with grpcio's."""

from __future__ import annotations

import base64
from urllib.parse import unquote

import grpc
from hypothesis import given
from hypothesis import strategies as st

from controlplane.http2.grpc_status import OK, Status, StatusCode, StatusError, percent_encoded, trailers


def test_codes_are_those_of_grpc() -> None:
    assert {code.name: code.value for code in StatusCode} == {code.name: code.value[0] for code in grpc.StatusCode}


def test_ok_has_no_message() -> None:
    assert trailers(OK) == (("grpc-status", "0"),)


def test_a_status_with_details() -> None:
    fields = dict(trailers(Status(StatusCode.ABORTED, "too late ü", b"\x01\x02\x03\x04")))
    assert fields["grpc-status"] == "10"
    assert fields["grpc-message"] == "too late %C3%BC"
    details = fields["grpc-status-details-bin"]
    assert not details.endswith("=")
    assert base64.b64decode(details + "==") == b"\x01\x02\x03\x04"


def test_a_status_error_has_its_status() -> None:
    error = StatusError(StatusCode.INTERNAL, "cut off", b"x")
    assert (error.status, str(error)) == (Status(StatusCode.INTERNAL, "cut off", b"x"), "cut off")


@given(st.text())
def test_a_status_message_is_ascii_and_reads_back(text: str) -> None:
    encoded = percent_encoded(text)
    assert all(" " <= c <= "~" for c in encoded)
    assert unquote(encoded) == text.strip(" ")

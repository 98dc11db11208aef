"""Access logs: exactly one sink."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from controlplane.domain import AccessLog, FileSink, GrpcSink, StdoutSink
from controlplane.errors import Error


def test_the_default_sink_is_standard_output() -> None:
    assert AccessLog() == AccessLog(stdout=StdoutSink())


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: AccessLog(FileSink("/a"), GrpcSink("a.svc", 1)), "file and grpc are set"),
        (lambda: FileSink("access.log"), "path: .* is not an absolute path"),
        (lambda: FileSink("/"), "path: "),
        (lambda: GrpcSink("", 1), "host: is required"),
        (lambda: GrpcSink("a b", 1), "host: "),
        (lambda: GrpcSink("a.svc", 0), "port: "),
        (lambda: GrpcSink("a.svc", 1, "a b"), "log_name: "),
    ],
)
def test_a_wrong_field_is_named(make: Callable[[], object], problem: str) -> None:
    with pytest.raises(Error, match=problem):
        make()

"""Handlers whose exceptions end their own call."""

from __future__ import annotations

import pytest

from controlplane.http2.grpc_status import Status, StatusCode, StatusError
from controlplane.http2.handler import GuardedHandler


class Handler(GuardedHandler):
    """Raises an exception, and records its end."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.received: list[bytes] = []
        self.statuses: list[Status | None] = []
        self._error = error

    def end(self, status: Status | None = None) -> None:
        self.ended = True
        self.statuses.append(status)

    def _receive(self, data: bytes) -> None:
        self.received.append(data)
        if self._error is not None:
            raise self._error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StatusError(StatusCode.ABORTED, "too late"), Status(StatusCode.ABORTED, "too late")),
        (RuntimeError("a secret"), Status(StatusCode.INTERNAL, "internal error")),
    ],
)
def test_an_exception_ends_the_call_with_its_status(error: Exception, status: Status) -> None:
    handler = Handler(error)
    handler.receive_message(b"x")
    assert handler.statuses == [status]
    handler.receive_message(b"y")
    assert handler.received == [b"x"]


def test_guarded_work_is_not_done_after_the_end() -> None:
    handler, done = Handler(), list[str]()
    handler._guarded(done.append, "before")
    handler.end()
    handler._guarded(done.append, "after")
    assert done == ["before"]


def test_an_exception_in_guarded_work_ends_the_call() -> None:
    handler = Handler()
    handler._guarded([].remove, "nothing")
    assert handler.statuses == [Status(StatusCode.INTERNAL, "internal error")]

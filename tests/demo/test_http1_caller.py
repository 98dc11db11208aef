"""The load's HTTP/1.1 connection, without a network: bytes in, bytes out."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.demo.driver import Driver
from controlplane.demo.http1_caller import Http1

HEAD = b"HTTP/1.1 200 OK\r\nx-model-version: blue\r\n"


class Transport:
    """Records what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True


@pytest.fixture
async def caller() -> Any:
    return connected()


def connected(**changes: Any) -> Any:
    group = {"host": "h", "port": 1, "path": "/x", "authority": "test"} | changes
    driver = Driver({"groups": [group], "users": 10, "passes": 1, "first_user": 0})
    caller: Any = Http1(driver, 0, 0)
    caller.transport = Transport()
    caller.send(caller.generation)
    return caller


async def test_a_request_names_its_user(caller: Any) -> None:
    assert caller.transport.written == b"GET /x HTTP/1.1\r\nhost: test\r\nx-user: u0\r\n\r\n"
    posted = connected(body="{}", user_header="cookie:user")
    assert b"POST /x" in posted.transport.written
    assert posted.transport.written.endswith(b"content-length: 2\r\ncookie: user=u0\r\n\r\n{}")


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize(
    "answer",
    [HEAD + b"content-length: 3\r\n\r\nabc", HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"],
)
async def test_an_answer_in_any_pieces_ends_the_request_and_starts_the_next(caller: Any, answer: bytes, step: int) -> None:
    for i in range(0, len(answer), step):
        assert caller.driver.counts["blue"] == 0
        caller.data_received(answer[i : i + step])
    assert caller.driver.counts == {"blue": 1}
    assert caller.transport.written.endswith(b"x-user: u1\r\n\r\n")


@pytest.mark.parametrize(
    ("answer", "failure"),
    [(b"HTTP/1.1 503 Away\r\n\r\nno", "HTTP/1.1 503 Away no"), (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "200 OK")],
)
async def test_a_wrong_answer_is_a_failure_and_closes_the_connection(caller: Any, answer: bytes, failure: str) -> None:
    caller.data_received(answer)
    assert caller.driver.counts == {"failed": 1}
    assert failure in caller.driver.failures[0]
    assert caller.transport.closed


async def test_a_connection_that_closes_fails_the_request_in_flight(caller: Any) -> None:
    caller.driver.stopping.set()
    caller.data_received(HEAD + b"content-length: 9\r\n\r\nabc")
    caller.connection_lost(None)
    assert "connection closed in the middle of the answer (EOF)" in caller.driver.failures[0]
    assert caller.transport is None


async def test_a_request_of_an_earlier_connection_is_not_sent(caller: Any) -> None:
    written = caller.transport.written
    caller.generation += 1
    caller.send(caller.generation - 1)
    assert caller.transport.written == written


@pytest.mark.parametrize("value", ["close", "Close"])
async def test_after_connection_close_the_next_request_is_on_another_connection(caller: Any, value: str) -> None:
    written = caller.transport.written
    old = caller.transport
    caller.data_received(HEAD + f"connection: {value}\r\ncontent-length: 3\r\n\r\nab".encode())
    assert not old.closed
    caller.data_received(b"c")
    assert old.closed
    assert (old.written, caller.driver.counts) == (written, {"blue": 1})
    caller.driver.stopping.set()
    caller.connection_lost(None)
    assert caller.driver.counts == {"blue": 1}  # nothing was in flight

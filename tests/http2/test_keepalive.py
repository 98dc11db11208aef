"""The time that a client has left a PING unanswered, and the bytes that it has not read."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from controlplane.http2.keepalive import UnansweredPing, kernel_unsent


def test_a_client_that_neither_answers_nor_reads_is_waited_for_since_the_ping() -> None:
    ping = UnansweredPing(30.0, unread=0)
    assert [ping.waited(now, 0) for now in (30.0, 35.0, 40.5)] == [0.0, 5.0, 10.5]


def test_the_wait_for_a_client_that_reads_begins_anew() -> None:
    ping = UnansweredPing(31.0, unread=3_000)
    assert ping.waited(42.0, 2_000) == 0
    assert ping.waited(53.0, 1_000) == 0
    assert ping.waited(63.0, 1_000) == 10
    # The server has written more, so the client has more to read. That is no sign of life.
    assert ping.waited(63.5, 2_000) == 10.5
    assert ping.waited(64.0, 1_500) == 0


def test_unsent_bytes_are_those_that_the_other_side_has_not_read() -> None:
    here, there = socket.socketpair()
    with here, there:
        assert kernel_unsent(here) == 0
        here.send(bytes(100))
        assert kernel_unsent(here) >= 100
        there.recv(100)
        assert kernel_unsent(here) == 0


def test_a_file_that_is_no_socket_has_no_unsent_bytes(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        no_socket: Any = file
        assert kernel_unsent(no_socket) == 0

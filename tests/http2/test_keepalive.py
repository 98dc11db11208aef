"""The decisions to ping and to disconnect a client."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from controlplane.http2.keepalive import Action, Keepalive, kernel_unsent
from controlplane.http2.limits import ConnectionLimits

LIMITS = ConnectionLimits(keepalive_interval=30, keepalive_timeout=10)


def check(keepalive: Keepalive, now: float, unread: int = 0, *, may_ping: bool = True) -> Action:
    return keepalive.check(now, lambda: unread, may_ping=may_ping)


def test_a_silent_client_is_pinged_once_and_then_disconnected() -> None:
    keepalive = Keepalive(LIMITS, 0.0)
    assert check(keepalive, 30.0) is Action.NONE
    assert check(keepalive, 30.1) is Action.PING
    assert check(keepalive, 40.0) is Action.NONE
    assert check(keepalive, 40.2) is Action.DISCONNECT


def test_a_client_that_answers_is_pinged_again_later() -> None:
    keepalive = Keepalive(LIMITS, 0.0)
    assert check(keepalive, 31.0) is Action.PING
    keepalive.active(32.0)
    assert check(keepalive, 50.0) is Action.NONE
    assert check(keepalive, 62.1) is Action.PING


def test_a_client_that_reads_is_not_disconnected() -> None:
    keepalive = Keepalive(LIMITS, 0.0)
    assert check(keepalive, 31.0, 3_000) is Action.PING
    assert check(keepalive, 42.0, 2_000) is Action.NONE
    assert check(keepalive, 53.0, 1_000) is Action.NONE
    assert check(keepalive, 63.0, 1_000) is Action.NONE
    assert check(keepalive, 63.1, 1_000) is Action.DISCONNECT


def test_no_ping_before_the_client_speaks_http2() -> None:
    assert check(Keepalive(LIMITS, 0.0), 100.0, may_ping=False) is Action.NONE


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

"""Causes of an address that does not answer: each is an error of its own, with what to do."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from controlplane.cli.diagnose import no_answer
from controlplane.cli.exits import Exit
from tests.cli.conftest import Run, Server


@contextmanager
def listening(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """Listen on a free port, and treat each connection with `answer`."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def closed_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def test_nothing_listens() -> None:
    error = no_answer(closed_address(), "")
    assert (error.reason, "start a server with `turnout serve`" in error.message) == ("CONNECTION_REFUSED", True)


def test_a_name_without_an_address() -> None:
    assert no_answer("nowhere.invalid:18080", "").reason == "UNKNOWN_HOST"


def test_a_host_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_connection(*args: object) -> socket.socket:
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", no_connection)
    error = no_answer("10.0.0.1:18080", "")
    assert (error.reason, "10.0.0.1:18080 can't be reached: timed out" in error.message) == ("UNREACHABLE", True)


@pytest.mark.parametrize(
    ("sent", "reason", "expected"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "NOT_GRPC", "is a web server, not an operator API"),
        (b"HTTP/1.0 200 OK\r\n\r\n# HELP turnout_nodes", "NOT_GRPC", "is Turnout's metrics port"),
        (b"\x15\x03\x01\x00\x02\x02\x28", "TLS", "expects TLS: give the file of its authorities with --ca"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "NOT_GRPC", "does not speak gRPC"),
        (b"\x00\x00\x06\x04\x00\x00\x00\x00\x00", "UNAVAILABLE", "ended the call: draining"),
        (b"", "UNAVAILABLE", "if it is just starting or stopping, repeat the command"),
    ],
)
def test_what_listens_is_named(sent: bytes, reason: str, expected: str) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(1024)
        connection.sendall(sent)

    with listening(answer) as address:
        error = no_answer(address, "draining")
    assert (error.reason, expected in error.message) == (reason, True), error.message


def test_a_server_that_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.cli.diagnose._TIMEOUT", 0.1)
    with listening(lambda connection: connection.recv(1024) and connection.recv(1024)) as address:
        assert "accepts connections and sends nothing" in no_answer(address, "").message


def test_the_xds_port_is_named(run: Run, server: Server) -> None:
    result = run("get", "models", "--api", f"127.0.0.1:{server.app.xds_port}", "-o", "json")
    assert (result.code, result.out) == (Exit.UNAVAILABLE, "")
    error = json.loads(result.err)["error"]
    assert (error["reason"], "is the port for Envoys" in error["message"]) == ("WRONG_PORT", True)

"""Ports: their errors, and that no other program can bind a reserved port."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import grpc
import pytest

from controlplane.api.ports import check_free, listen, port_taken, reserve
from controlplane.config import Address
from controlplane.errors import Code, Error

FREE = Address("127.0.0.1", 0)


@pytest.fixture
def taken() -> Iterator[Address]:
    """An address on which a program listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield Address(*other.getsockname())


def test_a_taken_address_is_an_error_that_names_the_setting(taken: Address) -> None:
    with pytest.raises(Error) as caught:
        check_free(taken, "xds")
    assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "PORT_TAKEN")
    assert caught.value.message == (
        f"{taken} is taken: another program listens there, maybe a control plane that runs already; "
        "give the setting `xds` another address"
    )
    assert port_taken(taken, "metrics").message.endswith("give the setting `metrics` another address or set it to off")


@pytest.mark.parametrize(
    ("host", "words"),
    [("203.0.113.7", "can't listen on 203.0.113.7:0"), ("no-such-host.invalid", "is not the name of a machine")],
)
def test_an_address_of_another_machine_is_invalid(host: str, words: str) -> None:
    with pytest.raises(Error, match=words) as caught:
        check_free(Address(host, 0), "api")
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert [v.field for v in caught.value.violations] == ["api"]


def test_a_reserved_port_is_kept_for_processes_that_share_it() -> None:
    port, sockets = reserve(FREE, "xds")
    try:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        with socket.socket() as worker:
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            worker.bind(("127.0.0.1", port))
            worker.listen()
    finally:
        for sock in sockets:
            sock.close()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))


def test_a_taken_port_is_not_reserved_even_if_it_is_shared(taken: Address) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        for address in (taken, Address(*other.getsockname())):
            with pytest.raises(Error, match=f"{address} is taken"):
                reserve(address, "xds")


async def test_a_grpc_server_listens(taken: Address) -> None:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    port = listen(server, FREE, "api")
    await server.start()
    with pytest.raises(Error, match="is taken"):
        listen(grpc.aio.server(options=[("grpc.so_reuseport", 0)]), Address("127.0.0.1", port), "api")
    await server.stop(None)

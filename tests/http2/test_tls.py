"""TLS of one connection over memory BIOs, and the turns of handshakes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from controlplane.http2.accounts import Accounts, ClientLimits
from controlplane.http2.peer import Credential
from controlplane.http2.tls import Handshakes, TlsSocket
from tests.pki import Authority


class Certificates:
    """A server's certificate, and any client's."""

    def __init__(self, directory: Path, authority: Authority) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*authority.pair("localhost").files(directory, "server"))
        self.context.load_verify_locations(cadata=authority.certificate)
        self.context.verify_mode = ssl.CERT_REQUIRED

    def credential(self, certificate: bytes) -> Credential:
        return Credential("client", 1.0)


class Echo(asyncio.Protocol):
    """Sends everything back."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.credential = transport.get_extra_info("credential")

    def data_received(self, data: bytes) -> None:
        self.transport.writelines([data[:1], data[1:]])
        if data.endswith(b"close"):
            self.transport.write_eof()


class Rig:
    """A server."""

    def __init__(self, clients: ClientLimits) -> None:
        self.handshakes, self.refused = Handshakes(Accounts(clients)), list[str]()
        self.echoes: list[Echo] = []
        self.port = 0


@asynccontextmanager
async def serving(
    directory: Path, authority: Authority, patience: float = 10, clients: ClientLimits | None = None
) -> AsyncIterator[Rig]:
    rig, certificates = Rig(clients or ClientLimits()), Certificates(directory, authority)

    def accept() -> asyncio.Protocol:
        rig.echoes.append(Echo())
        return TlsSocket(certificates, rig.handshakes, patience, rig.echoes[-1], lambda _, why: rig.refused.append(why))

    server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0)
    rig.port = server.sockets[0].getsockname()[1]
    try:
        yield rig
    finally:
        server.close()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  there is no event for it
            await asyncio.sleep(0.005)


async def test_bytes_of_any_size_arrive_in_both_directions(tmp_path: Path, authority: Authority) -> None:
    context = authority.context(authority.pair("client"), tmp_path)
    async with serving(tmp_path, authority) as rig:
        reader, writer = await asyncio.open_connection("localhost", rig.port, ssl=context)
        for size in (1, 4_096, 16_384, 300_000):
            data = bytes(range(256)) * (size // 256) + b"x"
            writer.write(data)
            assert await reader.readexactly(len(data)) == data
        assert rig.echoes[0].credential.identity == "client"
        writer.write(b"close")
        assert await reader.read() == b"close"  # and then close_notify: without it, this raises
        writer.close()
        assert not rig.handshakes


async def test_a_hundred_handshakes_at_once(tmp_path: Path, authority: Authority) -> None:
    context = authority.context(authority.pair("client"), tmp_path)
    async with serving(tmp_path, authority) as rig:

        async def call() -> bytes:
            reader, writer = await asyncio.open_connection("localhost", rig.port, ssl=context)
            writer.write(b"close")
            data = await reader.read()
            writer.close()
            return data

        assert await asyncio.gather(*(call() for _ in range(100))) == [b"close"] * 100


async def test_a_client_without_a_certificate_is_refused(tmp_path: Path, authority: Authority) -> None:
    async with serving(tmp_path, authority) as rig:
        reader, writer = await asyncio.open_connection("localhost", rig.port, ssl=authority.context())
        with pytest.raises(ssl.SSLError):
            await reader.read()
        writer.close()
        assert rig.refused == ["PEER_DID_NOT_RETURN_A_CERTIFICATE"]
        assert not rig.handshakes


async def test_handshakes_that_never_end_or_are_too_long_are_closed(tmp_path: Path, authority: Authority) -> None:
    async with serving(tmp_path, authority, patience=0.2) as rig:
        for data in (b"", b"\x16\x03\x01\x40\x00" + bytes(70_000)):
            with socket.create_connection(("127.0.0.1", rig.port)) as sock:
                sock.setblocking(False)
                with contextlib.suppress(ConnectionError):
                    await asyncio.get_running_loop().sock_sendall(sock, data)
                before = len(rig.refused)
                await until(lambda: len(rig.refused) > before)  # noqa: B023
        assert rig.refused[0] == "the handshake took too long"
        assert not rig.handshakes


async def test_no_handshake_is_left_after_abort(tmp_path: Path, authority: Authority) -> None:
    async with serving(tmp_path, authority) as rig:
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        await until(lambda: len(rig.handshakes) == 1)
        rig.handshakes.abort()
        await until(lambda: not rig.handshakes)
        writer.close()


async def test_an_address_with_too_many_handshakes_is_refused(tmp_path: Path, authority: Authority) -> None:
    async with serving(tmp_path, authority, clients=ClientLimits(connections=2)) as rig:
        writers = [(await asyncio.open_connection("127.0.0.1", rig.port))[1] for _ in range(2)]
        await until(lambda: len(rig.handshakes) == 2)
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        assert await reader.read() == b""
        assert rig.refused == ["too many connections"]
        for one in (*writers, writer):
            one.close()
        await until(lambda: not rig.handshakes)


async def test_addresses_take_turns_at_handshakes() -> None:
    accounts = Accounts(ClientLimits())
    handshakes, turns = Handshakes(accounts), list[str]()

    class Sock:
        def __init__(self, name: str) -> None:
            self.name = name

        def go_on(self) -> None:
            turns.append(self.name)

    for name in ("a1", "a2", "a3", "b1"):
        sock: Any = Sock(name)
        handshakes.ready(sock, handshakes.begin(sock, f"192.0.2.{ord(name[0])}:1"))
    await until(lambda: len(turns) == 4)
    assert turns == ["a1", "b1", "a2", "a3"]

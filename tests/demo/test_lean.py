"""The cheap model server: any path, the version in header and body, streams, request bodies of both kinds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from controlplane.demo.lean import LeanServer


@pytest.fixture
async def server() -> AsyncIterator[LeanServer]:
    async with LeanServer() as server:
        yield server


async def test_each_port_answers_with_its_version(server: LeanServer) -> None:
    assert server.ports.keys() == {"blue", "green"}
    async with aiohttp.ClientSession() as session:
        for version, port in server.ports.items():
            async with session.post(f"http://127.0.0.1:{port}/any/path", json={"inputs": []}) as answer:
                assert answer.status == 200
                assert answer.headers["x-model-version"] == version
                assert (await answer.json()) == {"model_version": version}


async def test_a_stream_takes_as_long_as_asked(server: LeanServer) -> None:
    start = time.monotonic()
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{server.ports['blue']}/x?seconds=0.2") as answer,
    ):
        assert (await answer.text()) == '{"model_version": "blue"}' * 4
    assert time.monotonic() - start >= 0.2


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello",
        b"POST /x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"GET /x HTTP/1.1\r\nhost: h\r\n\r\n",
    ],
)
async def test_requests_on_one_connection_in_any_pieces(server: LeanServer, request_: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.ports["green"])
    for _ in range(2):
        for i in range(0, len(request_), 9):
            writer.write(request_[i : i + 9])
            await writer.drain()
            await asyncio.sleep(0)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert await reader.readexactly(26) == b'{"model_version": "green"}'
    writer.close()


async def test_it_is_gone_after_close() -> None:
    server = LeanServer(["blue"])
    async with server:
        port = server.ports["blue"]
    with pytest.raises(OSError, match="Connect"):
        await asyncio.open_connection("127.0.0.1", port)

"""The load's records: versions, users, times, and every failure."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from controlplane.demo.lean import LeanServer
from controlplane.demo.load import Group, Load, Records

HEAD = b"HTTP/1.1 200 OK\r\nx-model-version: blue\r\n"


@pytest.fixture
async def lean() -> AsyncIterator[LeanServer]:
    async with LeanServer() as server:
        yield server


async def run(groups: list[Group], seconds: float = 0.3, users: int = 100) -> Records:
    load = Load(groups, users=users)
    try:
        await load.start()
        await asyncio.sleep(seconds)
        return await load.stop()
    finally:
        await load.close()


async def scripted(answer: bytes, *, close: bool = True) -> tuple[asyncio.Server, int]:
    """Start a server that answers every request with the same bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        if not close:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


async def test_counts_by_version_and_time(lean: LeanServer) -> None:
    before = time.time()
    groups = [
        Group("127.0.0.1", lean.ports["blue"], "/v2/models/m/infer", name="b", connections=2, body='{"inputs": []}'),
        Group("127.0.0.1", lean.ports["green"], "/v2/models/m", name="g", connections=2, rate=100),
    ]
    records = await run(groups)
    assert records.failed == 0
    assert {(r.group, r.version) for r in records.requests} == {("b", "blue"), ("g", "green")}
    assert all(before < r.start <= r.end < time.time() for r in records.requests)
    assert {r.user for r in records.requests} == set(range(100))
    assert records.by_version()["blue"] > 100 > records.by_version()["green"] > 10
    assert not records.by_version(since=time.time())


async def test_streaming_answers_are_read_to_their_end(lean: LeanServer) -> None:
    records = await run([Group("127.0.0.1", lean.ports["blue"], "/x?seconds=0.5", connections=3)], seconds=0.1)
    # The load waited for the requests that were in flight when it stopped.
    assert len(records.requests) >= 3
    assert records.failed == 0
    assert all(r.end - r.start >= 0.5 for r in records.requests)


async def test_passes_call_each_user_that_often(lean: LeanServer) -> None:
    load = Load([Group("127.0.0.1", lean.ports["blue"], "/x", connections=4)], users=250, passes=2, first_user=1000)
    try:
        await load.start()
        records = await load.finish()
    finally:
        await load.close()
    assert sorted(r.user for r in records.requests) == sorted([*range(1000, 1250)] * 2)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno", "503"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "200 OK"),  # no version
        (HEAD + b"content-length: 10\r\n\r\nshort", "in the middle"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nshort\r\n", "in the middle"),
        (b"", "before the answer"),
        (HEAD[:20], "before the answer"),
    ],
)
async def test_an_incomplete_or_wrong_answer_is_a_failure(answer: bytes, text: str) -> None:
    server, port = await scripted(answer)
    async with server:
        load = Load([Group("127.0.0.1", port, "/x", connections=1)], users=5, passes=1)
        try:
            await load.start()
            records = await load.finish()
        finally:
            await load.close()
    assert records.failed == len(records.requests) == 5
    assert text in records.failures[0]


async def test_a_refused_connection_is_a_failure(unused_tcp_port_factory: Callable[[], int]) -> None:
    port = unused_tcp_port_factory()
    for http2 in (False, True):
        load = Load([Group("127.0.0.1", port, "/x", connections=1, http2=http2)], users=2, passes=1)
        try:
            await load.start()
            records = await load.finish()
        finally:
            await load.close()
        assert records.failed == 2
        assert "could not connect" in records.failures[0]

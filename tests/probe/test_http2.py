"""One request over HTTP/2, with the frames that a server may send."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.http2 import frames
from controlplane.http2.headers import encoded
from controlplane.probe.http2 import Response, request
from tests.probe.servers import server

GET = ((":method", "GET"), (":scheme", "http"), (":authority", "iris"), (":path", "/ready"))
OK = encoded(((":status", "200"),))


async def ask(text: bytes, max_body: int = 0) -> Response:
    """Send a request to a server that answers these bytes and closes the connection."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(frames.PREFACE))
        writer.write(text)
        writer.write_eof()
        await reader.read()
        writer.close()

    async with server(handler) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            return await request(reader, writer, GET, max_body=max_body)
        finally:
            writer.close()


async def test_frames_before_and_around_the_answer() -> None:
    early = frames.headers(1, encoded(((":status", "103"),)))
    connection = frames.settings({}) + frames.SETTINGS_ACK + frames.ping() + frames.window_update(0, 1)
    assert (await ask(connection + early + frames.headers(1, OK))).status == 200


async def test_a_block_in_several_frames_with_priority_and_padding() -> None:
    flags = frames.PADDED | frames.HAS_PRIORITY
    first = frames.frame(frames.HEADERS, flags, 1, b"\x02" + bytes(5) + OK[:1] + bytes(2))
    assert (await ask(first + frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, OK[1:]))).status == 200


async def test_body_and_trailers() -> None:
    text = frames.headers(1, OK) + frames.frame(frames.DATA, 0, 1, b"abc")
    answer = await ask(text + frames.headers(1, encoded((("grpc-status", "12"),)), end=True), max_body=10)
    assert (answer.status, answer.body, answer.grpc_status, answer.ended) == (200, b"abc", 12, True)


async def test_trailers_in_several_frames() -> None:
    block = encoded((("grpc-status", "12"),))
    first = frames.frame(frames.HEADERS, frames.END_STREAM, 1, block[:1])
    text = frames.headers(1, OK) + first + frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, block[1:])
    assert (await ask(text, max_body=10)).grpc_status == 12


@pytest.mark.parametrize(
    ("text", "max_body"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", 0),
        (frames.goaway(0, frames.ErrorCode.NO_ERROR), 0),
        (frames.reset(1, frames.ErrorCode.REFUSED_STREAM), 0),
        (frames.headers(1, b"\xff\xff\xff\xff\xff\xff"), 0),
        (frames.ping() * 100, 0),
        (frames.headers(1, OK) + frames.frame(frames.DATA, 0, 1, bytes(11)), 10),
        (frames.frame(frames.HEADERS, 0, 1, bytes(16_384)) + frames.frame(frames.CONTINUATION, 0, 1, bytes(10)), 0),
    ],
)
async def test_answers_that_are_refused(text: bytes, max_body: int) -> None:
    with pytest.raises(ValueError):
        await ask(text, max_body=max_body)


async def test_a_connection_that_ends() -> None:
    with pytest.raises(EOFError):
        await ask(frames.settings({}))

"""The server: starting, stopping, and faults that stay with their connection."""

from __future__ import annotations

import asyncio
import logging

import pytest

from controlplane.http2 import frames
from controlplane.http2.transport import SocketTransport
from tests.http2.echo import serving
from tests.http2.raw import prefixed, raw, without_goaway

HELLO = prefixed(b"hello")


async def test_a_server_that_stops_waits_for_open_calls() -> None:
    async with serving() as echo, raw(echo.port) as c:
        stream = await c.start()
        await c.send(stream, HELLO)
        await c.until(lambda: c.messages(stream) == [b"hello"])
        stopping = asyncio.create_task(echo.server.stop(20))
        await echo.until(lambda: echo.connection.grpc.draining)
        assert not stopping.done()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", echo.port)
        echo.handlers[0].end()
        # The first GOAWAY comes before the status, and h2 accepts nothing after a GOAWAY.
        received = b""
        while data := await c.reader.read(65536):
            received += data
        assert frames.goaway(stream, frames.ErrorCode.NO_ERROR) in received
        c.handle(without_goaway(received))
        assert c.headers(stream)["grpc-status"] == "0"
        await stopping


async def test_a_server_that_stops_disconnects_the_rest_after_the_grace_period() -> None:
    async with serving() as echo, raw(echo.port) as c:
        await c.start()
        await echo.until(lambda: echo.handlers)
        await echo.server.stop(0.05)
        await c.end()
        assert "grpc-status" not in c.headers(1)


@pytest.mark.parametrize("method", ["flush", "catch_up"])
async def test_an_exception_closes_its_own_connection_only(
    method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    busy = False
    async with serving(busy=lambda: busy) as echo, raw(echo.port) as good, raw(echo.port) as bad:
        streams = {}
        for c in (good, bad):
            streams[c] = await c.start()
            await c.send(streams[c], HELLO)
            await c.until(lambda: len(echo.handlers) == len(streams) and echo.handlers[-1].received)
        broken = next(k for k in echo.server.connections if k.peer == echo.handlers[1].peer)
        original = getattr(SocketTransport, method)
        monkeypatch.setattr(SocketTransport, method, lambda k, *a: 1 / 0 if k is broken else original(k, *a))
        busy = method == "catch_up"
        with caplog.at_level(logging.ERROR, "http2"):
            if method == "flush":
                echo.handlers[1].send(b"unasked")
            else:
                await bad.send(streams[bad], HELLO)
                await asyncio.sleep(0.01)
                busy = False
            await bad.end()
        assert "connection failed" in caplog.text
        await good.send(streams[good], HELLO)
        await good.until(lambda: len(good.messages(streams[good])) == 2)


async def test_reading_is_deferred_while_the_server_is_busy() -> None:
    busy = False
    async with serving(busy=lambda: busy) as echo, raw(echo.port) as c:
        stream = await c.start()
        await echo.until(lambda: echo.handlers)
        busy = True
        await c.send(stream, HELLO)
        await asyncio.sleep(0.02)
        assert not echo.handlers[0].received
        busy = False
        await c.until(lambda: c.messages(stream) == [b"hello"])

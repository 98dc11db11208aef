"""Connections that leave something incomplete, or that have no call."""

from __future__ import annotations

import asyncio

import pytest
from h2.events import ConnectionTerminated
from hyperframe.frame import HeadersFrame

from controlplane.http2.limits import ConnectionLimits
from controlplane.http2.progress import Progress
from tests.http2.echo import serving
from tests.http2.raw import Raw, prefixed, raw

LIMITS = ConnectionLimits(incomplete_timeout=0.1, idle_timeout=0.1, keepalive_sweep=0.03)


def test_a_part_of_a_frame_waits_since_it_came() -> None:
    progress = Progress(1.0)
    progress.received(10.0, 100, 5)
    progress.received(11.0, 7, 7)
    assert progress.frame_since == 10.0
    progress.received(12.0, 9, 2)
    assert progress.frame_since == 12.0
    progress.received(13.0, 9, 0)
    assert progress.frame_since == 0.0


async def _part_of_a_frame(c: Raw) -> None:
    c.writer.write(b"\0\0")


async def _part_of_a_header_block(c: Raw) -> None:
    c.writer.write(HeadersFrame(3, b"\x82").serialize())


async def _part_of_a_message(c: Raw) -> None:
    await c.send(await c.open(), prefixed(b"hello")[:-1])


@pytest.mark.parametrize("part", [_part_of_a_frame, _part_of_a_header_block, _part_of_a_message])
async def test_a_client_that_never_completes_something_is_closed(part: object) -> None:
    assert callable(part)
    async with serving(LIMITS) as echo, raw(echo.port) as c:
        stream = await c.start()
        await c.send(stream, prefixed(b"hello"))
        await c.until(lambda: c.messages(stream))
        await part(c)
        await c.until(lambda: c.events_of(ConnectionTerminated))
        assert c.goaway is not None
        assert c.goaway.error_code == 11  # ENHANCE_YOUR_CALM
        assert echo.server.refusals.counts == {"slow": 1}


async def test_a_connection_with_a_call_is_never_idle_and_one_without_is_closed() -> None:
    async with serving(LIMITS) as echo, raw(echo.port) as busy, raw(echo.port) as idle:
        stream = await busy.start()
        idle.h2.initiate_connection()
        await idle.flush()
        await idle.until(lambda: idle.events_of(ConnectionTerminated))
        assert idle.goaway is not None
        assert idle.goaway.error_code == 0
        assert echo.server.refusals.counts == {"idle": 1}
        await asyncio.sleep(0.15)
        await busy.send(stream, prefixed(b"hello"))
        await busy.until(lambda: busy.messages(stream))

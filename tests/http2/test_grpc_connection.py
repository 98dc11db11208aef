"""The calls of one connection: flow control in both directions, bounds and draining."""

from __future__ import annotations

import gzip
from dataclasses import replace
from functools import partial

import pytest
from h2.errors import ErrorCodes
from h2.events import PingAckReceived, StreamReset
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame

from controlplane.http2 import grpc_call
from controlplane.http2.limits import ConnectionLimits
from tests.http2.echo import serving
from tests.http2.raw import Raw, prefixed, raw

# Small, so that the connection's window is used up soon.
LIMITS = ConnectionLimits(max_message_bytes=800_000)


def has_bytes(c: Raw, stream: int, count: int) -> bool:
    return len(c.data[stream]) == count


def has_acks(c: Raw, count: int) -> bool:
    return len(c.events_of(PingAckReceived)) == count


async def test_two_of_the_largest_messages_fit_into_the_window_beside_unacknowledged_bytes() -> None:
    async with serving(LIMITS) as echo, raw(echo.port) as c:
        stream = await c.start()
        await c.send_all({stream: prefixed(bytes(LIMITS.window_update_bytes - 1_000))})
        await c.until(lambda: c.messages(stream))
        assert echo.connection.grpc._unacknowledged > 0
        largest = prefixed(bytes(LIMITS.max_message_bytes))
        more = [await c.open(), await c.open()]
        await c.send_all(dict.fromkeys(more, largest))
        await c.until(lambda: all(c.messages(stream) for stream in more))


async def test_the_window_counts_compressed_bytes() -> None:
    """Decompressed messages may be a thousand times as large, or smaller."""
    async with serving() as echo, raw(echo.port) as c:
        stream = await c.start(grpc_encoding="gzip")
        small = prefixed(gzip.compress(b"x"), compressed=1)
        large = prefixed(gzip.compress(b"x" * 1_000_000), compressed=1)
        await c.send(stream, small + large)
        await c.until(lambda: len(c.messages(stream)) == 2)
        grpc = echo.connection.grpc
        assert grpc._unacknowledged == len(small) + len(large)
        await c.ended(prefixed(b"x" * 1000, compressed=1), grpc_encoding="gzip")
        assert grpc._unacknowledged == len(small) + len(large) + 1005


async def test_a_large_message_gets_through_small_windows() -> None:
    async with serving() as echo, raw(echo.port) as c:
        stream = await c.start()
        await c.send_all({stream: prefixed(b"x" * 3_000_000)})
        await c.until(lambda: len(c.messages(stream)) == 1)


async def test_a_client_gets_no_more_than_its_window() -> None:
    async with serving() as echo, raw(echo.port) as c:
        c.acknowledges = False
        stream = await c.start({SettingCodes.INITIAL_WINDOW_SIZE: 3})
        message = bytes(range(256)) * 100
        await c.send(stream, prefixed(message)[:16_000])
        await c.send(stream, prefixed(message)[16_000:])
        await c.until(lambda: len(c.data.get(stream, b"")) == 3)
        # The window opens by one byte, by some, and then all the way: the message comes in order.
        for more in (1, 4, 10_000):
            before = len(c.data[stream])
            c.h2.increment_flow_control_window(more, stream)
            await c.flush()
            await c.until(partial(has_bytes, c, stream, before + more))
        c.h2.increment_flow_control_window(1_000_000)
        c.h2.increment_flow_control_window(1_000_000, stream)
        await c.flush()
        await c.until(lambda: c.messages(stream) == [message])


async def test_settings_open_windows() -> None:
    async with serving() as echo, raw(echo.port) as c:
        stream = await c.start({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        await c.send(stream, prefixed(b"hello"))
        await echo.until(lambda: echo.handlers and echo.handlers[0].received)
        assert not c.data
        c.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 100_000})
        await c.flush()
        await c.until(lambda: c.messages(stream) == [b"hello"])


async def test_a_client_that_exceeds_the_window_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_call.Call, "_open_window", lambda _: None)
    async with serving() as echo, raw(echo.port) as c:
        stream = await c.start()
        await c.until(lambda: ":status" in c.headers(stream))
        # A message that goes on, without waiting for the window to open.
        await c.send(stream, prefixed(bytes(10_000_000))[:10])
        c.writer.write(DataFrame(stream, bytes(16_384)).serialize() * 20)
        await c.end()
        assert c.goaway.error_code == ErrorCodes.FLOW_CONTROL_ERROR


async def test_a_call_that_waits_for_its_window_is_not_woken_by_every_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as echo, raw(echo.port) as c:
        stream = await c.start({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        await c.send(stream, prefixed(b"hello"))
        await echo.until(lambda: echo.handlers and echo.handlers[0].received)
        assert echo.connection.grpc._waiting
        woken: list[object] = []
        monkeypatch.setattr(grpc_call.Call, "notify", woken.append)
        for n in range(3):
            c.h2.ping(bytes([n]) * 8)
            await c.flush()
            await c.until(partial(has_acks, c, n + 1))
        assert not woken


async def test_a_handler_that_does_not_read_keeps_its_client_within_one_window() -> None:
    async with serving() as echo, raw(echo.port) as c:
        stream = await c.start()
        await echo.until(lambda: echo.handlers)
        (handler,) = echo.handlers
        handler.pause()
        window = c.h2.local_flow_control_window(stream)
        await c.until(lambda: c.h2.local_flow_control_window(stream) > window)  # the server's SETTINGS arrive
        messages = prefixed(b"x" * 995) * 1_000
        sent = 0
        while (size := min(c.h2.local_flow_control_window(stream), 16_384)) > 0:
            await c.send(stream, messages[sent : sent + size])
            sent += size
        assert sent == echo.server.limits.stream_window
        assert not handler.received
        handler.resume()
        await c.until(lambda: len(c.messages(stream)) == sent // 1_000)


async def test_streams_of_a_connection_are_bounded() -> None:
    async with serving(replace(LIMITS, max_streams=5)) as echo, raw(echo.port) as c:
        await c.start()
        await c.until(lambda: c.h2.remote_settings.max_concurrent_streams == 5)
        for _ in range(4):
            await c.open()
        c.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 100
        c.h2.remote_settings.acknowledge()
        late = await c.open()
        await c.until(lambda: c.over(late))
        assert c.events_of(StreamReset, late)[0].error_code == ErrorCodes.REFUSED_STREAM
        # The others go on.
        await c.send(1, prefixed(b"hello"))
        await c.until(lambda: c.messages(1) == [b"hello"])


async def test_a_goaway_of_the_client_closes_the_connection_after_its_calls() -> None:
    async with serving() as echo, raw(echo.port) as c:
        stream = await c.start()
        await c.until(lambda: ":status" in c.headers(stream))
        ours = echo.connection
        c.writer.write(b"\0\0\x08\x07\0" + bytes(12))  # GOAWAY, NO_ERROR
        await echo.until(lambda: ours.grpc.draining)
        await c.send(stream, prefixed(b"hello"), end_stream=True)
        await c.until(lambda: c.over(stream))
        assert c.messages(stream) == [b"hello"]
        await c.end()
        assert c.goaway.error_code == ErrorCodes.NO_ERROR

"""A connection's socket: budgets, pauses, timeouts and closing, with clients that break the rules."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, PingAckReceived, StreamReset
from h2.settings import SettingCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from controlplane.http2 import grpc_call
from controlplane.http2.accounts import ClientLimits
from controlplane.http2.allowance import Rate
from controlplane.http2.limits import ConnectionLimits
from controlplane.http2.peer import address
from tests.http2.echo import serving
from tests.http2.raw import ECHO, Raw, prefixed, raw, without_goaway

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HELLO = prefixed(b"hello")


@pytest.mark.parametrize(
    "frame", [WindowUpdateFrame(0, window_increment=0), GoAwayFrame(0, error_code=ErrorCodes.ENHANCE_YOUR_CALM)]
)
async def test_a_client_that_still_writes_reads_everything_before_the_connection_closes(frame: Frame) -> None:
    async with serving() as echo, raw(echo.port) as c:
        stream = await c.start()
        await c.send(stream, HELLO)
        await c.until(lambda: c.messages(stream))
        c.writer.write(frame.serialize())
        for _ in range(20):
            c.writer.write(PingFrame(0, b"too late").serialize())
            await asyncio.sleep(0.001)
        await c.end()
        assert c.goaway is not None
        assert not c.reset
        assert not c.events_of(PingAckReceived)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", ErrorCodes.PROTOCOL_ERROR),
        (bytes(range(256)) * 10, ErrorCodes.PROTOCOL_ERROR),
        (PREFACE + b"\xff\xff\xff\0\0\0\0\0\1", ErrorCodes.FRAME_SIZE_ERROR),
        (PREFACE + SettingsFrame(0).serialize() + DataFrame(1, b"x").serialize(), ErrorCodes.PROTOCOL_ERROR),
        (PREFACE + SettingsFrame(0).serialize() + ContinuationFrame(1, b"x").serialize(), ErrorCodes.PROTOCOL_ERROR),
    ],
    ids=["http1", "garbage", "huge-frame", "idle-stream", "continuation"],
)
async def test_a_protocol_error_closes_its_own_connection_only(data: bytes, code: ErrorCodes) -> None:
    async with serving() as echo, raw(echo.port) as good, raw(echo.port) as bad:
        stream = await good.start()
        await good.send(stream, HELLO)
        await good.until(lambda: good.messages(stream))
        bad.h2.initiate_connection()
        bad.h2.data_to_send()
        bad.writer.write(data)
        await bad.end()
        assert bad.goaway.error_code == code
        await good.send(stream, HELLO)
        await good.until(lambda: len(good.messages(stream)) == 2)
        await echo.until(lambda: len(echo.server.connections) == 1)


async def test_nothing_is_received_after_the_last_goaway(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = False
    async with serving(ConnectionLimits(keepalive_timeout=0.05), busy=lambda: busy) as echo, raw(echo.port) as c:
        await c.start()
        await echo.until(lambda: echo.handlers)
        ours = echo.connection
        # As if the client never read the rest of the output.
        monkeypatch.setattr(ours._transport, "close", lambda: None)
        fields = [(":method", "POST"), (":scheme", "http"), (":path", ECHO), (":authority", "x")]
        opening = []
        for number in (3, 5):
            c.h2.send_headers(number, fields)
            opening.append(c.h2.data_to_send())
        busy = True
        ours.data_received(opening[0])
        busy = False
        ours.data_received(WindowUpdateFrame(7, window_increment=1).serialize())
        assert not ours.grpc.calls
        ours.data_received(opening[1])
        assert not ours.grpc.calls
        await c.end()
        assert [goaway.error_code for goaway in c.events_of(ConnectionTerminated)] == [ErrorCodes.PROTOCOL_ERROR]
        assert c.goaway.last_stream_id == 3


async def test_a_client_whose_socket_is_full_is_alive_when_it_reads_again() -> None:
    """Nothing is read from it while its socket is full, so it can't answer a PING."""
    async with serving(ConnectionLimits(keepalive_interval=0, keepalive_timeout=0)) as echo, raw(echo.port) as c:
        stream = await c.start()
        await c.until(lambda: ":status" in c.headers(stream))
        ours = echo.connection
        now = asyncio.get_running_loop().time()
        ours.check_alive(now + 1)
        ours.pause_writing()
        ours.resume_writing()
        ours.check_alive(now + 2)
        await c.send(stream, HELLO)
        await c.until(lambda: c.messages(stream) == [b"hello"])


async def test_a_client_that_slowly_reads_the_output_before_a_ping_is_alive() -> None:
    """Megabytes may precede the PING in the kernel's buffers, so the client can't answer it for a long time."""
    async with serving() as echo, raw(echo.port) as c:
        await c.start()
        await echo.until(lambda: echo.handlers)
        ours, limits = echo.connection, echo.server.limits
        ours._transport.write(bytes(16_000_000))
        now = asyncio.get_running_loop().time() + limits.keepalive_interval + 1
        ours.check_alive(now)
        for _ in range(3):
            await c.reader.readexactly(2_000_000)
            now += limits.keepalive_timeout + 1
            ours.check_alive(now)
            assert not ours._transport.is_closing()
        for _ in range(20):  # so that bytes in flight arrive
            await asyncio.sleep(0.01)
            now += limits.keepalive_timeout + 1
            ours.check_alive(now)
        assert ours._transport.is_closing()


async def test_a_silent_client_is_pinged_and_disconnected_if_it_does_not_answer() -> None:
    limits = ConnectionLimits(keepalive_interval=0.1, keepalive_timeout=0.3, keepalive_sweep=0.05)
    async with serving(limits) as echo, raw(echo.port) as alive, raw(echo.port) as gone:
        for c in (alive, gone):
            stream = await c.start()
            await c.send(stream, HELLO)
            await c.until(partial(c.messages, stream))
        await alive.until(lambda: alive.pings >= 5)
        await gone.end()
        assert not alive.closed
        assert gone.goaway is None


async def test_a_client_that_sends_no_preface_in_time_is_disconnected() -> None:
    async with serving(ConnectionLimits(preface_timeout=0.1)) as echo, raw(echo.port) as c:
        c.writer.write(PREFACE[:10])
        while await c.reader.read(1024):
            assert echo.server.connections
        assert not echo.server.connections


async def test_a_connection_of_its_maximum_age_takes_no_new_streams_and_serves_the_old_ones() -> None:
    async with serving(ConnectionLimits(max_age=0.05)) as echo, raw(echo.port) as c:
        stream = await c.start()
        await echo.until(lambda: echo.connection.grpc.draining)
        # Opened before the client has read the GOAWAY.
        late = await c.open()
        c.h2.send_data(stream, HELLO)
        await c.flush()
        while not (c.events_of(StreamReset, late) and c.messages(stream)):
            data = await c.reader.read(65536)
            assert data
            c.handle(without_goaway(data))
        assert c.events_of(StreamReset, late)[0].error_code == ErrorCodes.REFUSED_STREAM


async def test_a_call_that_fails_at_its_end_does_not_keep_the_others_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as echo:
        async with raw(echo.port) as c:
            for _ in range(2):
                stream = await (c.open() if c.h2.streams else c.start())
            await c.until(lambda: ":status" in c.headers(stream))
            ours = echo.connection
            first, second = ours.grpc.calls.values()
            aborted = grpc_call.Call.aborted
            monkeypatch.setattr(grpc_call.Call, "aborted", lambda call: 1 / 0 if call is first else aborted(call))
        await echo.until(lambda: not echo.server.connections)
        assert second._closed


def flood(kind: str, c: Raw, stream: int) -> bytes:
    """Return frames that cost the server much time and the client little."""
    if kind == "pings":
        return PingFrame(0, b"12345678").serialize() * 500
    if kind == "settings":
        return SettingsFrame(0, settings={SettingCodes.INITIAL_WINDOW_SIZE: 65_535}).serialize() * 500
    if kind == "windows":
        return WindowUpdateFrame(stream, window_increment=1).serialize() * 5_000
    if kind == "empty":
        return DataFrame(stream).serialize() * 500
    frames: list[Frame] = []
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", ECHO),
        (":authority", "x"),
        ("content-type", "application/grpc"),
    ]
    for _ in range(100):
        number = c.h2.get_next_available_stream_id()
        c.h2.highest_outbound_stream_id = number
        frames.append(HeadersFrame(number, c.h2.encoder.encode(fields), flags=["END_HEADERS"]))
        frames.append(RstStreamFrame(number, error_code=8))
    return b"".join(f.serialize() for f in frames)


@pytest.mark.parametrize("kind", ["pings", "settings", "empty", "windows", "resets"])
async def test_a_client_that_floods_waits_for_its_turn_and_others_are_served(kind: str) -> None:
    clients = ClientLimits(cpu=Rate(0.005, 0.1), frames=Rate(1e9, 1), connection_streams=Rate(1e9, 1), streams=Rate(1e9, 1))
    async with serving(clients=clients) as echo, raw(echo.port) as good, raw(echo.port) as c:
        good_stream = await good.start()
        await good.until(lambda: ":status" in good.headers(good_stream))
        stream = await c.start()
        await c.until(lambda: ":status" in c.headers(stream))
        (ours,) = (k for k in echo.server.connections if k.peer.address == address(c.writer.get_extra_info("sockname")))

        async def pour() -> None:
            while True:
                c.writer.write(flood(kind, c, stream))
                await c.writer.drain()
                await asyncio.sleep(0)

        pouring = asyncio.create_task(pour())
        await echo.until(lambda: ours._queued)
        await good.send(good_stream, HELLO)
        await good.until(lambda: good.messages(good_stream) == [b"hello"])
        # The output stays small, although the client reads nothing.
        assert ours._transport.get_write_buffer_size() < 1_000_000
        pouring.cancel()
        await asyncio.gather(pouring, return_exceptions=True)

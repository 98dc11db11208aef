"""A gRPC call: opening, messages, ends, and that it is freed."""

from __future__ import annotations

import asyncio
import gc
import gzip
from dataclasses import replace
from typing import Any
from weakref import ReferenceType, ref

import pytest
from h2.events import StreamReset
from h2.settings import SettingCodes

from controlplane.http2.limits import ConnectionLimits
from tests.http2.echo import BROKEN, END, REFUSED, serving
from tests.http2.raw import prefixed, raw

HELLO = prefixed(b"hello")


async def test_messages_arrive_however_they_are_cut() -> None:
    async with serving() as echo, raw(echo.port) as c:
        stream = await c.start()
        both = prefixed(b"one") + prefixed(b"another message")
        for at in range(0, len(both), 7):
            await c.send(stream, both[at : at + 7], pad_length=3 if at % 2 else None)
        await c.until(lambda: c.messages(stream) == [b"one", b"another message"])
        other = await c.open()
        await c.send(other, both)
        await c.until(lambda: c.messages(other) == [b"one", b"another message"])


async def test_a_call_with_a_content_length() -> None:
    async with serving() as echo, raw(echo.port) as c:
        stream, headers = await c.ended(HELLO, end_stream=True, content_length=str(len(HELLO)))
        assert c.messages(stream) == [b"hello"]
        assert headers["grpc-status"] == "0"


async def test_response_headers_come_before_the_first_message() -> None:
    async with serving() as echo, raw(echo.port) as c:
        stream = await c.start()
        await c.until(lambda: ":status" in c.headers(stream))
        assert c.headers(stream)[":status"] == "200"
        assert c.headers(stream)["content-type"] == "application/grpc"


async def test_gzip_is_understood_and_no_other_compression() -> None:
    limits = ConnectionLimits(max_message_bytes=1_000_000)
    async with serving(limits) as echo, raw(echo.port) as c:
        stream = await c.start(grpc_encoding="gzip")
        await c.send(stream, prefixed(gzip.compress(b"hello"), compressed=1))
        await c.until(lambda: c.messages(stream) == [b"hello"])
        bomb = prefixed(gzip.compress(bytes(1_000_001)), compressed=1)
        assert (await c.ended(bomb, grpc_encoding="gzip"))[1]["grpc-status"] == "8"
        garbage = prefixed(b"not gzip", compressed=1)
        assert (await c.ended(garbage, grpc_encoding="gzip"))[1]["grpc-status"] == "3"
        without_encoding = prefixed(b"\x1f", compressed=1)
        assert (await c.ended(without_encoding))[1]["grpc-status"] == "13"
        _, headers = await c.ended(grpc_encoding="snappy")
        assert headers["grpc-status"] == "12"
        assert headers["grpc-message"] == "grpc-encoding snappy is not supported; use identity or gzip"
        assert "gzip" in headers["grpc-accept-encoding"]


async def test_requests_that_are_not_grpc_get_an_http_status() -> None:
    async with serving() as echo, raw(echo.port) as c:
        assert (await c.ended(kind="text/html"))[1][":status"] == "415"
        assert (await c.ended(method="GET"))[1][":status"] == "405"
        assert (await c.ended(kind="application/grpc+proto", path="/x"))[1][":status"] == "200"


async def test_an_unknown_method_is_unimplemented() -> None:
    async with serving() as echo, raw(echo.port) as c:
        _, headers = await c.ended(path="/no.such.Service/M%thod")
        assert (headers["grpc-status"], headers["grpc-message"]) == ("12", "unknown method /no.such.Service/M%25thod")


async def test_a_status_error_while_opening_ends_the_call() -> None:
    async with serving() as echo, raw(echo.port) as c:
        _, headers = await c.ended(path=REFUSED)
        assert (headers["grpc-status"], headers["grpc-message"]) == ("7", "not for you")


async def test_an_exception_in_a_handler_is_internal_and_hidden() -> None:
    async with serving() as echo, raw(echo.port) as c:
        _, headers = await c.ended(HELLO, path=BROKEN)
        assert (headers["grpc-status"], headers["grpc-message"]) == ("13", "internal error")


async def test_an_end_in_the_middle_of_a_message_is_an_error() -> None:
    async with serving() as echo, raw(echo.port) as c:
        assert (await c.ended(HELLO[:-1], end_stream=True))[1]["grpc-status"] == "13"
        assert (await c.ended(HELLO, end_stream=True))[1]["grpc-status"] == "0"


async def test_a_message_that_is_too_large_is_refused_at_its_prefix() -> None:
    limits = ConnectionLimits(max_message_bytes=1_000)
    async with serving(limits) as echo, raw(echo.port) as c:
        _, headers = await c.ended(b"\0" + (1_001).to_bytes(4, "big"))
        assert headers["grpc-status"] == "8"
        assert headers["grpc-message"] == "the message has 1001 bytes or more; the largest allowed has 1000"


async def test_messages_wait_while_the_handler_does_not_read() -> None:
    async with serving() as echo, raw(echo.port) as c:
        stream = await c.start()
        await echo.until(lambda: echo.handlers)
        (handler,) = echo.handlers
        handler.pause()
        await c.send(stream, HELLO + prefixed(END))
        await c.send(stream, b"", end_stream=True)
        call = echo.connection.grpc.calls[stream]
        await echo.until(lambda: call._half_closed)
        assert not handler.received
        handler.resume()
        await c.until(lambda: c.over(stream))
        assert (handler.received, c.messages(stream)) == ([b"hello", END], [b"hello"])


async def test_the_status_waits_for_a_client_that_does_not_read_and_then_the_call_is_reset() -> None:
    async with serving(replace(ConnectionLimits(), end_timeout=0.05)) as echo, raw(echo.port) as c:
        c.acknowledges = False
        stream = await c.start({SettingCodes.INITIAL_WINDOW_SIZE: 3})
        await c.send(stream, HELLO + prefixed(END))
        await c.until(lambda: c.data[stream] == HELLO[:3])
        (handler,) = echo.handlers
        handler.end()
        await c.until(lambda: c.over(stream))
        assert c.events_of(StreamReset, stream)
        assert "grpc-status" not in c.headers(stream)


async def test_the_status_follows_the_rest_of_a_message() -> None:
    async with serving() as echo, raw(echo.port) as c:
        c.acknowledges = False
        stream = await c.start({SettingCodes.INITIAL_WINDOW_SIZE: 3})
        await c.send(stream, HELLO)
        await c.until(lambda: c.data[stream] == HELLO[:3])
        (handler,) = echo.handlers
        handler.end()
        c.h2.increment_flow_control_window(100, stream)
        await c.flush()
        await c.until(lambda: c.over(stream))
        assert (c.messages(stream), c.headers(stream)["grpc-status"]) == ([b"hello"], "0")


async def test_a_handler_gets_the_peer_of_its_connection() -> None:
    async with serving() as echo, raw(echo.port) as c:
        await c.start()
        await echo.until(lambda: echo.handlers)
        host, port = c.writer.get_extra_info("sockname")
        assert echo.handlers[0].peer.address == f"{host}:{port}"
        assert echo.handlers[0].peer.identity is None


@pytest.mark.parametrize("end", ["close", "half-close", "error"])
async def test_a_call_is_freed_without_the_cycle_collector(end: str) -> None:
    gc.disable()
    try:
        async with serving() as echo:
            async with raw(echo.port) as c:
                stream = await c.start()
                await c.send(stream, HELLO)
                await c.until(lambda: c.messages(stream))
                connection = echo.connection
                (call,) = connection.grpc.calls.values()
                handler = echo.handlers.pop()
                connection_ref: ReferenceType[Any] = ref(connection)
                call_refs: list[ReferenceType[Any]] = [ref(call), ref(handler)]
                del connection, call, handler
                if end == "half-close":
                    await c.send(stream, b"", end_stream=True)
                elif end == "error":
                    await c.send(stream, prefixed(b"abc", compressed=1))
                if end != "close":
                    await c.until(lambda: c.over(stream))
                    await freed(call_refs)
            await freed([*call_refs, connection_ref])
    finally:
        gc.enable()


async def freed(references: list[ReferenceType[Any]]) -> None:
    """Wait until the objects are freed."""
    async with asyncio.timeout(20):
        while any(reference() is not None for reference in references):  # noqa: ASYNC110  there is no event for it
            await asyncio.sleep(0.005)

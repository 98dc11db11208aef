"""A call over HTTP/2, and what becomes of it and its connection; what they say is in `test_http2.py`."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any
from weakref import ReferenceType, ref

import pytest

from controlplane.http2.server import Server
from controlplane.store import Store
from tests.http2.raw import message, prefixed, raw
from tests.xds_server.rig import BLUE, GATEWAY, Rig, running
from tests.xds_server.rig import store as _store

store = _store


@pytest.fixture
async def rig(store: Store) -> AsyncIterator[Rig]:
    async with running(store) as r:
        await r.commit_and_publish(GATEWAY, BLUE)
        yield r


@pytest.mark.parametrize("end", ["close", "half-close", "error"])
async def test_what_a_client_leaves_behind_is_gone_without_a_search_for_garbage(rig: Rig, end: str) -> None:
    gc.disable()
    try:
        async with raw(rig.port) as c:
            stream = await c.start()
            await c.say(stream, message())
            await c.until(lambda: len(c.responses(stream)) == 1)
            left = of_the_only_call(rig)
            assert all(one() is not None for one in left)
            if end == "half-close":
                await c.say(stream, b"", end_stream=True)
            elif end == "error":
                await c.say(stream, prefixed(b"abc"))
            if end != "close":
                await c.until(lambda: c.over(stream))
                await gone(left[1:])
        await gone(left)
    finally:
        gc.enable()


async def gone(them: list[ReferenceType[Any]]) -> None:
    async with asyncio.timeout(20):
        while any(one() is not None for one in them):  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0.005)


def of_the_only_call(rig: Rig) -> list[ReferenceType[Any]]:
    assert isinstance(rig.server, Server)
    (connection,) = rig.server.connections
    (call,) = connection.grpc.calls.values()
    return [ref(connection), ref(call), ref(call._handler)]

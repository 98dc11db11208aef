"""Messages over a real socket pair."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from controlplane.workers import link as link_module
from controlplane.workers.link import Link


class End:
    """One end, and what came of it."""

    def __init__(self) -> None:
        self.received: list[object] = []
        self.lost = asyncio.Event()
        self.resumed = 0
        self.link = Link(self.received.append, self.lost.set, self._resume)

    def _resume(self) -> None:
        self.resumed += 1


async def pair() -> tuple[End, End]:
    ends = End(), End()
    for sock, end in zip(socket.socketpair(), ends, strict=True):
        sock.setblocking(False)
        await Link.over(sock, end.link)
    return ends


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110  the other end says nothing
            await asyncio.sleep(0.001)


async def test_messages_arrive_whole_and_in_order() -> None:
    one, other = await pair()
    messages = [b"x" * size for size in (0, 1, 7, 8, 9, 70_000, 3_000_000, 5)]
    for message in messages:
        one.link.send(message)
        other.link.send([message])
    await until(lambda: len(one.received) == len(other.received) == len(messages))
    assert other.received == messages
    assert one.received == [[m] for m in messages]
    one.link.close()


async def test_what_was_sent_before_a_close_arrives() -> None:
    one, other = await pair()
    one.link.send(b"x" * 5_000_000)
    one.link.send("last")
    one.link.close()
    await asyncio.wait_for(other.lost.wait(), 30)
    await asyncio.wait_for(one.lost.wait(), 30)
    assert other.received[1:] == ["last"]
    one.link.send("into the void")


async def test_an_end_that_does_not_read_is_not_ready_until_it_does() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    one, other = End(), End()
    await Link.over(ours, one.link)
    sent = 0
    while one.link.ready:
        one.link.send(b"x" * 10_000)
        sent += 1
        await asyncio.sleep(0)
    assert one.resumed == 0
    theirs.setblocking(False)
    await Link.over(theirs, other.link)
    await until(lambda: one.link.ready and len(other.received) == sent)
    assert one.resumed == 1
    one.link.close()


async def test_an_end_that_never_reads_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        one = End()
        await Link.over(ours, one.link)
        monkeypatch.setattr(link_module, "_MOST", 3_000_000)
        for _ in range(5):
            one.link.send(b"x" * 1_000_000)
        await asyncio.wait_for(one.lost.wait(), 30)
        assert not one.link.ready

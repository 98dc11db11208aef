"""Messages over a real socket pair."""

from __future__ import annotations

import asyncio
import socket

import pytest

from controlplane.workers.link import Link
from tests.workers.rig import until


class End:
    """One end of a link, and the messages that it has received."""

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
        await end.link.connect(sock)
    return ends


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


async def test_messages_sent_before_a_close_arrive_and_later_ones_are_dropped() -> None:
    one, other = await pair()
    one.link.send(b"x" * 5_000_000)
    one.link.send("last")
    one.link.close()
    await asyncio.wait_for(other.lost.wait(), 30)
    await asyncio.wait_for(one.lost.wait(), 30)
    assert other.received[1:] == ["last"]
    one.link.send("too late")


async def test_a_link_is_not_writable_while_the_other_end_does_not_read() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    one, other = End(), End()
    await one.link.connect(ours)
    sent = 0
    while one.link.writable:
        one.link.send(b"x" * 10_000)
        sent += 1
        await asyncio.sleep(0)
    assert one.resumed == 0
    theirs.setblocking(False)
    await other.link.connect(theirs)
    await until(lambda: one.link.writable and len(other.received) == sent)
    assert one.resumed == 1
    one.link.close()


async def test_a_link_whose_other_end_never_reads_is_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        one = End()
        await one.link.connect(ours)
        monkeypatch.setattr(Link, "MAX_UNSENT", 3_000_000)
        for _ in range(5):
            one.link.send(b"x" * 1_000_000)
        await asyncio.wait_for(one.lost.wait(), 30)
        assert not one.link.writable

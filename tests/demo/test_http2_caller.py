"""The load's HTTP/2 connection. Its peer is h2 in the same process, without a network."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import h2.config
import h2.connection
import h2.events
import pytest

from controlplane.demo.driver import Driver
from controlplane.demo.http2_caller import Http2, take_frames
from controlplane.http2 import frames


class Peer(asyncio.Transport):
    """The server's side: takes the caller's bytes, and lets a test answer streams."""

    def __init__(self, caller: Http2) -> None:
        super().__init__()
        self.caller = caller
        self.closed = False
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.requests: dict[int, dict[str, str]] = {}

    def write(self, data: Any) -> None:
        for event in self.h2.receive_data(bytes(data)):
            if isinstance(event, h2.events.RequestReceived):
                self.requests[event.stream_id] = dict(cast(Any, event.headers))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def flush(self) -> None:
        self.caller.data_received(self.h2.data_to_send())

    def answer(self, stream: int, body: bytes, *, status: str = "200", length: int | None = None, end: bool = True) -> None:
        headers = [(":status", status), ("x-model-version", "blue")]
        if length is not None:
            headers.append(("content-length", str(length)))
        self.h2.send_headers(stream, headers)
        self.h2.send_data(stream, body, end_stream=end)
        self.flush()


@pytest.fixture
async def peer() -> Peer:
    group = {"host": "h", "port": 1, "path": "/x", "authority": "test", "http2": True, "slots": 2, "connections": 1}
    driver = Driver({"groups": [group], "users": 10, "passes": 1, "first_user": 0})
    caller = Http2(driver, 0, 0)
    peer = Peer(caller)
    caller.connection_made(peer)
    peer.flush()
    return peer


async def test_each_slot_has_a_request_in_flight(peer: Peer) -> None:
    assert [request["x-user"] for request in peer.requests.values()] == ["u0", "u1"]
    peer.answer(1, b"abc", length=3)
    assert peer.caller.driver.counts == {"blue": 1}
    assert [request["x-user"] for request in peer.requests.values()] == ["u0", "u1", "u2"]


async def test_a_short_answer_a_wrong_status_and_a_reset_are_failures(peer: Peer) -> None:
    driver = peer.caller.driver
    peer.answer(1, b"no", status="503")
    peer.h2.reset_stream(3)
    peer.flush()
    assert driver.counts == {"failed": 2}
    assert "status 503" in driver.failures[0]
    assert "stream reset" in driver.failures[1]


def goaway(peer: Peer, last_stream: int) -> None:
    """Send a GOAWAY, and go on: h2 would not answer streams any more after its own."""
    peer.caller.data_received(frames.goaway(last_stream, frames.ErrorCode.NO_ERROR))


def successor(peer: Peer) -> Peer:
    """Return the peer of the connection that the caller makes after a GOAWAY."""
    assert peer.caller.successor is not None
    after = Peer(peer.caller.successor)
    after.caller.connection_made(after)
    after.flush()
    return after


async def test_after_a_goaway_requests_in_flight_finish_and_no_new_one_is_sent(peer: Peer) -> None:
    goaway(peer, frames.MAX_WINDOW)
    goaway(peer, 3)
    peer.answer(1, b"abc", end=False)
    after = successor(peer)
    assert not after.requests
    peer.h2.send_data(1, b"def", end_stream=True)
    peer.flush()
    assert (list(peer.requests), peer.closed) == ([1, 3], False)
    assert [request["x-user"] for request in after.requests.values()] == ["u2"]
    peer.answer(3, b"")
    assert [request["x-user"] for request in after.requests.values()] == ["u2", "u3"]
    assert peer.closed
    peer.caller.connection_lost(None)
    assert peer.caller.driver.counts == {"blue": 2}


async def test_requests_that_the_server_has_not_processed_are_sent_on_the_next_connection(peer: Peer) -> None:
    goaway(peer, 1)
    peer.caller.connection_lost(None)  # the first one is lost, the second one is not
    after = successor(peer)
    assert peer.caller.driver.counts == {"failed": 1}
    assert sorted(request["x-user"] for request in after.requests.values()) == ["u1", "u2"]
    after.answer(1, b"")
    assert peer.caller.driver.counts == {"failed": 1, "blue": 1}


async def test_a_goaway_while_the_next_connection_is_made(peer: Peer) -> None:
    goaway(peer, frames.MAX_WINDOW)
    after = successor(peer)
    goaway(after, frames.MAX_WINDOW)
    last = successor(after)
    peer.answer(1, b"")
    assert [request["x-user"] for request in last.requests.values()] == ["u2"]
    assert not after.requests


@pytest.mark.parametrize("step", [1, 5, 1000])
def test_frames_are_taken_when_they_are_complete(step: int) -> None:
    ping, last = frames.ping(), frames.goaway(7, frames.ErrorCode.NO_ERROR)
    buffer, taken, streams = bytearray(), b"", list[int]()
    text = ping + last + ping + ping[:5]
    for i in range(0, len(text), step):
        buffer += text[i : i + step]
        complete, last_streams = take_frames(buffer)
        taken += complete
        streams += last_streams
    assert (taken, streams, bytes(buffer)) == (2 * ping, [7], ping[:5])


async def test_a_closed_connection_fails_every_request_in_flight(peer: Peer) -> None:
    driver = peer.caller.driver
    driver.stopping.set()
    peer.caller.connection_lost(None)
    assert driver.counts == {"failed": 2}
    assert peer.caller.transport is None

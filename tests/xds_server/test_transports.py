"""xDS over our own HTTP/2: limits, fairness, TLS, and that streams are freed. `tests/http2` tests HTTP/2 itself."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
import socket
from collections.abc import AsyncIterator
from typing import Any
from weakref import ReferenceType, ref

import pytest
from h2.errors import ErrorCodes
from h2.events import PingAckReceived

from controlplane.envoy_types import CLUSTER, LISTENER
from controlplane.http2 import charges, deferred, fair_queue, transport
from controlplane.http2 import server as http2_server
from controlplane.store import Store
from controlplane.xds_server import pump, reading_budget
from controlplane.xds_server.limits import MAX_REQUEST_BYTES
from controlplane.xds_server.transports import listening, unknown_method
from tests.http2.raw import Raw, prefixed
from tests.http2.raw import raw as connect
from tests.http2.test_grpc_call import freed
from tests.xds_server.raw import ADS, request, responses
from tests.xds_server.rig import BLUE, GATEWAY, GREEN, Rig, running
from tests.xds_server.rig import store as _store

store = _store


def server(rig: Rig) -> http2_server.Server:
    """Return the rig's server."""
    assert isinstance(rig.server, http2_server.Server)
    return rig.server


@pytest.fixture
async def rig(store: Store) -> AsyncIterator[Rig]:
    async with running(store) as r:
        await r.commit_and_publish(GATEWAY, BLUE)
        yield r


@contextlib.asynccontextmanager
async def raw(rig: Rig) -> AsyncIterator[Raw]:
    """Connect to the rig."""
    async with connect(rig.port) as c:
        yield c


async def test_requests_arrive_however_they_are_cut(rig: Rig) -> None:
    async with raw(rig) as c:
        stream = await c.start(path=ADS)
        both = request() + request(type_url=CLUSTER)
        for at in range(0, len(both), 7):
            await c.send(stream, both[at : at + 7], pad_length=3 if at % 2 else None)
        await c.until(lambda: len(responses(c, stream)) == 2)
        assert {r.type_url for r in responses(c, stream)} == {LISTENER, CLUSTER}
        other = await c.open(path=ADS)
        await c.send(other, request() + request(type_url=CLUSTER))
        await c.until(lambda: len(responses(c, other)) == 2)


async def test_two_of_the_largest_requests_arrive_at_a_time(rig: Rig) -> None:
    async with raw(rig) as c:
        stream = await c.start(path=ADS)
        await c.send_all({stream: request(padding="x" * (MAX_REQUEST_BYTES // 8 - 1_000))})
        await c.until(lambda: c.messages(stream))
        (ours,) = server(rig).connections
        assert ours.grpc._unacknowledged > 0
        largest = request(padding="x" * (MAX_REQUEST_BYTES - 1_000))
        more = [await c.open(path=ADS), await c.open(path=ADS)]
        await c.send_all(dict.fromkeys(more, largest))
        await c.until(lambda: all(c.messages(stream) for stream in more))
        assert all(len(responses(c, stream)) == 1 for stream in more)


async def test_a_request_that_is_too_large_is_refused_at_its_prefix(rig: Rig) -> None:
    async with raw(rig) as c:
        _, headers = await c.ended(b"\0" + (MAX_REQUEST_BYTES + 1).to_bytes(4, "big"), path=ADS)
        assert headers["grpc-status"] == "8"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus", "--api"),
        ("/envoy.service.cluster.v3.ClusterDiscoveryService/FetchClusters", "DeltaClusters"),
        ("/no.such.Service/Method", "unknown method /no.such.Service/Method"),
    ],
)
async def test_methods_that_are_not_served_say_what_to_call(rig: Rig, path: str, message: str) -> None:
    async with raw(rig) as c:
        _, headers = await c.ended(path=path)
        assert headers["grpc-status"] == "12"
        assert message in headers["grpc-message"]
    assert message in unknown_method(path)


async def test_the_status_of_an_error_while_opening_reaches_the_client(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.discovery.close()
    async with raw(rig) as c:
        _, headers = await c.ended(path=ADS)
        assert (headers["grpc-status"], headers["grpc-message"]) == ("14", "the control plane is stopping; try again")


async def test_bytes_that_arrive_while_a_revision_is_pushed_are_handled_later(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During a push, thousands of ACKs arrive. If they were handled at once, the last client would get the push much later."""
    push, catch_up = pump.Pump.push, transport.SocketTransport.catch_up
    caught_up: list[transport.SocketTransport] = []

    def record(connection: transport.SocketTransport, deadline: float = 0.0) -> None:
        caught_up.append(connection)
        catch_up(connection, deadline)

    async with raw(rig) as c:
        await c.send(await c.start(path=ADS), request())
        await rig.until(lambda fleet: "raw" in fleet.nodes)
        await c.until(lambda: c.events)

        (ours,) = server(rig).connections

        def push_and_ping(stream: pump.Pump, now: float) -> float:
            end = push(stream, now)
            c.h2.ping(b"meantime")
            os.write(c.writer.get_extra_info("socket").fileno(), c.h2.data_to_send())
            # The kernel may deliver the PING later, and the push is short. On a busy machine it would be over by then.
            arrived, _, _ = select.select([ours._transport.get_extra_info("socket")], [], [], 10)
            assert arrived
            return end

        monkeypatch.setattr(pump.Pump, "push", push_and_ping)
        monkeypatch.setattr(transport.SocketTransport, "catch_up", record)
        monkeypatch.setattr(deferred, "_MAX_DELAY", 30.0)
        monkeypatch.setattr(charges, "LIGHT_USE", 30.0)  # or it would wait for its turn on a busy machine
        await rig.commit(GREEN)
        await c.until(lambda: c.events_of(PingAckReceived))
        assert caught_up == [ours]


async def test_a_server_that_stops_ends_open_streams_with_ok(rig: Rig) -> None:
    async with raw(rig) as c:
        stream = await c.start(path=ADS)
        await c.send(stream, request())
        await c.until(lambda: len(responses(c, stream)) == 1)
        stopping = asyncio.create_task(rig.stop())
        await c.end()
        assert c.headers(stream)["grpc-status"] == "0"
        assert c.goaway.error_code == ErrorCodes.NO_ERROR
        assert c.goaway.last_stream_id == stream
        await stopping
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", rig.port)


@pytest.mark.parametrize("end", ["close", "half-close", "error"])
async def test_a_stream_is_freed_without_the_cycle_collector(rig: Rig, end: str) -> None:
    gc.disable()
    try:
        async with raw(rig) as c:
            stream = await c.start(path=ADS)
            await c.send(stream, request())
            await c.until(lambda: len(responses(c, stream)) == 1)
            references = references_to_the_only_call(rig)
            assert all(reference() is not None for reference in references)
            if end == "half-close":
                await c.send(stream, b"", end_stream=True)
            elif end == "error":
                await c.send(stream, prefixed(b"abc"))
            if end != "close":
                await c.until(lambda: c.over(stream))
                await freed(references[1:])
        await freed(references)
    finally:
        gc.enable()


def references_to_the_only_call(rig: Rig) -> list[ReferenceType[Any]]:
    """Return weak references to the only connection, its call and its pump."""
    (connection,) = server(rig).connections
    (call,) = connection.grpc.calls.values()
    return [ref(connection), ref(call), ref(call._handler)]


async def test_a_client_with_many_requests_does_not_delay_other_streams(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """This also holds within its budget. Otherwise this burst would delay all other streams by a third of a second."""
    monkeypatch.setattr(reading_budget, "READING_TIME_SLICE", 0.0)
    for module, name in ((transport, "SLICE"), (fair_queue, "SLICE"), (fair_queue, "LIGHT_SLICE")):
        monkeypatch.setattr(module, name, 1e-9)
    receive, loop = pump.Pump._receive, asyncio.get_running_loop()
    turn, turns = 0, []

    def count() -> None:
        nonlocal turn
        turn += 1
        handle[0] = loop.call_soon(count)

    def record(stream: pump.Pump, data: bytes) -> None:
        turns.append(turn)
        receive(stream, data)

    handle = [loop.call_soon(count)]
    try:
        async with raw(rig) as c:
            monkeypatch.setattr(pump.Pump, "_receive", record)
            await c.send(await c.start(path=ADS), b"".join(request(padding=f"a-{n}") for n in range(5)))
            await c.until(lambda: len(turns) == 5)
    finally:
        handle[0].cancel()
    assert len(set(turns)) == 5


def test_sockets_are_bound_to_every_address_on_one_port() -> None:
    sockets = listening("localhost", 0)
    try:
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
        with pytest.raises(OSError, match="in use"):
            listening("127.0.0.1", sockets[0].getsockname()[1])
    finally:
        for sock in sockets:
            sock.close()


def test_a_wildcard_address_accepts_both_families() -> None:
    (sock,) = listening("0.0.0.0", 0) if socket.has_dualstack_ipv6() else (listening("0.0.0.0", 0)[0],)
    try:
        with socket.create_connection(("127.0.0.1", sock.getsockname()[1])):
            pass
    finally:
        sock.close()

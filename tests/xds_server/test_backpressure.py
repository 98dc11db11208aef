"""Clients on real sockets that do not read, or often open and close streams: only their own streams are affected."""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2
from structlog.testing import capture_logs

from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SCOPED_ROUTES
from controlplane.fleet import Fleet, NodeState
from controlplane.xds_server.send_queue import SendQueue
from tests.fakes.xds_client import EOF, client
from tests.xds_server.rig import GATEWAY, Rig, model
from tests.xds_server.rig import rig as _rig
from tests.xds_server.rig import store as _store

rig, store = _rig, _store


def _good_holds(revision: int, fleet: Fleet) -> bool:
    return fleet.nodes["good"].held_revision == revision


async def test_a_client_that_does_not_read_delays_nobody(rig: Rig) -> None:
    await rig.commit(GATEWAY, *(model({"blue": 10_000}, f"m{n}") for n in range(300)))
    async with AsyncExitStack() as stack:
        good = await stack.enter_async_context(client(rig.port, "good"))
        slow = await stack.enter_async_context(client(rig.port, "slow"))
        await rig.held(1, 2)
        slow.reading.clear()
        for n in range(20):
            split = {"green": 10_000} if n % 2 == 0 else {"blue": 10_000}
            revision = await rig.commit(*(model(split, f"m{i}") for i in range(300)))
            await rig.until(partial(_good_holds, revision))
        behind = len(slow.responses)
        slow.reading.set()
        await rig.held(21, 2)
        # It does not get the revisions that it missed: one response was in flight, and one has the newest revision.
        assert len(slow.responses) - behind <= 3
        assert slow.held == good.held


async def test_a_client_that_never_reads_affects_only_its_own_stream(rig: Rig) -> None:
    # More bytes than the flow control of one stream allows unread, so that the server can't write any more.
    await rig.commit(GATEWAY, *(model({"blue": 10_000}, f"m{n}") for n in range(1_000)))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.port}") as channel, client(rig.port, "good") as good:
        open_stream: Any = channel.stream_stream(
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
            request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=bytes,
        )
        call = open_stream()
        for type_url in (CLUSTER, LISTENER, SCOPED_ROUTES):
            request = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url)
            request.node.id = "deaf"
            await call.write(request)
        await rig.until(lambda fleet: fleet.holding(1) == 1 and "deaf" in fleet.nodes)
        before = len(good.responses)
        await rig.held(await rig.commit(model({"green": 10_000}, "m7")))
        assert good.responses[before:] == [(ROUTES, ["m7"], [])]
        assert rig.fleet.nodes["deaf"].held_revision == 0
        began = time.monotonic()
        await rig.stop()
        assert time.monotonic() - began < 10
        call.cancel()


async def test_requests_of_a_client_that_never_reads_are_soon_not_read(rig: Rig) -> None:
    await rig.commit(GATEWAY, *(model({"blue": 10_000}, f"m{n}") for n in range(600)))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.port}") as channel:
        open_stream: Any = channel.stream_stream(
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
            request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=bytes,
        )
        call = open_stream()
        first = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER)
        first.node.id = "deaf"
        await call.write(first)
        names = [f"m{n}/blue" for n in range(600)]
        again = discovery_pb2.DeltaDiscoveryRequest(type_url=ENDPOINTS, resource_names_subscribe=names)

        async def ask() -> None:
            for _ in range(150):
                await call.write(again)

        asking = asyncio.create_task(ask())
        await rig.until(lambda fleet: "deaf" in fleet.nodes)
        (stream,) = rig.discovery._pumps.values()
        async with asyncio.timeout(60):
            while not stream._queue.full:  # noqa: ASYNC110  the queue notifies nobody
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # nothing should happen, so there is no condition to wait for
        assert len(stream._queue.messages) == SendQueue.MAX_MESSAGES
        # Once it reads, it gets all answers: the clusters, and 150 times the endpoints.
        async with asyncio.timeout(60):
            for _ in range(151):
                assert await call.read() is not EOF
            await asking
        call.cancel()


@pytest.mark.parametrize("end", ["half-close", "server", "error"])
async def test_a_stream_that_ends_in_the_middle_of_its_first_response_has_a_status(rig: Rig, end: str) -> None:
    # More bytes than the flow control of one stream allows unread, so that the first write is incomplete when the stream ends.
    await rig.commit(GATEWAY, *(model({"blue": 10_000}, f"m{n}") for n in range(1_000)))
    small = [("grpc.http2.lookahead_bytes", 1), ("grpc.http2.bdp_probe", 0)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.port}", small) as channel:
        open_stream: Any = channel.stream_stream(
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
            request_serializer=bytes,
            response_deserializer=bytes,
        )
        call = open_stream()
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER)
        request.node.id = "edge-1"
        await call.write(request.SerializeToString())
        await rig.until(lambda fleet: "edge-1" in fleet.nodes)
        if end == "half-close":
            await call.done_writing()
        elif end == "server":
            rig.discovery.reconnect("edge-1")
        else:
            await call.write(b"\xff")
        # A client that half-closed still gets the messages that wait for it.
        if end != "half-close":
            await rig.until(lambda fleet: fleet.streams == 0)
        got = []
        async with asyncio.timeout(60):
            try:
                while (message := await call.read()) is not EOF:
                    got.append(discovery_pb2.DeltaDiscoveryResponse.FromString(message))
            except grpc.aio.AioRpcError:
                pass
            code = await call.code()
        assert code is (grpc.StatusCode.INVALID_ARGUMENT if end == "error" else grpc.StatusCode.OK)
        if end == "half-close":
            assert len([r for m in got for r in m.resources]) == 2_000


async def test_many_short_streams_leak_nothing(rig: Rig) -> None:
    await rig.commit(GATEWAY, *(model({"blue": 10_000}, f"m{n}") for n in range(100)))
    with capture_logs() as lines:
        await open_short_streams(rig)
    gc.collect()
    assert rig.fleet.counts == {**dict.fromkeys(NodeState, 0), NodeState.RELEASED: len(rig.fleet.nodes)}
    assert len(rig.fleet.nodes) <= 10
    assert not rig.fleet._streams
    assert not rig.discovery._pumps
    async with asyncio.timeout(60):
        while len(asyncio.all_tasks()) >= 20:  # noqa: ASYNC110  the clients' own tasks end a little later
            await asyncio.sleep(0.01)
    # Nothing is logged about clients that leave in the middle of a response.
    assert {line["log_level"] for line in lines} <= {"info"}


async def open_short_streams(rig: Rig) -> None:
    """Open a thousand streams that end at once, a hundred at a time."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.port}") as channel:
        open_stream: Any = channel.stream_stream(
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
            request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=bytes,
        )

        async def one(n: int) -> None:
            call = open_stream()
            request = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER)
            request.node.id = f"n{n % 10}"
            await call.write(request)
            if n % 2:
                await call.read()
            call.cancel()

        for start in range(0, 1_000, 100):
            await asyncio.gather(*(one(n) for n in range(start, start + 100)))
        await rig.until(lambda fleet: fleet.streams == 0)

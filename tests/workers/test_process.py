"""A worker process. The test plays the main process at the other end of its socket."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.service.discovery.v3 import discovery_pb2

from controlplane.demo.ports import free_port
from controlplane.envoy_types import CLUSTER, LISTENER
from controlplane.versions import VersionIndex
from controlplane.workers.child_process import ChildProcess
from controlplane.workers.link import Link
from controlplane.workers.messages import (
    Events,
    Listening,
    Ping,
    Pong,
    Removed,
    Request,
    Response,
    Start,
    Stop,
    SubscribeAudiences,
    Versions,
)
from controlplane.workers.snapshot_sender import SnapshotSender, UpdateEncoder
from controlplane.xds.events import (
    AudienceAssigned,
    Claimed,
    Held,
    Identified,
    StreamClosed,
    StreamEvent,
    StreamId,
    StreamOpened,
)
from controlplane.xds_server.limits import StreamLimits
from tests.fakes.xds_client import client
from tests.workers.rig import EDGE, Desired, fail, model, until

FIRST_STREAM = 2**40


class Main:
    """The main process' side of one worker."""

    def __init__(self) -> None:
        self.process = ChildProcess()
        self.link = Link(self._receive, self._on_lost)
        self.lost = asyncio.Event()
        self.received: list[object] = []
        self.events: list[tuple[StreamId, StreamEvent, float]] = []
        self.desired = Desired(model("a"))
        self.sender = SnapshotSender(UpdateEncoder(fail))
        self.port = free_port()

    def _receive(self, message: object) -> None:
        self.received.append(message)
        if isinstance(message, Events):
            self.events += message.events
        elif isinstance(message, SubscribeAudiences):
            for audience in message.audiences:
                self.sender.subscribe(audience)
            self.send_update()

    def _on_lost(self) -> None:
        self.lost.set()

    def send_start(self) -> None:
        start = Start(1, f"127.0.0.1:{self.port}", FIRST_STREAM, StreamLimits(), "http2", "text", "warning")
        self.link.send(start)

    def send_update(self) -> None:
        update = self.sender.update(self.desired.published)
        if update is not None:
            self.link.send(update)

    async def until_received(self, message: object) -> None:
        await until(lambda: message in self.received)

    async def until_event(self, event: StreamEvent) -> None:
        await until(lambda: any(e == event for _, e, _ in self.events))


@asynccontextmanager
async def running(*, serve: bool = True) -> AsyncIterator[Main]:
    main = Main()
    await main.link.connect(main.process.start())
    try:
        if serve:
            main.send_start()
            main.send_update()
            await main.until_received(Listening())
        yield main
    finally:
        main.process.kill()
        await main.process.wait()


async def test_a_worker_serves_the_snapshots_that_it_gets_and_sends_its_streams_events() -> None:
    async with running() as main, client(main.port, "edge-1") as c:
        await main.until_event(Held(1))
        assert c.names(LISTENER) == {"0.0.0.0:10000"}
        assert {stream for stream, _, _ in main.events} == {FIRST_STREAM + 1}
        kinds = [type(event) for _, event, _ in main.events]
        assert kinds == [StreamOpened, Identified, AudienceAssigned, Held]
        main.desired.change(models_a=model("a", 0))
        main.send_update()
        await main.until_event(Held(2))
        main.link.send(Request(1, "describe", "edge-1"))
        main.link.send(Request(2, "reconnect", "edge-1"))
        await main.until_received(Response(2, 1))
        described = next(m for m in main.received if isinstance(m, Response) and m.number == 1)
        assert described.value
        await main.until_event(StreamClosed())


async def test_a_worker_ends_when_it_is_stopped_before_it_serves() -> None:
    async with running(serve=False) as main:
        main.link.send(Ping())
        main.link.send(Request(7, "describe", "edge-1"))
        await main.until_received(Pong())
        await main.until_received(Response(7, None))
        main.link.send(Stop(1.0))
        await asyncio.wait_for(main.lost.wait(), 30)
        assert await main.process.wait() == 0


@pytest.mark.parametrize("how", ["message", "signal"])
async def test_a_worker_that_stops_ends_its_streams_with_ok_and_reports_it(how: str) -> None:
    async with running() as main, client(main.port, "edge-1") as c:
        await main.until_event(Held(1))
        if how == "message":
            main.link.send(Stop(5.0))
        else:
            os.kill(main.process.pid, signal.SIGTERM)
        await asyncio.wait_for(main.lost.wait(), 30)
        assert await main.process.wait() == 0
        await c.until(lambda: c.ended is not None)
        assert c.ended is not None
        assert c.ended.name == "OK"
        assert main.events[-1][1] == StreamClosed()


async def test_a_worker_exits_at_once_when_the_main_process_is_gone() -> None:
    async with running() as main, client(main.port, "edge-1"):
        await main.until_event(Held(1))
        main.link.close()
        assert await main.process.wait() == 1


async def test_a_worker_whose_port_is_taken_exits() -> None:
    async with running() as first:
        main = Main()
        async with asyncio.timeout(60):
            await main.link.connect(main.process.start())
            # The first worker shares its port, but only with sockets that share theirs.
            server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", main.port)
            async with server:
                main.send_start()
                main.send_update()
                await main.lost.wait()
            assert await main.process.wait() == 0
            assert Listening() not in main.received
        assert Listening() in first.received


async def test_a_worker_knows_the_versions_that_were_served_before_it_started() -> None:
    async with running(serve=False) as main:
        index, old = VersionIndex(), main.desired.published.snapshot(EDGE)
        index.add(old, 1.0)
        index.removed_clusters.add(old.resources[CLUSTER].values())
        main.desired.change(models_a=None, models_b=model("b"))
        main.send_start()
        main.link.send(Versions(index.entries()))
        main.link.send(Removed(index.removed_clusters.all()))
        main.send_update()
        await main.until_received(Listening())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{main.port}") as channel:
            open_stream: Any = channel.stream_stream(  # the stubs of grpc.aio are typed for blocking calls
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
                request_serializer=discovery_pb2.DiscoveryRequest.SerializeToString,
                response_deserializer=discovery_pb2.DiscoveryResponse.FromString,
            )
            call = open_stream()
            request = discovery_pb2.DiscoveryRequest(type_url=CLUSTER, version_info=old.versions[CLUSTER])
            request.node.id = "edge-1"
            await call.write(request)
            await main.until_event(Claimed(CLUSTER, frozenset(("a/blue", "a/green"))))
            response = await call.read()
            names = sorted(cluster_pb2.Cluster.FromString(r.value).name for r in response.resources)
            assert names == ["a/blue", "a/green", "b/blue", "b/green"]

"""The services of a single type, the coordination of a node's streams, refusals, and the ends of streams."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2
from structlog.testing import capture_logs

from controlplane.domain import Gateway
from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SCOPED_ROUTES
from controlplane.store import Store
from controlplane.xds_server import discovery, duplicate_node_id, variants
from controlplane.xds_server.limits import StreamLimits
from tests.fakes.xds_client import client
from tests.xds_server.rig import BLUE, GATEWAY, GREEN, VARIANTS, PerTypeStream, model, running
from tests.xds_server.rig import store as _store

store = _store

SERVED = (CLUSTER, ENDPOINTS, LISTENER, SCOPED_ROUTES, ROUTES)
# The names that a client of a type subscribes to; none for a wildcard.
NAMES = {ENDPOINTS: ["iris/blue", "iris/green"], ROUTES: ["iris"]}


@VARIANTS
async def test_every_type_has_a_service_and_a_switch_is_sent_by_the_service_of_routes(store: Store, variant: str) -> None:
    async with running(store) as rig, grpc.aio.insecure_channel(f"127.0.0.1:{rig.port}") as channel:
        await rig.commit_and_publish(GATEWAY, BLUE)
        streams = {t: PerTypeStream(channel, t, variant) for t in SERVED}
        for type_url, stream in streams.items():
            await stream.subscribe(*NAMES.get(type_url, ()))
            response = await stream.response_received()
            assert len(response.resources) == {ENDPOINTS: 2, CLUSTER: 2, SCOPED_ROUTES: 9}.get(type_url, 1)
            await stream.ack(response)
        await rig.until(lambda fleet: fleet.streams == 5 and fleet.holding(1) == 1)
        await rig.commit_and_publish(GREEN)
        response = await streams[ROUTES].response_received()
        await streams[ROUTES].ack(response)
        await rig.held(2)
        assert rig.fleet.nodes["edge-1"].variants == (variant,)


@VARIANTS
async def test_clusters_are_removed_after_the_routes_on_another_stream_that_named_them(store: Store, variant: str) -> None:
    async with running(store) as rig, grpc.aio.insecure_channel(f"127.0.0.1:{rig.port}") as channel:
        await rig.commit_and_publish(GATEWAY, BLUE)
        cds, rds = PerTypeStream(channel, CLUSTER, variant), PerTypeStream(channel, ROUTES, variant)
        await cds.subscribe()
        await cds.ack(await cds.response_received())
        await rds.subscribe("iris")
        await rds.ack(await rds.response_received())
        await rig.held(1)
        await rig.until(lambda fleet: all(s.held.all_of == 1 for s in fleet.nodes["edge-1"].streams.values()))
        other = model({"blue": 10_000})
        only_green = type(other)("iris", other.gateways, (other.versions[1],), {"green": 10_000})
        await rig.commit_and_publish(only_green)
        response = await rds.response_received()
        reading = asyncio.ensure_future(cds.call.read())
        await asyncio.sleep(0.1)  # nothing should happen, so there is no condition to wait for
        assert not reading.done()
        await rds.ack(response)
        removal = await asyncio.wait_for(reading, 5)
        gone = list(removal.removed_resources) == ["iris/blue"] if variant == "delta" else len(removal.resources) == 1
        assert gone


@VARIANTS
async def test_a_removal_waits_only_a_limited_time_for_a_silent_stream(store: Store, variant: str) -> None:
    limits = StreamLimits(linger=0.3)
    async with running(store, limits) as rig, grpc.aio.insecure_channel(f"127.0.0.1:{rig.port}") as channel:
        await rig.commit_and_publish(GATEWAY, BLUE)
        cds, rds = PerTypeStream(channel, CLUSTER, variant), PerTypeStream(channel, ROUTES, variant)
        await cds.subscribe()
        await cds.ack(await cds.response_received())
        await rds.subscribe("iris")
        await rds.ack(await rds.response_received())
        await rig.until(lambda fleet: fleet.streams == 2 and fleet.holding(1) == 1)
        began = asyncio.get_running_loop().time()
        other = model({"blue": 10_000})
        await rig.commit_and_publish(type(other)("iris", other.gateways, (other.versions[1],), {"green": 10_000}))
        await rds.response_received()  # the client never answers
        await cds.response_received()
        assert asyncio.get_running_loop().time() - began > 0.25


@VARIANTS
@pytest.mark.parametrize("type_url", [s[2] for s in discovery.SERVICES if s[2] and s[2] not in SERVED])
async def test_a_type_that_the_compiler_does_not_make_has_no_resources(store: Store, variant: str, type_url: str) -> None:
    async with running(store) as rig, grpc.aio.insecure_channel(f"127.0.0.1:{rig.port}") as channel:
        await rig.commit_and_publish(Gateway("public", 10000))
        stream = PerTypeStream(channel, type_url, variant)
        await stream.subscribe("none-of-these")
        if variant == "delta":
            response = await stream.response_received()
            assert (list(response.resources), list(response.removed_resources)) == ([], ["none-of-these"])
            await stream.ack(response)
        await rig.held(1)


@VARIANTS
async def test_a_type_that_the_service_does_not_serve_is_refused(store: Store, variant: str) -> None:
    async with running(store) as rig, grpc.aio.insecure_channel(f"127.0.0.1:{rig.port}") as channel:
        stream = PerTypeStream(channel, CLUSTER, variant)
        await stream.subscribe(type_url=LISTENER)
        code, details = await stream.status()
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "config.cluster.v3.Cluster" in details


@pytest.mark.parametrize("service", discovery.SERVICES, ids=lambda s: s[1])
async def test_polling_is_refused_and_the_error_names_other_methods(store: Store, service: tuple[str, str, str]) -> None:
    async with running(store) as rig, grpc.aio.insecure_channel(f"127.0.0.1:{rig.port}") as channel:
        make: Any = channel.unary_unary
        call = make(f"/envoy.service.{service[0]}/Fetch{service[1]}", request_serializer=bytes, response_deserializer=bytes)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert f"Stream{service[1]}" in str(caught.value.details())


async def test_the_streams_of_a_node_are_limited_and_a_closed_one_makes_room(store: Store) -> None:
    async with (
        running(store, StreamLimits(streams_per_node=2)) as rig,
        grpc.aio.insecure_channel(f"127.0.0.1:{rig.port}") as channel,
    ):
        await rig.commit_and_publish(GATEWAY, BLUE)
        first, second, third = (PerTypeStream(channel, t, "delta") for t in (CLUSTER, LISTENER, ROUTES))
        for stream in (first, second):
            await stream.subscribe()
            await stream.response_received()
        await third.subscribe("iris")
        code, details = await third.status()
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "edge-1" in details
        other = PerTypeStream(channel, ROUTES, "delta", "edge-2")
        await other.subscribe("iris")
        await other.response_received()
        first.call.cancel()
        await rig.until(lambda fleet: len(fleet.nodes["edge-1"].streams) == 1)
        again = PerTypeStream(channel, ROUTES, "delta")
        await again.subscribe("iris")
        await again.response_received()


async def test_a_stream_without_a_request_ends(store: Store) -> None:
    async with (
        running(store, StreamLimits(first_request_timeout=0.2)) as rig,
        grpc.aio.insecure_channel(f"127.0.0.1:{rig.port}") as channel,
    ):
        code, details = await PerTypeStream(channel, CLUSTER, "delta").status()
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "no request came" in details
        assert not len(rig.discovery._nodes)


@VARIANTS
async def test_an_old_stream_ends_with_ok_and_the_next_one_uses_a_new_connection(store: Store, variant: str) -> None:
    async with running(store, StreamLimits(max_stream_age=1.0)) as rig:
        await rig.commit_and_publish(GATEWAY, BLUE)
        async with client(rig.port, "edge-1", variant) as c:
            await rig.held(1)
            await c.until(lambda: c.ended is not None, 5)
            assert c.ended is grpc.StatusCode.OK
        async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.port}") as channel:
            peers = []
            for _ in range(2):
                stream = PerTypeStream(channel, LISTENER, variant, "edge-2")
                await stream.subscribe()
                await stream.response_received()
                peers.append(rig.fleet.nodes["edge-2"].peer)
                assert (await stream.status())[0] is grpc.StatusCode.OK
            assert peers[0] != peers[1]


async def test_a_large_subscription_is_processed_in_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "NAMES_PER_PART", 100)
    async with running(store) as rig, grpc.aio.insecure_channel(f"127.0.0.1:{rig.port}") as channel:
        await rig.commit_and_publish(GATEWAY, BLUE)
        stream = PerTypeStream(channel, ENDPOINTS, "delta")
        asked = {"iris/blue", *(f"no-{n}" for n in range(1_000))}
        await stream.subscribe(*sorted(asked))
        removed: set[str] = set()
        received: set[str] = set()
        while removed | received != asked:
            response = await stream.response_received()
            removed.update(response.removed_resources)
            received.update(r.name for r in response.resources)
            await stream.ack(response)
        assert received == {"iris/blue"}
        await rig.held(1)


async def test_pings_every_second_are_not_answered_with_goaway(store: Store) -> None:
    pinging = [("grpc.keepalive_time_ms", 1_000), ("grpc.http2.max_pings_without_data", 0)]
    async with running(store) as rig, grpc.aio.insecure_channel(f"127.0.0.1:{rig.port}", pinging) as channel:
        await rig.commit_and_publish(GATEWAY, BLUE)
        stream = PerTypeStream(channel, LISTENER, "delta")
        await stream.subscribe()
        await stream.ack(await stream.response_received())
        await asyncio.sleep(4.5)  # by default, gRPC disconnects a client at the third ping too many
        assert not stream.call.done()
        assert rig.fleet.connected == 1


async def test_a_node_is_forgotten_with_its_last_stream(store: Store) -> None:
    async with running(store) as rig:
        await rig.commit_and_publish(GATEWAY, BLUE)
        async with client(rig.port, "a"), client(rig.port, "b", "sotw"), client(rig.port, "b"):
            await rig.held(1, 2)
            assert set(rig.discovery._nodes) == {"a", "b"}
        await rig.until(lambda fleet: fleet.streams == 0)
        assert not len(rig.discovery._nodes)


@VARIANTS
async def test_resources_that_were_refused_together_are_sent_in_parts_later(store: Store, variant: str) -> None:
    async with running(store, StreamLimits(nack_retry_delay=0.2)) as rig:
        await rig.commit_and_publish(GATEWAY, BLUE, *(model({"blue": 10_000}, f"m{n}") for n in range(4)))

        def refuse(type_url: str, names: list[str]) -> str:
            return "m2 is bad" if type_url == ROUTES and "m2" in names else ""

        async with client(rig.port, "edge-1", variant, refuse=refuse) as c:
            await c.until(lambda: c.names(ROUTES) == {"gateways/public", "iris", "m0", "m1", "m3"})
            # The bad one is not sent again.
            nacks = c.nacks
            await rig.until(lambda fleet: {n for r in fleet.nodes["edge-1"].refusals for n in r.resources} == {"m2"})
            assert nacks <= 4


@VARIANTS
async def test_the_routes_of_other_models_wait_only_seconds_when_one_cluster_is_refused(store: Store, variant: str) -> None:
    async with running(store) as rig:
        await rig.commit_and_publish(GATEWAY, BLUE, *(model({"blue": 10_000}, f"m{n}") for n in range(4)))

        def refuse(type_url: str, names: list[str]) -> str:
            return "m2 is bad" if type_url == CLUSTER and "m2/blue" in names else ""

        async with asyncio.timeout(8), client(rig.port, "edge-1", variant, refuse=refuse) as c:
            await c.until(lambda: c.names(ROUTES) == {"gateways/public", "iris", "m0", "m1", "m3"})


@VARIANTS
async def test_the_ttls_of_resources_are_extended(store: Store, variant: str) -> None:
    limits = StreamLimits(resource_ttl=1)
    async with running(store, limits) as rig, grpc.aio.insecure_channel(f"127.0.0.1:{rig.port}") as channel:
        await rig.commit_and_publish(GATEWAY, BLUE)
        able, unable = PerTypeStream(channel, CLUSTER, variant), PerTypeStream(channel, CLUSTER, variant, "edge-2")
        able.features = ["xds.config.supports-resource-ttl", "xds.config.resource-in-sotw"]
        for stream in (able, unable):
            await stream.subscribe()
            await stream.ack(await stream.response_received())
        for _ in range(3):
            heartbeat = await able.response_received()
            for packed in heartbeat.resources:
                resource = packed if variant == "delta" else discovery_pb2.Resource.FromString(packed.value)
                assert (resource.ttl.seconds, resource.resource.value) == (1, b"")
            assert len(heartbeat.resources) == 2
            await able.ack(heartbeat)
        await rig.until(lambda fleet: fleet.holding(1) == 2)
        unable.call.cancel()


async def test_two_envoys_with_one_node_id_are_reported_and_a_reconnecting_client_is_not(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicate_node_id, "CONFIRM_AFTER", 0.2)
    async with running(store) as rig:
        await rig.commit_and_publish(GATEWAY, BLUE)
        # A client that reconnects while its old stream is open, and a client with another id.
        async with client(rig.port, "edge-1"), client(rig.port, "edge-1", "sotw"), client(rig.port, "edge-2"):
            await rig.held(1, 2)
            (second,) = rig.discovery._nodes._nodes["edge-2"]._pumps.values()
            with capture_logs() as lines:
                for p in rig.discovery._pumps.values():
                    p._confirm_duplicate()
                assert not lines
            # All clients here have the same address. Give one another.
            monkeypatch.setattr(second, "host", "10.0.0.1")
            async with client(rig.port, "edge-2"), client(rig.port, "edge-2"):
                with capture_logs() as lines:
                    await rig.until(lambda fleet: "two Envoys use this node id" in fleet.nodes["edge-2"].note)
                    for p in rig.discovery._pumps.values():
                        p._confirm_duplicate()
                assert [(line["event"], line["node"]) for line in lines] == [("two Envoys use one node id", "edge-2")]
                assert set(lines[0]["addresses"]) == {"127.0.0.1", "10.0.0.1"}
                assert rig.fleet.nodes["edge-1"].note == ""
            await rig.until(lambda fleet: len(fleet.nodes["edge-2"].streams) == 1)

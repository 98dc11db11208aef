"""Responses as bytes, read by a second decoder that shares no code with the first."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, ORDER, ROUTES, SCOPED_ROUTES
from controlplane.snapshot import Audience, Resource, Snapshot
from controlplane.xds.context import Context
from controlplane.xds.delta import DeltaStream
from controlplane.xds.sotw import SotwStream
from controlplane.xds.wire import WRAPPER
from tests.xds.rig import many

FEATURES = ["xds.config.supports-resource-ttl", "xds.config.resource-in-sotw"]


def history() -> list[Snapshot]:
    """Return three snapshots, new objects each time."""
    return [
        Snapshot.of(
            revision,
            Audience(),
            [
                *(Resource.of(CLUSTER, n, b"c%d" % revision, [(ENDPOINTS, n)]) for n in names),
                *(Resource.of(ENDPOINTS, n, b"e") for n in names),
                Resource.of(LISTENER, "é \U0001f682", b""),
                Resource.of(SCOPED_ROUTES, "g/m", b"\0\xff", [(ROUTES, "m")]),
                Resource.of(ROUTES, "m", b"r" * 40_000, [(CLUSTER, names[0])]),
            ],
        )
        for revision, names in enumerate(("abc", "ab", "bd"), 1)
    ]


def conversation(history: list[Snapshot], delta: bool, ttl: int) -> list[bytes]:
    """Return all responses to a client that is offered these, asks for missing names, NACKs some and gets heartbeats."""
    stream: Any = DeltaStream("", ttl) if delta else SotwStream("", ttl)
    received: list[bytes] = []
    names = {ENDPOINTS: ["a", "b", "none"], ROUTES: ["m", "none"]}

    def say(type_url: str, nonce: str = "", refuse: bool = False, first: bool = False) -> None:
        wanted = names.get(type_url, [])
        node = base_pb2.Node(id="n", client_features=FEATURES)
        error = {"message": "no"} if refuse else None
        fields = {"type_url": type_url, "response_nonce": nonce, "error_detail": error, "node": node}
        if delta:
            request: Any = discovery_pb2.DeltaDiscoveryRequest(resource_names_subscribe=wanted if first else [], **fields)
        else:
            request = discovery_pb2.DiscoveryRequest(resource_names=wanted, **fields)
        stream.receive(request)

    def answer() -> None:
        while messages := stream.to_send():
            for data in messages:
                received.append(data)
                response: Any = discovery_pb2.DeltaDiscoveryResponse() if delta else discovery_pb2.DiscoveryResponse()
                response.ParseFromString(data)
                say(response.type_url, response.nonce, refuse=len(received) % 7 == 6)

    for newest in history:
        stream.offer(newest)
        if newest.revision == 1:
            for type_url in ORDER:
                say(type_url, first=True)
        answer()
        stream.heartbeat()
        answer()
        stream.retry_in_parts()
        answer()
    return received


@pytest.fixture(scope="module")
def second() -> Any:
    """The second decoder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was generated for an older pydantic
        return importlib.import_module("envoy_data_plane.envoy.service.discovery.v3")


def by_first(data: bytes) -> tuple[object, ...]:
    """A wrapped resource, by the first decoder."""
    resource = discovery_pb2.Resource.FromString(data)
    body = (resource.resource.type_url, resource.resource.value) if resource.HasField("resource") else None
    return (resource.name, resource.version, body, resource.ttl.seconds if resource.HasField("ttl") else None)


def by_second(resource: Any) -> tuple[object, ...]:
    """A wrapped resource, by the second decoder."""
    body = (resource.resource.type_url, resource.resource.value) if resource.resource is not None else None
    ttl = resource.ttl
    return (resource.name, resource.version, body, int(ttl.total_seconds()) if ttl is not None else None)


@pytest.mark.parametrize("ttl", [0, 90])
def test_both_decoders_read_the_same_delta_responses(second: Any, ttl: int) -> None:
    received = conversation(history(), True, ttl)
    assert len(received) > 8
    for data in received:
        a, b = discovery_pb2.DeltaDiscoveryResponse.FromString(data), second.DeltaDiscoveryResponse.parse(data)
        assert (a.type_url, a.nonce, a.system_version_info) == (b.type_url, b.nonce, b.system_version_info)
        assert list(a.removed_resources) == b.removed_resources
        assert [by_first(r.SerializeToString()) for r in a.resources] == [by_second(r) for r in b.resources]
        assert {r.ttl.seconds for r in a.resources} <= {ttl}
    sent = [second.DeltaDiscoveryResponse.parse(data) for data in received]
    assert {n for r in sent for n in r.removed_resources} >= {"none", "c"}


@pytest.mark.parametrize("ttl", [0, 90])
def test_both_decoders_read_the_same_sotw_responses(second: Any, ttl: int) -> None:
    received = conversation(history(), False, ttl)
    assert len(received) > 8
    for data in received:
        a, b = discovery_pb2.DiscoveryResponse.FromString(data), second.DiscoveryResponse.parse(data)
        assert (a.type_url, a.nonce, a.version_info) == (b.type_url, b.nonce, b.version_info)
        assert [(r.type_url, r.value) for r in a.resources] == [(r.type_url, r.value) for r in b.resources]
        assert {r.type_url for r in b.resources} <= ({WRAPPER} if ttl else {a.type_url})
        if ttl:
            assert [by_first(r.value) for r in a.resources] == [by_second(second.Resource.parse(r.value)) for r in b.resources]


def test_equal_snapshots_give_equal_bytes_on_every_stream() -> None:
    """Rule 6: a version depends on the content only."""
    one, other = history(), history()
    for delta in (True, False):
        assert without_nonces(conversation(one, delta, 0), delta) == without_nonces(conversation(other, delta, 0), delta)


def without_nonces(received: list[bytes], delta: bool) -> list[bytes]:
    parsed: list[Any] = [
        (discovery_pb2.DeltaDiscoveryResponse if delta else discovery_pb2.DiscoveryResponse).FromString(data)
        for data in received
    ]
    for response in parsed:
        assert response.nonce
        response.ClearField("nonce")
    return [response.SerializeToString(deterministic=True) for response in parsed]


@pytest.mark.parametrize("variant", [DeltaStream, SotwStream])
def test_a_resource_is_serialised_once_for_all_streams(variant: type[DeltaStream] | type[SotwStream]) -> None:
    snapshot, context = many(1, 50), Context()
    entries = context.encoder.delta_entry if variant is DeltaStream else context.encoder.sotw_entry
    for _ in range(20):
        stream = variant(context=context)
        stream.offer(snapshot)
        request = discovery_pb2.DeltaDiscoveryRequest if variant is DeltaStream else discovery_pb2.DiscoveryRequest
        stream.receive(request(type_url=CLUSTER))
        assert stream.to_send()
    assert entries.cache_info().misses == 50

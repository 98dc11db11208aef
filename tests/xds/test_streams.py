"""What conversations as text don't show: sizes, numbers of names, what is shared between streams."""

from __future__ import annotations

import math
from typing import Any

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from controlplane.envoy_types import CLUSTER, ENDPOINTS, ROUTES
from controlplane.errors import Code, Error
from controlplane.snapshot import Audience, Resource, Snapshot
from controlplane.xds.context import Context
from controlplane.xds.delta import DeltaStream
from controlplane.xds.events import Held, Identified, Oversized, Refused
from controlplane.xds.sotw import SotwStream
from controlplane.xds.stream import MAX_TYPES, MAX_UNANSWERED

MIB = 1024 * 1024


def many(revision: int, count: int, type_url: str = CLUSTER, size: int = 10, first: int = 0) -> Snapshot:
    """So many resources of a type; the content of the first one is `first`."""
    rest = [Resource.of(type_url, f"n{i}", b"x" * size) for i in range(1, count)]
    return Snapshot.of(revision, Audience(), [Resource.of(type_url, "n0", b"%d" % first), *rest])


def ask(type_url: str, nonce: str = "", names: list[str] | None = None, **fields: Any) -> Any:
    return discovery_pb2.DeltaDiscoveryRequest(
        type_url=type_url, response_nonce=nonce, resource_names_subscribe=names or [], **fields
    )


def told(stream: DeltaStream) -> list[Any]:
    return [discovery_pb2.DeltaDiscoveryResponse.FromString(data) for data in stream.to_send()]


def test_the_client_is_identified_as_it_says() -> None:
    node = base_pb2.Node(id="n", cluster="c", user_agent_name="envoy")
    node.metadata.update({"zone": "a", "weights": [1, 2]})
    node.user_agent_build_version.version.major_number = 1
    node.user_agent_build_version.version.minor_number = 40
    expected = Identified("n", "c", {"zone": "a", "weights": [1.0, 2.0]}, "envoy 1.40.0")
    assert DeltaStream().receive(ask(CLUSTER, node=node)) == [expected]
    assert SotwStream().receive(discovery_pb2.DiscoveryRequest(type_url=CLUSTER, node=node)) == [expected]
    old = base_pb2.Node(id="n", user_agent_name="gRPC", user_agent_version="1.85")
    assert DeltaStream().receive(ask(CLUSTER, node=old)) == [Identified("n", "", {}, "gRPC 1.85")]


def test_delta_splits_what_is_too_large_for_one_message() -> None:
    stream, snapshot = DeltaStream(), many(1, 10, size=MIB)
    stream.offer(snapshot)
    stream.receive(ask(CLUSTER))
    names: list[str] = []
    while parts := stream.to_send():
        for data in parts:
            assert len(data) < 4 * MIB
            response = discovery_pb2.DeltaDiscoveryResponse.FromString(data)
            names += [r.name for r in response.resources]
            events = stream.receive(ask(CLUSTER, response.nonce))
    assert sorted(names) == sorted(snapshot.resources[CLUSTER])
    assert events == [Held(1)]


def test_sotw_splits_types_that_may_come_in_parts() -> None:
    stream, snapshot = SotwStream(), many(1, 10, ENDPOINTS, size=MIB)
    stream.offer(snapshot)
    wanted = sorted(snapshot.resources[ENDPOINTS])
    stream.receive(discovery_pb2.DiscoveryRequest(type_url=ENDPOINTS, resource_names=wanted))
    count = 0
    while parts := stream.to_send():
        assert len(parts) == 1
        assert len(parts[0]) < 4 * MIB
        response = discovery_pb2.DiscoveryResponse.FromString(parts[0])
        count += len(response.resources)
        answer = discovery_pb2.DiscoveryRequest(type_url=ENDPOINTS, resource_names=wanted, response_nonce=response.nonce)
        events = stream.receive(answer)
    assert count == 10
    assert events == [Held(1)]


def test_ten_thousand_names_at_once() -> None:
    stream = DeltaStream()
    stream.offer(many(1, 5_000, ENDPOINTS))
    stream.receive(ask(ENDPOINTS, names=[f"n{i}" for i in range(10_000)]))
    (response,) = told(stream)
    assert len(response.resources) == 5_000
    assert len(response.removed_resources) == 5_000
    assert stream.receive(ask(ENDPOINTS, response.nonce)) == [Held(1)]


def test_more_types_than_there_are_end_the_stream() -> None:
    stream = DeltaStream()
    for i in range(MAX_TYPES):
        stream.receive(ask(f"type/{i}"))
    with pytest.raises(Error) as caught:
        stream.receive(ask("type/one-more"))
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("type_url", [CLUSTER, ROUTES])
def test_a_stream_that_holds_everything_keeps_nothing_of_its_own(type_url: str) -> None:
    """State per stream does not grow with what is merely unchanged."""
    stream = DeltaStream()
    names = [] if type_url == CLUSTER else [f"n{i}" for i in range(1_000)]
    for revision in range(1, 5):
        snapshot = many(revision, 1_000, type_url, first=revision)
        stream.offer(snapshot)
        if revision == 1:
            stream.receive(ask(type_url, names=names))
        (response,) = told(stream)
        assert len(response.resources) == (1_000 if revision == 1 else 1)
        assert stream.receive(ask(type_url, response.nonce)) == [Held(revision)]
        sub = stream._subscriptions[type_url]
        assert sub.held.base is snapshot.resources[type_url]
        assert not sub.held.over
        assert not sub.names.more
        assert not sub.names.less


def test_a_thousand_snapshots_cost_a_slow_client_one_response() -> None:
    stream = DeltaStream()
    stream.offer(many(0, 100))
    stream.receive(ask(CLUSTER))
    (response,) = told(stream)
    for revision in range(1, 1_001):
        stream.offer(many(revision, 100, first=revision))
        assert stream.to_send() == []
    stream.receive(ask(CLUSTER, response.nonce))
    (response,) = told(stream)
    assert [r.resource.value for r in response.resources] == [b"1000"]
    assert stream.receive(ask(CLUSTER, response.nonce)) == [Held(1_000)]


def refusing(first: Snapshot, *more: Snapshot) -> DeltaStream:
    """A stream whose client has refused each of these but the last, which it was not sent yet."""
    stream = DeltaStream()
    stream.offer(first)
    stream.receive(ask(CLUSTER))
    for snapshot in more:
        (response,) = told(stream)
        stream.receive(ask(CLUSTER, response.nonce, error_detail={"message": "no"}))
        stream.offer(snapshot)
    return stream


def test_a_client_that_refuses_for_ever_is_remembered_in_bounds() -> None:
    stream = refusing(*(many(revision, 2, first=revision) for revision in range(100)))
    assert all(len(r.earlier) < 10 for r in stream._subscriptions[CLUSTER].refused.values())


def test_what_is_refused_in_turn_is_remembered_once() -> None:
    stream = refusing(*(many(revision, 1, first=revision % 2) for revision in range(20)))
    assert [len(r.contents()) for r in stream._subscriptions[CLUSTER].refused.values()] == [2]


def test_a_full_state_above_the_limit_is_told() -> None:
    stream = SotwStream()
    stream.offer(many(1, 6, size=MIB))
    stream.to_send()
    events = stream.receive(discovery_pb2.DiscoveryRequest(type_url=CLUSTER))
    (data,) = stream.to_send()
    assert events[1:] == [Oversized(CLUSTER, len(data))]
    assert len(data) > 4 * MIB


def test_a_client_that_asks_on_and_on_without_an_answer_is_sent_away() -> None:
    stream = DeltaStream()
    stream.offer(many(1, 2, ENDPOINTS))
    for _ in range(MAX_UNANSWERED):
        stream.receive(ask(ENDPOINTS, names=["n1"]))
        assert len(stream.to_send()) == 1
    with pytest.raises(Error) as caught:
        stream.receive(ask(ENDPOINTS, names=["n1"]))
    assert (caught.value.code, caught.value.reason) == (Code.INVALID_ARGUMENT, "TOO_MANY_UNANSWERED")


def test_metadata_may_be_a_number_that_is_none() -> None:
    node = base_pb2.Node(id="n")
    node.metadata.fields["x"].number_value = float("nan")
    node.metadata.fields["y"].null_value = 0
    node.metadata.fields["z"]
    (event,) = DeltaStream().receive(ask(CLUSTER, node=node))
    assert isinstance(event, Identified)
    assert str(sorted(event.metadata.items())) == "[('x', nan), ('y', None), ('z', None)]"


@pytest.mark.parametrize("count", [2, 3, 7, 64, 100])
def test_innocents_of_a_refused_response_are_found_in_bounds(count: int) -> None:
    """One of many is bad: the others end up held, and it went a logarithm's times, each time in less company."""
    for bad in {0, count // 2, count - 1}:
        snapshot = Snapshot.of(1, Audience(), [Resource.of(ENDPOINTS, f"n{i:03}", b"x") for i in range(count)])
        stream = DeltaStream()
        stream.offer(snapshot)
        stream.receive(ask(ENDPOINTS, names=sorted(snapshot.resources[ENDPOINTS])))
        held: set[str] = set()
        sizes: list[int] = []
        for _ in range(2):
            while responses := told(stream):
                names = {r.name for r in responses[0].resources}
                if f"n{bad:03}" in names:
                    sizes.append(len(names))
                    stream.receive(ask(ENDPOINTS, responses[0].nonce, error_detail={"message": "no"}))
                else:
                    held |= names
                    stream.receive(ask(ENDPOINTS, responses[0].nonce))
            stream.retry_in_parts()
        assert held == {f"n{i:03}" for i in range(count) if i != bad}
        assert sizes == sorted(set(sizes), reverse=True)
        assert len(sizes) <= 2 + math.log2(count)
        assert told(stream) == []


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


def test_a_version_is_of_the_content_and_not_of_the_stream() -> None:
    """Rule 6: whatever way a stream took to it."""
    said: set[str] = set()
    for history in ([3], [1, 3], [1, 2, 3]):
        stream = SotwStream()
        nonce = ""
        for first in history:
            stream.offer(many(first, 5, first=first))
            stream.receive(discovery_pb2.DiscoveryRequest(type_url=CLUSTER, response_nonce=nonce))
            *_, data = stream.to_send()
            response = discovery_pb2.DiscoveryResponse.FromString(data)
            nonce = response.nonce
            stream.receive(discovery_pb2.DiscoveryRequest(type_url=CLUSTER, response_nonce=nonce))
        said.add(response.version_info)
    assert said == {many(9, 5, first=3).versions[CLUSTER]}


def test_the_words_of_a_refusal_are_cut_off() -> None:
    stream = DeltaStream()
    stream.offer(many(1, 2))
    stream.receive(ask(CLUSTER))
    (response,) = told(stream)
    (refused,) = stream.receive(ask(CLUSTER, response.nonce, error_detail={"message": "x" * 1_000_000}))
    assert isinstance(refused, Refused)
    assert len(refused.message) < 5_000

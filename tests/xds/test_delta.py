"""Delta: the size of responses, and numbers of names. Transcripts show the conversations."""

from __future__ import annotations

from envoy.service.discovery.v3 import discovery_pb2

from controlplane.envoy_types import CLUSTER, ENDPOINTS
from controlplane.xds.delta import DeltaStream
from controlplane.xds.events import Held
from tests.xds.rig import MIB, ask, many, responses


def test_delta_splits_a_response_above_the_limit() -> None:
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


def test_ten_thousand_names_are_answered_in_one_response() -> None:
    stream = DeltaStream()
    stream.offer(many(1, 5_000, ENDPOINTS))
    stream.receive(ask(ENDPOINTS, names=[f"n{i}" for i in range(10_000)]))
    (response,) = responses(stream)
    assert len(response.resources) == 5_000
    assert len(response.removed_resources) == 5_000
    assert stream.receive(ask(ENDPOINTS, response.nonce)) == [Held(1)]

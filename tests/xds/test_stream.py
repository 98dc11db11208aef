"""One stream: its pace and its limits. Transcripts show the conversations."""

from __future__ import annotations

import pytest

from controlplane.envoy_types import CLUSTER, ENDPOINTS
from controlplane.errors import Code, Error
from controlplane.xds.delta import DeltaStream
from controlplane.xds.events import Held
from controlplane.xds.stream import MAX_TYPES, MAX_UNANSWERED
from tests.xds.rig import ask, many, responses


def test_too_many_types_end_the_stream() -> None:
    stream = DeltaStream()
    for i in range(MAX_TYPES):
        stream.receive(ask(f"type/{i}"))
    with pytest.raises(Error) as caught:
        stream.receive(ask("type/one-more"))
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_thousand_snapshots_cost_a_slow_client_one_response() -> None:
    stream = DeltaStream()
    stream.offer(many(1, 100))
    stream.receive(ask(CLUSTER))
    (response,) = responses(stream)
    for revision in range(2, 1_001):
        stream.offer(many(revision, 100, first=revision))
        assert stream.to_send() == []
    stream.receive(ask(CLUSTER, response.nonce))
    (response,) = responses(stream)
    assert [r.resource.value for r in response.resources] == [b"1000"]
    assert stream.receive(ask(CLUSTER, response.nonce)) == [Held(1_000)]


def test_too_many_unanswered_responses_end_the_stream() -> None:
    stream = DeltaStream()
    stream.offer(many(1, 2, ENDPOINTS))
    for _ in range(MAX_UNANSWERED):
        stream.receive(ask(ENDPOINTS, names=["n1"]))
        assert len(stream.to_send()) == 1
    with pytest.raises(Error) as caught:
        stream.receive(ask(ENDPOINTS, names=["n1"]))
    assert (caught.value.code, caught.value.reason) == (Code.INVALID_ARGUMENT, "TOO_MANY_UNANSWERED")

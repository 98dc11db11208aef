"""The state of one stream, as others read it."""

from __future__ import annotations

from weakref import ref

from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, ORDER
from controlplane.xds.delta import DeltaStream
from controlplane.xds.memo import MemoisedStream, TransitionMemo
from controlplane.xds.view import StreamView
from tests.xds.rig import ask, many, responses


def test_a_new_stream_is_empty() -> None:
    state = DeltaStream()
    assert state.revision == 0
    assert state.subscriptions == ()
    assert state.subscription(CLUSTER) is None
    assert state.should_hold(CLUSTER) == {}
    assert [state.returning, state.has_refusals, state.awaits_answer, state.name_count] == [False, False, False, 0]


def test_subscriptions_are_in_the_order_of_types() -> None:
    stream = DeltaStream()
    for type_url in (*reversed(ORDER), "type/of-another-kind"):
        stream.receive(ask(type_url))
    assert list(stream.types) == [s.type_url for s in stream.subscriptions] == [*ORDER, "type/of-another-kind"]


def test_a_client_is_returning_until_it_had_time_to_ask() -> None:
    stream = DeltaStream()
    stream.offer(many(1, 1))
    stream.receive(ask(CLUSTER, initial_resource_versions={"n0": "1"}))
    assert stream.returning
    assert not stream.had_time(CLUSTER, "n0")
    stream.assume_complete()
    assert not stream.returning
    assert stream.had_time(CLUSTER, "n0")


def test_the_state_shows_responses_in_flight_and_refusals() -> None:
    stream = DeltaStream()
    snapshot = many(7, 3)
    stream.offer(snapshot)
    stream.receive(ask(CLUSTER, names=["n0", "n1"]))
    assert stream.revision == 7
    assert stream.should_hold(CLUSTER) is snapshot.resources[CLUSTER]
    assert stream.name_count == 2
    assert stream.awaits_answer
    assert not stream.has_refusals
    (response,) = responses(stream)
    stream.receive(ask(CLUSTER, response.nonce, error_detail={"message": "no"}))
    assert not stream.awaits_answer
    assert stream.has_refusals
    assert (
        stream.subscriptions_to(CLUSTER) == stream.parent_subscriptions(CLUSTER, ENDPOINTS) == (stream.subscription(CLUSTER),)
    )
    assert stream.subscriptions_to(LISTENER) == ()


def test_the_view_of_a_stream_is_its_owner() -> None:
    core = DeltaStream()
    owner: StreamView = MemoisedStream(DeltaStream, memo=TransitionMemo())
    assert core.view is core
    core.owner = ref(owner)
    assert core.view is owner
    del owner
    assert core.view is core

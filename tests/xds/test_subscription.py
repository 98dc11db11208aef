"""One type on one stream. Transcripts show the conversations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.envoy_types import CLUSTER, LISTENER, ROUTES
from controlplane.snapshot import DiffCache, Resource
from controlplane.xds.delta import DeltaStream
from controlplane.xds.events import Held, Refused
from controlplane.xds.refusals import Batch
from controlplane.xds.subscription import AckTimes, Subscription, changed, held_resources
from tests.xds.rig import ask, many, responses


@pytest.mark.parametrize("type_url", [CLUSTER, ROUTES])
def test_a_stream_that_holds_everything_stores_no_differences(type_url: str) -> None:
    """State per stream does not grow with what is merely unchanged."""
    stream = DeltaStream()
    names = [] if type_url == CLUSTER else [f"n{i}" for i in range(1_000)]
    for revision in range(1, 5):
        snapshot = many(revision, 1_000, type_url, first=revision)
        stream.offer(snapshot)
        if revision == 1:
            stream.receive(ask(type_url, names=names))
        (response,) = responses(stream)
        assert len(response.resources) == (1_000 if revision == 1 else 1)
        assert stream.receive(ask(type_url, response.nonce)) == [Held(revision)]
        sub = stream._subscriptions[type_url]
        assert sub.held.base is snapshot.resources[type_url]
        assert not sub.held.over
        assert not sub.names.more
        assert not sub.names.less


def subscription(type_url: str = CLUSTER, **latest: str) -> Subscription:
    """A subscription; `latest` are contents by name."""
    sub = Subscription(type_url, DiffCache(), now=1.0)
    sub.set_latest({n: Resource.of(type_url, n, content.encode()) for n, content in latest.items()})
    return sub


def send(sub: Subscription, nonce: str, *names: str, full_state: bool = False) -> None:
    sub.sent(nonce, Batch(1, {n: sub.latest.get(n) for n in names}, full_state))


def test_only_an_ack_makes_a_resource_held() -> None:
    sub = subscription(a="1", b="1")
    sub.subscribe(["a", "b"])
    send(sub, "1", "a", "b")
    assert not held_resources(sub)
    assert sub.current("a") is sub.latest["a"]
    sub.ack("of another response")
    assert not held_resources(sub)
    sub.ack("1")
    assert [r.name for r in held_resources(sub)] == ["a", "b"]
    assert sub.settled()


def test_an_ack_of_a_full_state_removes_what_is_not_in_it() -> None:
    sub = subscription(a="1", b="1")
    sub.subscribe(["a", "b"])
    send(sub, "1", "a", "b", full_state=True)
    sub.ack("1")
    sub.set_latest({"b": sub.latest["b"]})
    send(sub, "2", "b", full_state=True)
    assert sub.current("a") is None
    sub.ack("2")
    assert [r.name for r in held_resources(sub)] == ["b"]


def test_a_nack_holds_nothing_and_is_reported() -> None:
    sub = subscription(a="1")
    sub.legacy_wildcard()
    send(sub, "1", "a")
    assert sub.nack("of another response", "no") == []
    assert sub.nack("1", "no") == [Refused(CLUSTER, ("a",), "no", 1)]
    assert sub.held.get("a") is None
    assert sub.stands("a")
    assert sub.answered()
    assert not sub.settled()


def test_unsubscribing_from_the_wildcard_keeps_the_names() -> None:
    sub = subscription(a="1", b="1")
    sub.subscribe(["*", "a"])
    send(sub, "1", "a", "b")
    sub.ack("1")
    sub.unsubscribe(["*"])
    assert [r.name for r in held_resources(sub)] == ["a"]
    assert not sub.covers("b")


def test_an_unsubscribed_name_under_the_wildcard_will_be_answered() -> None:
    sub = subscription(a="1")
    sub.subscribe(["*", "a"])
    send(sub, "1", "a")
    sub.ack("1")
    sub.unsubscribe(["a"])
    assert sub.requested == {"a"}
    assert sub.covers("a")


@pytest.mark.parametrize(
    ("names", "wildcard"), [([set()], True), ([{"a"}, set()], False), ([set(), {"a"}], False), ([{"*"}], True)]
)
def test_a_list_without_names_is_a_wildcard_until_something_was_named(names: list[set[str]], wildcard: bool) -> None:
    sub = subscription(a="1")
    for each in names:
        sub.set_names(each)
    assert sub.wildcard is wildcard


@pytest.mark.parametrize(
    ("type_url", "wildcard", "returning", "uses"),
    [(CLUSTER, True, False, False), (CLUSTER, True, True, True), (CLUSTER, False, False, True), (LISTENER, True, False, True)],
)
def test_which_resources_a_client_may_use_without_an_ack(type_url: str, wildcard: bool, returning: bool, uses: bool) -> None:
    sub = subscription(type_url)
    sub.wildcard, sub.returning = wildcard, returning
    assert sub.uses_unacked is uses


def test_a_fork_does_not_change_with_its_origin() -> None:
    sub = subscription(a="1")
    sub.subscribe(["a"])
    fork = sub.fork()
    send(sub, "1", "a")
    sub.ack("1")
    sub.unsubscribe(["a"])
    assert fork.requested == {"a"}
    assert fork.covers("a")
    assert not fork.inflight


def test_changed_resources_are_neither_held_nor_in_flight() -> None:
    sub = subscription(a="1", b="1", c="1")
    sub.legacy_wildcard()
    send(sub, "1", "a")
    sub.ack("1")
    send(sub, "2", "b")
    assert [r.name for r in changed(sub, sub.latest)] == ["c"]


@given(st.lists(st.lists(st.sampled_from("abcdefghijkl"), max_size=10, unique=True), max_size=8))
def test_the_times_of_the_newest_acks_are_exact(acks: list[list[str]]) -> None:
    times, newest = AckTimes(0.0), {}
    for now, names in enumerate(acks, 1):
        times.note(names, len(names), float(now))
        newest.update(dict.fromkeys(names, float(now)))
        assert len(times.by_name) <= 8
    for name, time in newest.items():
        assert times.by_name.get(name, time) == time
        assert name in times.by_name or time <= times.others

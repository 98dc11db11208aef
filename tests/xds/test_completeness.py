"""Held, settled, blocked: what one stream reports of the newest snapshot."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SCOPED_ROUTES
from controlplane.snapshot import Audience, Resource, Snapshot
from controlplane.xds.delta import DeltaStream
from controlplane.xds.events import Blocked, Event, Held, Identified, Settled
from tests.xds.rig import ask, responses


def cluster(name: str, content: str = "1") -> list[Resource]:
    """A cluster and its endpoints."""
    return [
        Resource.of(CLUSTER, name, content.encode(), {(ENDPOINTS, name)}),
        Resource.of(ENDPOINTS, name, b"endpoints"),
    ]


def route(*clusters: str) -> Resource:
    return Resource.of(ROUTES, "r", " ".join(clusters).encode(), {(CLUSTER, c) for c in clusters})


def snapshot(revision: int, *resources: Resource) -> Snapshot:
    return Snapshot.of(revision, Audience(), resources)


class Client:
    """A client that ACKs every response, except those with the name in `refuse`."""

    def __init__(self, type_url: str = "") -> None:
        self.stream = DeltaStream(type_url)
        self.events: list[Event] = []

    def offer(self, newest: Snapshot) -> list[Event]:
        return self.note(self.stream.offer(newest))

    def ask(self, type_url: str, *names: str, **known: str) -> list[Event]:
        return self.note(self.stream.receive(ask(type_url, names=list(names), initial_resource_versions=known)))

    def answer(self, refuse: str = "") -> list[Event]:
        events: list[Event] = []
        while sent := responses(self.stream):
            for response in sent:
                bad = refuse and any(r.name == refuse for r in response.resources)
                error: Any = {"message": "no"} if bad else None
                events += self.stream.receive(ask(response.type_url, response.nonce, error_detail=error))
        return self.note(events)

    def note(self, events: list[Event]) -> list[Event]:
        return [e for e in events if isinstance(e, Held | Settled | Blocked)]


def test_held_needs_every_ack() -> None:
    client = Client()
    client.offer(snapshot(1, *cluster("a")))
    assert client.ask(CLUSTER) == []
    assert client.ask(ENDPOINTS, "a") == []
    assert client.answer() == [Held(1)]
    assert client.offer(snapshot(1, *cluster("a"))) == []  # once for each revision
    assert client.offer(snapshot(2, *cluster("a"))) == [Held(2)]


def test_held_needs_a_subscription_to_what_a_resource_names() -> None:
    client = Client()
    client.offer(snapshot(1, *cluster("a"), *cluster("b")))
    client.ask(CLUSTER)
    client.ask(ENDPOINTS, "a")
    assert client.answer() == []
    client.ask(ENDPOINTS, "b")
    assert client.answer() == [Held(1)]


@pytest.mark.parametrize("type_url", [LISTENER, SCOPED_ROUTES])
def test_a_wildcard_client_has_to_ask_for_every_type_that_has_resources(type_url: str) -> None:
    client = Client()
    client.offer(snapshot(1, *cluster("a"), Resource.of(type_url, "x", b"x")))
    client.ask(CLUSTER)
    client.ask(ENDPOINTS, "a")
    assert client.answer() == []
    client.ask(type_url)
    assert client.answer() == [Held(1)]


def test_a_client_that_names_things_need_not_ask_for_every_type() -> None:
    client = Client()
    client.offer(snapshot(1, *cluster("a"), Resource.of(LISTENER, "x", b"x")))
    client.ask(ENDPOINTS, "a")
    assert client.answer() == [Held(1)]


def test_a_stream_of_one_type_holds_that_type() -> None:
    client = Client(CLUSTER)
    client.offer(snapshot(1, *cluster("a")))
    client.ask(CLUSTER)
    assert client.answer() == [Held(1)]


def test_a_snapshot_is_settled_when_only_older_content_is_refused() -> None:
    client = Client()
    client.offer(snapshot(1, *cluster("a")))
    client.ask(CLUSTER)
    client.ask(ENDPOINTS, "a")
    client.answer()
    client.offer(snapshot(2, *cluster("a"), *cluster("bad")))
    client.ask(ENDPOINTS, "bad")
    assert client.answer(refuse="bad") == []
    client.offer(snapshot(3, *cluster("a", "3"), *cluster("bad")))
    assert client.answer(refuse="bad") == [Settled(3, 2)]
    client.offer(snapshot(4, *cluster("a", "3")))
    assert client.answer() == [Held(4)]


def test_a_snapshot_is_blocked_when_a_route_needs_a_refused_cluster() -> None:
    client = Client()
    client.offer(snapshot(1, *cluster("a"), route("a")))
    for type_url, names in ((CLUSTER, ()), (ENDPOINTS, ("a",)), (ROUTES, ("r",))):
        client.ask(type_url, *names)
    assert client.answer() == [Held(1)]
    client.offer(snapshot(2, *cluster("a"), *cluster("bad"), route("a")))
    client.answer(refuse="bad")
    assert client.offer(snapshot(3, *cluster("a"), *cluster("bad"), route("bad"))) == [Blocked(3)]
    assert client.offer(snapshot(3, *cluster("a"), *cluster("bad"), route("bad"))) == []
    client.offer(snapshot(4, *cluster("a"), route("a")))
    assert client.answer() == [Held(4)]


def test_the_first_request_alone_reports_no_completeness() -> None:
    stream = DeltaStream()
    assert [type(e) for e in stream.receive(ask(CLUSTER))] == [Identified]

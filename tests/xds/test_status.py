"""The state of each resource at a node, read from its streams."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2

from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from controlplane.xds.delta import DeltaStream
from controlplane.xds.sotw import SotwStream
from controlplane.xds.status import ResourceStatus, State, known, merged, statuses
from tests.xds.transcript import snapshot

VARIANTS = pytest.mark.parametrize("variant", ["delta", "sotw"])

AHEAD = 1_000.0


class Client:
    """The client's side of one stream. `at` is the time at which a request arrives."""

    def __init__(self, variant: str = "delta") -> None:
        self.delta = variant == "delta"
        self.core: Any = DeltaStream() if self.delta else SotwStream()
        self.names: dict[str, list[str]] = {}
        self.nonces: dict[str, list[str]] = {}

    def offer(self, revision: int, text: str) -> None:
        self.core.offer(snapshot(revision, text))
        self._receive_responses()

    def ask(self, type_url: str, *names: str, at: float = 0.0, drop: Iterable[str] = (), **known: str) -> None:
        self.names[type_url] = list(names)
        if self.delta:
            request: Any = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, initial_resource_versions=known)
            request.resource_names_subscribe.extend(names)
            request.resource_names_unsubscribe.extend(drop)
        else:
            request = discovery_pb2.DiscoveryRequest(type_url=type_url, resource_names=names)
            request.response_nonce = self.nonces.get(type_url, [""])[-1]
        request.node.id = "n"
        self._send(request, at)

    def answer(self, type_url: str, at: float = 0.0, error: str = "") -> None:
        """Answer all responses of a type: ACK them, or NACK them with an error."""
        while nonces := self.nonces.get(type_url):
            request: Any = (discovery_pb2.DeltaDiscoveryRequest if self.delta else discovery_pb2.DiscoveryRequest)()
            request.type_url, request.response_nonce = type_url, nonces.pop(0)
            if not self.delta:
                request.resource_names.extend(self.names[type_url])
            if error:
                request.error_detail.message = error
            self._send(request, at)

    def _send(self, request: Any, at: float) -> None:
        self.core.now = at
        self.core.receive(request)
        self._receive_responses()

    def _receive_responses(self) -> None:
        response = discovery_pb2.DeltaDiscoveryResponse if self.delta else discovery_pb2.DiscoveryResponse
        for data in self.core.to_send():
            parsed: Any = response.FromString(data)
            self.nonces.setdefault(parsed.type_url, []).append(parsed.nonce)


def of(*clients: Client) -> dict[tuple[str, str], ResourceStatus]:
    merged_statuses = merged(statuses([c.core for c in clients], AHEAD))
    assert pickle.loads(pickle.dumps(merged_statuses)) == merged_statuses
    return {(s.type_url, s.name): s for s in merged_statuses}


def states(*clients: Client, type_url: str = CLUSTER) -> dict[str, State]:
    return {n: s.state for (t, n), s in of(*clients).items() if t == type_url}


def holding(variant: str) -> Client:
    """A client that holds clusters a and b since 1 and their endpoints since 2."""
    c = Client(variant)
    c.offer(1, "cds a=1(a) b=1(b); eds a=1 b=1")
    c.ask(CLUSTER, at=0.5)
    c.answer(CLUSTER, at=1.0)
    c.ask(ENDPOINTS, "a", "b", at=1.5)
    c.answer(ENDPOINTS, at=2.0)
    return c


@VARIANTS
def test_synced(variant: str) -> None:
    by_name = of(holding(variant))
    assert list(by_name) == [(CLUSTER, "a"), (CLUSTER, "b"), (ENDPOINTS, "a"), (ENDPOINTS, "b")]
    for (type_url, _), status in by_name.items():
        assert (status.state, status.synced) == (State.SYNCED, True)
        assert status.held is status.should is not None
        assert (status.time, status.exact) == (AHEAD + (1.0 if type_url == CLUSTER else 2.0), True)
        assert status.refused is None


@VARIANTS
def test_sent_and_acked(variant: str) -> None:
    c = holding(variant)
    c.offer(2, "cds a=2(a) b=1(b); eds a=1 b=1")
    changed = of(c)[CLUSTER, "a"]
    assert (changed.state, changed.sent, changed.time) == (State.SENT, 2, AHEAD + 1.0)
    assert changed.held != changed.should
    assert states(c)["b"] is State.SYNCED
    c.answer(CLUSTER, at=9.0)
    assert (of(c)[CLUSTER, "a"].time, of(c)[CLUSTER, "b"].time) == (AHEAD + 9.0, AHEAD + 1.0)
    assert states(c) == {"a": State.SYNCED, "b": State.SYNCED}


@VARIANTS
def test_refused_and_mended(variant: str) -> None:
    c = holding(variant)
    c.offer(2, "cds a=2(a) b=1(b); eds a=1 b=1")
    c.answer(CLUSTER, at=5.0, error=" no ")
    status = of(c)[CLUSTER, "a"]
    assert (status.state, status.time) == (State.REFUSED, AHEAD + 1.0)
    assert status.refused is not None
    assert status.refused.content is status.should
    assert (status.refused.message, status.refused.time, status.refused.revision) == ("no", AHEAD + 5.0, 2)
    c.offer(3, "cds a=3(a) b=1(b); eds a=1 b=1")
    status = of(c)[CLUSTER, "a"]
    assert (status.state, status.refused is not None) == (State.SENT, True)
    c.answer(CLUSTER, at=7.0)
    status = of(c)[CLUSTER, "a"]
    assert (status.state, status.refused, status.time) == (State.SYNCED, None, AHEAD + 7.0)


@VARIANTS
def test_waiting_routes_and_clusters_that_are_still_used(variant: str) -> None:
    c = Client(variant)
    c.offer(1, "cds a=1; rds r=1(a)")
    c.ask(CLUSTER)
    c.answer(CLUSTER)
    c.ask(ROUTES, "r")
    c.answer(ROUTES)
    c.offer(2, "cds b=1; rds r=2(b)")
    # The new cluster goes first, the old one goes last, and the route is between them.
    assert states(c) == {"a": State.WAITING, "b": State.SENT}
    assert states(c, type_url=ROUTES) == {"r": State.WAITING}
    c.answer(CLUSTER)
    assert states(c, type_url=ROUTES) == {"r": State.SENT}
    assert states(c) == {"a": State.WAITING, "b": State.SYNCED}
    assert (of(c)[CLUSTER, "a"].should, of(c)[CLUSTER, "a"].sent) == (None, 0)
    c.answer(ROUTES)
    assert (states(c)["a"], of(c)[CLUSTER, "a"].sent) == (State.SENT, 2)
    c.answer(CLUSTER)
    assert states(c) == {"b": State.SYNCED}


@VARIANTS
def test_a_name_that_does_not_exist_is_absent(variant: str) -> None:
    c = Client(variant)
    c.offer(1, "cds a=1(a); eds a=1")
    c.ask(ENDPOINTS, "a", "none")
    before = states(c, type_url=ENDPOINTS)
    c.answer(ENDPOINTS)
    assert (before, states(c, type_url=ENDPOINTS)) == (
        {"a": State.SENT, "none": State.ABSENT},
        {"a": State.SYNCED, "none": State.ABSENT},
    )
    status = of(c)[ENDPOINTS, "none"]
    assert (status.held, status.should, status.time, status.synced) == (None, None, None, True)


@VARIANTS
def test_a_type_that_is_not_asked_for_is_unasked(variant: str) -> None:
    c = Client(variant)
    c.offer(1, "cds a=1(a); eds a=1; lds l=1")
    c.ask(ENDPOINTS, "a")
    c.answer(ENDPOINTS)
    # It names what it wants, so other resources are not listed.
    assert set(of(c)) == {(ENDPOINTS, "a")}
    c.ask(CLUSTER)
    c.answer(CLUSTER)
    assert states(c, type_url=LISTENER) == {"l": State.UNASKED}
    assert not of(c)[LISTENER, "l"].synced


def test_an_unsubscribed_name_is_not_listed_as_held() -> None:
    c = holding("delta")
    c.offer(2, "cds a=1(a) b=1(b); eds a=2 b=2")
    c.ask(ENDPOINTS, drop=["a"])
    # It takes all clusters, so it should want their endpoints.
    assert states(c, type_url=ENDPOINTS) == {"a": State.UNASKED, "b": State.SENT}


def test_versions_of_an_earlier_stream() -> None:
    c = Client()
    snap = snapshot(1, "cds a=1 b=1")
    c.offer(1, "cds a=1 b=1")
    c.ask(CLUSTER, at=3.0, a=snap.resources[CLUSTER]["a"].version, b="old", gone="old")
    by_name = of(c)
    assert [(s.name, s.state) for s in by_name.values()] == [("a", State.SYNCED), ("b", State.SENT), ("gone", State.WAITING)]
    a, b = by_name[CLUSTER, "a"], by_name[CLUSTER, "b"]
    assert a.held is not None
    assert b.held is not None
    assert (known(a.held), known(b.held), b.held.version) == (True, False, "old")
    assert (a.time, a.exact) == (AHEAD + 3.0, False)


@VARIANTS
def test_only_the_newest_eight_ack_times_are_exact(variant: str) -> None:
    c = Client(variant)
    many = [f"c{i}" for i in range(20)]
    c.offer(1, "cds " + " ".join(f"{n}=1" for n in many))
    c.ask(CLUSTER, at=1.0)
    c.answer(CLUSTER, at=2.0)
    assert {(s.time, s.exact) for s in of(c).values()} == {(AHEAD + 2.0, False)}
    for i in range(12):
        c.offer(i + 2, "cds " + " ".join(f"{n}={2 if j <= i else 1}" for j, n in enumerate(many)))
        c.answer(CLUSTER, at=10.0 + i)
    times = {s.name: (s.time, s.exact) for s in of(c).values()}
    for i, name in enumerate(many):
        # Exact for the eight that were ACKed last. The others were ACKed no later than the ninth.
        assert times[name] == ((AHEAD + 10.0 + i, True) if 4 <= i < 12 else (AHEAD + 13.0, False))
    assert all(len(sub.times.by_name) <= 8 for sub in c.core.subscriptions)


def test_of_several_streams_the_state_furthest_from_synced_counts() -> None:
    one, other = holding("delta"), holding("sotw")
    for c in (one, other):
        c.offer(2, "cds a=2(a) b=1(b); eds a=1 b=1")
    one.answer(CLUSTER)
    assert states(one, other) == {"a": State.SENT, "b": State.SYNCED}
    other.answer(CLUSTER, error="no")
    assert states(one, other) == {"a": State.REFUSED, "b": State.SYNCED}


def test_types_on_other_streams_count_as_asked_for() -> None:
    clusters, endpoints = Client(), Client()
    for c, type_url, names in ((clusters, CLUSTER, ()), (endpoints, ENDPOINTS, ("a",))):
        c.offer(1, "cds a=1(a); eds a=1")
        c.ask(type_url, *names)
        c.answer(type_url)
    assert [s.state for s in of(clusters, endpoints).values()] == [State.SYNCED, State.SYNCED]
    # Two processes with one stream each give the same result when their parts are merged.
    parts = [merged(statuses([c.core], AHEAD)) for c in (clusters, endpoints)]
    assert [s.state for s in parts[0]] == [State.SYNCED, State.UNASKED]
    assert [s.state for s in merged(parts)] == [State.SYNCED, State.SYNCED]


def test_nothing_is_known_before_there_is_a_snapshot() -> None:
    c = Client()
    assert of(c) == {}
    c.ask(CLUSTER)
    assert of(c) == {}


def test_a_large_type_is_yielded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.xds.status._PART", 3)
    c = Client()
    c.offer(1, "cds " + " ".join(f"c{i}=1" for i in range(8)))
    c.ask(CLUSTER)
    parts = list(statuses([c.core], AHEAD))
    assert [len(part) for part in parts if part] == [3, 3, 2]
    assert [s.name for s in merged(parts)] == [f"c{i}" for i in range(8)]

"""A node with several streams: each stream waits for the ACKs on the others (make before break)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2

from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SCOPED_ROUTES, SECRET
from controlplane.snapshot import Audience, Resource, Snapshot
from controlplane.xds.coordination import LINGER, TIME_TO_ASK, Coordination
from controlplane.xds.delta import DeltaStream
from controlplane.xds.events import Blocked, Held
from controlplane.xds.memo import MemoisedStream, TransitionMemo
from controlplane.xds.sotw import SotwStream

VARIANTS = pytest.mark.parametrize("variant", ["delta", "sotw"])

Sent = tuple[str, list[str], list[str]]  # type URL, names of resources, names that are removed (delta)


def cluster(name: str, content: str = "1") -> list[Resource]:
    """A cluster and its endpoints."""
    return [
        Resource.of(CLUSTER, name, f"{name} {content}".encode(), [(ENDPOINTS, name)]),
        Resource.of(ENDPOINTS, name, name.encode()),
    ]


def route(name: str, *clusters: str) -> Resource:
    return Resource.of(ROUTES, name, " ".join(clusters).encode(), [(CLUSTER, c) for c in clusters])


def snapshot(revision: int, *resources: Resource | Iterable[Resource]) -> Snapshot:
    flat = [r for rs in resources for r in ((rs,) if isinstance(rs, Resource) else rs)]
    return Snapshot.of(revision, Audience(), flat)


class Conversation:
    """The client's side of one stream of a node. It sends only what the test asks for."""

    def __init__(self, node: Node, variant: str, type_url: str) -> None:
        self.node, self.delta = node, variant == "delta"
        self.core: Any = node.make(DeltaStream if self.delta else SotwStream, type_url)
        self.events: list[Any] = []
        self.nonces: dict[str, str] = {}  # nonces of the newest responses, by type
        self.names: dict[str, list[str]] = {}

    def ask(self, type_url: str, *names: str, **known: str) -> None:
        self.names[type_url] = list(names)
        if self.delta:
            request = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, initial_resource_versions=known)
            request.resource_names_subscribe.extend(names)
        else:
            request = discovery_pb2.DiscoveryRequest(type_url=type_url, resource_names=names)
            request.response_nonce = self.nonces.get(type_url, "")
        request.node.id = "n"
        self._receive(request)

    def ack(self, type_url: str, error: str = "") -> None:
        request = (discovery_pb2.DeltaDiscoveryRequest if self.delta else discovery_pb2.DiscoveryRequest)(type_url=type_url)
        if not self.delta:
            request.resource_names.extend(self.names[type_url])
        request.response_nonce = self.nonces[type_url]
        if error:
            request.error_detail.message = error
        self._receive(request)

    def _receive(self, request: Any) -> None:
        self.events += self.core.receive(request)
        for other in self.node.coordination.after_request(self.core):
            self.node.of(other).reconsider()

    def reconsider(self) -> None:
        self.events += self.core.reconsider()

    def received(self) -> list[Sent]:
        """Return the responses since the call before."""
        sent: list[Sent] = []
        for data in self.core.to_send():
            if self.delta:
                response = discovery_pb2.DeltaDiscoveryResponse.FromString(data)
                names = [r.name for r in response.resources]
                sent.append((response.type_url, sorted(names), sorted(response.removed_resources)))
            else:
                response = discovery_pb2.DiscoveryResponse.FromString(data)
                sent.append((response.type_url, sorted(r.value.decode() for r in response.resources), []))
            self.nonces[response.type_url] = response.nonce
        return sent


def own_core(kind: Any, type_url: str) -> Any:
    return kind(type_url)


@pytest.fixture(autouse=True, params=["own", "memoised"])
def _cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test with plain cores, and with memoised streams."""
    if request.param == "memoised":
        monkeypatch.setattr(Node, "make", staticmethod(partial(MemoisedStream, memo=TransitionMemo())))


class Node:
    make: Callable[[Any, str], Any] = staticmethod(own_core)

    def __init__(self, variant: str = "delta") -> None:
        self.coordination, self.variant, self.now = Coordination(), variant, 0.0
        self.streams: list[Conversation] = []
        self.newest: Snapshot | None = None

    def of(self, core: object) -> Conversation:
        return next(s for s in self.streams if s.core is core)

    def stream(self, type_url: str = "") -> Conversation:
        """A new stream: of one type, or ADS."""
        stream = Conversation(self, self.variant, type_url)
        self.streams.append(stream)
        self.coordination.join(stream.core, self.now)
        if self.newest is not None:
            stream.core.offer(self.newest)
        return stream

    def offer(self, newest: Snapshot, *, backwards: bool = False) -> None:
        self.newest = newest
        for stream in reversed(self.streams) if backwards else self.streams:
            stream.events += stream.core.offer(newest)

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.coordination.set_time(self.now)
        for core in self.coordination.take_overdue():
            self.of(core).reconsider()

    def close(self, stream: Conversation) -> None:
        self.streams.remove(stream)
        self.coordination.leave(stream.core, self.now)


def served(variant: str = "delta") -> tuple[Node, Conversation, Conversation, Conversation]:
    """A node with streams of its own for CDS, EDS and RDS, that holds one route to one cluster."""
    node = Node(variant)
    node.offer(snapshot(1, cluster("blue"), route("iris", "blue")))
    cds, eds, rds = node.stream(CLUSTER), node.stream(ENDPOINTS), node.stream(ROUTES)
    for stream, type_url, names in ((cds, CLUSTER, ()), (eds, ENDPOINTS, ("blue",)), (rds, ROUTES, ("iris",))):
        stream.ask(type_url, *names)
        assert len(stream.received()) == 1
        stream.ack(type_url)
    assert all(Held(1) in s.events for s in (cds, eds, rds))
    return node, cds, eds, rds


@VARIANTS
@pytest.mark.parametrize("backwards", [False, True])
def test_a_route_waits_for_its_new_cluster_and_its_endpoints(variant: str, backwards: bool) -> None:
    node, cds, eds, rds = served(variant)
    node.offer(snapshot(2, cluster("blue"), cluster("green"), route("iris", "green")), backwards=backwards)
    assert len(cds.received()) == 1
    assert rds.received() == []
    cds.ack(CLUSTER)
    assert rds.received() == []
    eds.ask(ENDPOINTS, *(["green"] if variant == "delta" else ["blue", "green"]))
    assert len(eds.received()) == 1
    assert rds.received() == []
    eds.ack(ENDPOINTS)
    assert rds.received() == [(ROUTES, ["iris" if variant == "delta" else "green"], [])]
    rds.ack(ROUTES)
    assert Held(2) in rds.events


@VARIANTS
def test_a_route_waits_for_the_secrets_of_its_new_cluster(variant: str) -> None:
    node, cds, _, rds = served(variant)
    sds = node.stream(SECRET)
    sds.ask(SECRET, "none")
    sds.received()
    green = Resource.of(CLUSTER, "green", b"green", [(SECRET, "key")])
    node.offer(snapshot(2, cluster("blue"), green, Resource.of(SECRET, "key", b"key"), route("iris", "green")))
    cds.received()
    cds.ack(CLUSTER)
    assert rds.received() == []
    sds.ask(SECRET, *(["key"] if variant == "delta" else ["key", "none"]))
    assert len(sds.received()) == 1
    assert rds.received() == []
    sds.ack(SECRET)
    assert rds.received() == [(ROUTES, ["iris" if variant == "delta" else "green"], [])]


@VARIANTS
@pytest.mark.parametrize("backwards", [False, True])
def test_a_cluster_and_its_endpoints_are_removed_after_the_route_that_named_them(variant: str, backwards: bool) -> None:
    node, cds, eds, rds = served(variant)
    node.offer(snapshot(2, cluster("blue"), cluster("green"), route("iris", "blue")))
    cds.received()
    cds.ack(CLUSTER)
    eds.ask(ENDPOINTS, *(["green"] if variant == "delta" else ["blue", "green"]))
    eds.received()
    eds.ack(ENDPOINTS)
    node.offer(snapshot(3, cluster("green"), route("iris", "green")), backwards=backwards)
    assert len(rds.received()) == 1
    assert (cds.received(), eds.received()) == ([], [])
    rds.ack(ROUTES)
    assert cds.received() == [(CLUSTER, [], ["blue"]) if variant == "delta" else (CLUSTER, ["green 1"], [])]
    assert eds.received() == []
    cds.ack(CLUSTER)
    assert eds.received() == ([(ENDPOINTS, [], ["blue"])] if variant == "delta" else [])
    if variant == "delta":
        eds.ack(ENDPOINTS)
    assert all(Held(3) in s.events for s in (cds, eds, rds))


@VARIANTS
def test_a_removal_waits_for_linger_seconds_at_most(variant: str) -> None:
    node, cds, _, rds = served(variant)
    node.offer(snapshot(2))
    assert len(rds.received()) == (1 if variant == "delta" else 0)  # and is never answered
    if variant == "sotw":
        return
    assert cds.received() == []
    node.passes(LINGER - 0.1)
    assert cds.received() == []
    assert node.coordination.next_deadline == pytest.approx(LINGER)
    node.passes(0.2)
    assert cds.received() == [(CLUSTER, [], ["blue"])]


def test_a_refused_route_keeps_its_cluster_on_another_stream() -> None:
    node, cds, _, rds = served()
    node.offer(snapshot(2, cluster("blue"), route("iris", "blue"), route("wine", "blue")))
    rds.ask(ROUTES, "wine")
    rds.received()
    rds.ack(ROUTES, error="no")
    node.offer(snapshot(3, route("iris")))
    rds.received()
    assert cds.received() == []
    rds.ack(ROUTES)
    assert cds.received() == [(CLUSTER, [], ["blue"])]


def test_a_new_cluster_that_is_refused_holds_back_its_routes_and_no_others() -> None:
    node, cds, _, rds = served()
    node.offer(snapshot(2, cluster("blue"), cluster("bad"), route("iris", "bad")))
    cds.received()
    cds.ack(CLUSTER, error="bad")
    assert rds.received() == []
    node.passes(10 * LINGER)
    assert rds.received() == []
    node.offer(snapshot(3, cluster("blue", "2"), cluster("bad"), route("iris", "blue", "blue")))
    assert rds.received() == [(ROUTES, ["iris"], [])]


def test_a_closed_stream_keeps_its_clusters_for_linger_seconds() -> None:
    node, cds, _, rds = served()
    node.close(rds)
    node.offer(snapshot(2, cluster("green"), route("iris", "green")))
    assert cds.received() == [(CLUSTER, ["green"], [])]
    cds.ack(CLUSTER)
    assert cds.received() == []
    node.passes(LINGER + 0.1)
    assert cds.received() == [(CLUSTER, [], ["blue"])]


def test_routes_wait_while_the_stream_of_clusters_is_closed() -> None:
    node, cds, eds, rds = served()
    node.close(cds)
    node.offer(snapshot(2, cluster("blue"), cluster("green"), route("iris", "green")))
    assert rds.received() == []
    again = node.stream(CLUSTER)
    again.ask(CLUSTER, blue=cluster("blue")[0].version)
    assert again.received() == [(CLUSTER, ["green"], [])]
    again.ack(CLUSTER)
    eds.ask(ENDPOINTS, "green")
    eds.received()
    eds.ack(ENDPOINTS)
    assert rds.received() == [(ROUTES, ["iris"], [])]


def test_a_route_waits_for_unasked_endpoints_for_a_limited_time() -> None:
    node, cds, _, rds = served()
    node.offer(snapshot(2, cluster("blue"), cluster("green"), route("iris", "green")))
    cds.received()
    cds.ack(CLUSTER)
    assert rds.received() == []
    assert node.coordination.next_deadline == pytest.approx(TIME_TO_ASK)
    node.passes(TIME_TO_ASK + 0.1)
    assert rds.received() == [(ROUTES, ["iris"], [])]


def test_a_closed_stream_does_not_count_for_a_later_one() -> None:
    node, cds, eds, rds = served()
    for stream in (cds, eds, rds):
        node.close(stream)
    later = node.stream(ROUTES)
    later.ask(ROUTES, "iris")
    assert later.received() == [(ROUTES, ["iris"], [])]
    node.offer(snapshot(2, cluster("green"), route("iris", "green")))
    later.ack(ROUTES)
    assert later.received() == [(ROUTES, ["iris"], [])]


def test_a_client_that_names_its_clusters_does_not_wait_for_them() -> None:
    node = Node()
    node.offer(snapshot(1, cluster("blue"), route("iris", "blue")))
    cds, rds = node.stream(CLUSTER), node.stream(ROUTES)
    cds.ask(CLUSTER, "other")
    rds.ask(ROUTES, "iris")
    assert rds.received() == [(ROUTES, ["iris"], [])]


def test_clusters_and_listeners_on_per_type_streams_and_other_types_on_ads() -> None:
    """An Envoy can be configured so: CDS and LDS are services of their own, and the other types come over ADS."""
    node = Node()
    scope = Resource.of(SCOPED_ROUTES, "s", b"s", [(ROUTES, "iris")])
    listener = Resource.of(LISTENER, "l", b"l")
    node.offer(snapshot(1, cluster("blue"), route("iris", "blue"), scope, listener))
    cds, lds, ads = node.stream(CLUSTER), node.stream(LISTENER), node.stream()
    cds.ask(CLUSTER)
    cds.received()
    ads.ask(ENDPOINTS, "blue")
    assert ads.received() == [(ENDPOINTS, ["blue"], [])]
    ads.ack(ENDPOINTS)
    ads.ask(SCOPED_ROUTES)
    assert ads.received() == [(SCOPED_ROUTES, ["s"], [])]
    ads.ack(SCOPED_ROUTES)
    ads.ask(ROUTES, "iris")
    assert ads.received() == []
    cds.ack(CLUSTER)
    assert ads.received() == [(ROUTES, ["iris"], [])]
    assert Held(1) not in ads.events
    ads.ack(ROUTES)
    lds.ask(LISTENER)
    lds.received()
    lds.ack(LISTENER)
    assert all(Held(1) in s.events for s in (cds, lds, ads))
    # A changed cluster is warmed again. So its endpoints are sent again, after the ACK of the cluster.
    node.offer(snapshot(2, cluster("blue", "2"), route("iris", "blue"), scope, listener))
    assert cds.received() == [(CLUSTER, ["blue"], [])]
    assert ads.received() == []
    cds.ack(CLUSTER)
    assert ads.received() == [(ENDPOINTS, ["blue"], [])]
    ads.ack(ENDPOINTS)
    assert Held(2) in ads.events


def test_whole_clients_under_one_name_do_not_wait_for_each_other() -> None:
    node = Node()
    node.offer(snapshot(1, cluster("blue"), route("iris", "blue")))
    both = [node.stream(), node.stream()]
    for ads in both:
        ads.ask(CLUSTER)
        ads.received()
        ads.ack(CLUSTER)
        ads.ask(ENDPOINTS, "blue")
        ads.received()
        ads.ack(ENDPOINTS)
        ads.ask(ROUTES, "iris")
        assert ads.received() == [(ROUTES, ["iris"], [])]
        ads.ack(ROUTES)
    node.offer(snapshot(2, cluster("green"), route("iris", "green")))
    good, silent = both
    assert good.received() == [(CLUSTER, ["green"], [])]
    silent.received()
    good.ask(ENDPOINTS, "green")
    good.ack(CLUSTER)
    good.received()
    good.ack(ENDPOINTS)
    assert good.received() == [(ROUTES, ["iris"], [])]
    good.ack(ROUTES)
    assert good.received() == [(CLUSTER, [], ["blue"])]


def test_closed_streams_are_forgotten() -> None:
    node = Node()
    node.offer(snapshot(1, cluster("blue")))
    keep = node.stream(CLUSTER)
    for _ in range(1_000):
        node.close(node.stream(ROUTES))
    assert len(node.coordination._closed) <= 64
    node.passes(LINGER + 0.1)
    assert not node.coordination._closed
    node.close(keep)
    assert len(node.coordination) == 0


def whole(node: Node, *names: str) -> Conversation:
    """A client that takes all over ADS: these clusters, with their endpoints and a route of the name."""
    ads = node.stream()
    for type_url in (CLUSTER, ENDPOINTS, ROUTES):
        ads.ask(type_url, *(() if type_url == CLUSTER else names))
        ads.received()
        ads.ack(type_url)
    assert ads.events[-1] == Held(1)
    return ads


@VARIANTS
def test_whole_clients_under_one_name_are_independent(variant: str) -> None:
    node = Node(variant)
    node.offer(snapshot(1, cluster("blue"), route("blue", "blue")))
    first, second = whole(node, "blue"), whole(node, "blue")
    # The second reports Held once, when it has everything by itself; the subscriptions of the first do not count.
    assert [e for e in second.events if e == Held(1)] == [Held(1)]
    assert first.core.coordination is second.core.coordination is None
    # Each reports the consequences of its own NACK.
    new = (cluster("blue"), cluster("green"), route("blue", "green"))
    node.offer(snapshot(2, *new))
    second.received()
    second.ack(CLUSTER, error="bad")
    node.offer(snapshot(3, *new, route("other", "blue")))
    assert second.events[-1] == Blocked(3)
    assert node.coordination.next_deadline is None


@VARIANTS
def test_streams_coordinate_while_one_has_asked_for_another_type(variant: str) -> None:
    node = Node(variant)
    node.offer(snapshot(1, cluster("blue"), route("blue", "blue")))
    first, second = whole(node, "blue"), whole(node, "blue")
    secrets = node.stream(SECRET)
    secrets.ask(SECRET, "none")
    assert all(s.core.coordination is node.coordination for s in (first, second, secrets))
    node.close(secrets)
    assert first.core.coordination is node.coordination
    node.passes(LINGER + 0.1)
    assert first.core.coordination is second.core.coordination is None
    # The same with an ADS stream, until it asks for a type that the others have.
    third = node.stream()
    assert first.core.coordination is None
    third.ask(SECRET, "none")
    assert all(s.core.coordination is node.coordination for s in (first, second, third))
    third.ask(CLUSTER)
    assert all(s.core.coordination is None for s in (first, second, third))


def two(variant: str) -> tuple[Conversation, Conversation]:
    """Two streams over ADS: one has asked for clusters, and the other for a route that waits for them."""
    node = Node(variant)
    node.offer(snapshot(1, cluster("blue"), route("iris", "blue")))
    one, other = node.stream(), node.stream()
    one.ask(CLUSTER)
    one.received()
    other.ask(ROUTES, "iris")
    assert other.received() == []
    return one, other


@VARIANTS
def test_types_on_two_ads_streams_wait_for_each_other(variant: str) -> None:
    one, other = two(variant)
    one.ask(ENDPOINTS, "blue")
    one.received()
    one.ack(ENDPOINTS)
    assert other.received() == []
    one.ack(CLUSTER)
    assert len(other.received()) == 1
    other.ack(ROUTES)
    assert Held(1) in one.events
    assert Held(1) in other.events


@VARIANTS
def test_a_route_is_sent_once_its_stream_becomes_independent(variant: str) -> None:
    _, other = two(variant)
    # From now on it subscribes to clusters itself, and names them. So its routes do not wait.
    other.ask(CLUSTER, "none")
    assert other.core.coordination is None
    assert (ROUTES, ["iris"] if variant == "delta" else ["blue"], []) in other.received()

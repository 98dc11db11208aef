"""SotW: the size of responses, versions, and missing names. Transcripts show the conversations."""

from __future__ import annotations

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from google.rpc import code_pb2

from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from controlplane.snapshot import Audience, Resource, Snapshot
from controlplane.xds.context import Context
from controlplane.xds.events import Held, Oversized
from controlplane.xds.sotw import SotwStream
from tests.xds.rig import MIB, many


def test_sotw_splits_a_response_above_the_limit_except_full_states() -> None:
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


def test_a_full_state_above_the_limit_is_reported() -> None:
    stream = SotwStream()
    stream.offer(many(1, 6, size=MIB))
    stream.to_send()
    events = stream.receive(discovery_pb2.DiscoveryRequest(type_url=CLUSTER))
    (data,) = stream.to_send()
    assert events[1:] == [Oversized(CLUSTER, len(data))]
    assert len(data) > 4 * MIB


def test_a_version_depends_on_the_content_and_not_on_the_stream() -> None:
    """Rule 6: it does not depend on the snapshots that the stream was offered before."""
    versions: set[str] = set()
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
        versions.add(response.version_info)
    assert versions == {many(9, 5, first=3).versions[CLUSTER]}


IRIS = Resource.of(LISTENER, "iris", b"1")


def ask_names(*names: str, nonce: str = "") -> discovery_pb2.DiscoveryRequest:
    return discovery_pb2.DiscoveryRequest(type_url=LISTENER, resource_names=names, response_nonce=nonce)


class Newest:
    """The nonce of the newest response."""

    nonce = ""


def answered(stream: SotwStream, newest: Newest) -> list[tuple[int, list[str]]]:
    """Return for each response the number of its resources, and the names that it lists as missing."""
    counts = []
    for data in stream.to_send():
        response = discovery_pb2.DiscoveryResponse.FromString(data)
        assert all(e.error_detail.code == code_pb2.NOT_FOUND for e in response.resource_errors)
        missing = [e.resource_name.name for e in response.resource_errors]
        newest.nonce = response.nonce
        counts.append((len(response.resources), missing))
    return counts


def test_a_missing_name_is_listed_once() -> None:
    stream, newest = SotwStream(), Newest()
    stream.offer(Snapshot.of(1, Audience(), [IRIS]))
    stream.receive(ask_names("rose", "wine"))
    assert answered(stream, newest) == [(0, ["rose", "wine"])]
    stream.receive(ask_names("rose", "wine", nonce=newest.nonce))
    assert answered(stream, newest) == []
    stream.receive(ask_names("iris", "rose", "wine", nonce=newest.nonce))
    assert answered(stream, newest) == [(1, [])]


def test_a_missing_name_that_appears_is_sent_and_a_removal_is_no_error() -> None:
    stream, newest = SotwStream(), Newest()
    stream.offer(Snapshot.of(1, Audience(), []))
    stream.receive(ask_names("iris"))
    assert answered(stream, newest) == [(0, ["iris"])]
    stream.receive(ask_names("iris", nonce=newest.nonce))
    stream.offer(Snapshot.of(2, Audience(), [IRIS]))
    assert answered(stream, newest) == [(1, [])]
    stream.receive(ask_names("iris", nonce=newest.nonce))
    stream.offer(Snapshot.of(3, Audience(), []))
    assert answered(stream, newest) == [(0, [])]


def test_no_name_is_missing_from_a_wildcard() -> None:
    stream, newest = SotwStream(), Newest()
    stream.offer(Snapshot.of(1, Audience(), []))
    stream.receive(ask_names())
    assert answered(stream, newest) == [(0, [])]


def test_a_full_state_between_two_snapshots_is_known_to_the_index() -> None:
    """The client may come back with its version, which no snapshot has. It is no version of another history."""
    context = Context()
    stream = SotwStream(context=context)
    old, new = (
        Snapshot.of(
            revision,
            Audience(),
            [Resource.of(CLUSTER, name, b"cluster"), Resource.of(ROUTES, "r", name.encode(), [(CLUSTER, name)])],
        )
        for revision, name in ((1, "blue"), (2, "green"))
    )
    context.versions.add(old, 1.0)
    context.versions.add(new, 2.0)
    stream.offer(old)
    stream.receive(discovery_pb2.DiscoveryRequest(type_url=CLUSTER))
    stream.receive(discovery_pb2.DiscoveryRequest(type_url=ROUTES, resource_names=["r"]))
    while sent := [discovery_pb2.DiscoveryResponse.FromString(data) for data in stream.to_send()]:
        for response in sent:
            names = ["r"] if response.type_url == ROUTES else []
            stream.receive(
                discovery_pb2.DiscoveryRequest(type_url=response.type_url, resource_names=names, response_nonce=response.nonce)
            )
    stream.offer(new)
    (data,) = stream.to_send()
    mixed = discovery_pb2.DiscoveryResponse.FromString(data)
    assert mixed.version_info not in (old.versions[CLUSTER], new.versions[CLUSTER])
    found = context.versions.find(CLUSTER, mixed.version_info)
    assert found is not None
    assert found.keys() == {"blue", "green"}


class Away:
    """An Envoy that was served revision 1, with a route to blue, and comes back when blue is replaced by green and removed."""

    def __init__(self, *, indexed: bool = True, kept: bool = True) -> None:
        self.context = Context()
        self.before = revision_of(1, "blue")
        self.now = revision_of(2, "green")
        if indexed:
            self.context.versions.add(self.before, 1.0)
        if kept:
            self.context.versions.removed_clusters.add([self.before.resources[CLUSTER]["blue"]])
        self.stream = SotwStream(context=self.context)
        self.stream.offer(self.now)
        self.nonces: dict[str, str] = {}
        self.says(CLUSTER, version=self.before.versions[CLUSTER])

    def says(self, type_url: str, *names: str, version: str = "") -> None:
        nonce = self.nonces.get(type_url, "")
        self.stream.receive(
            discovery_pb2.DiscoveryRequest(type_url=type_url, resource_names=names, version_info=version, response_nonce=nonce)
        )

    def gets(self) -> list[tuple[str, list[str]]]:
        """Return each response: the type, and the resources as `NAME CONTENT`."""
        got = []
        for data in self.stream.to_send():
            response = discovery_pb2.DiscoveryResponse.FromString(data)
            self.nonces[response.type_url] = response.nonce
            got.append((response.type_url, sorted(r.value.decode() for r in response.resources)))
        return got


def revision_of(number: int, color: str) -> Snapshot:
    cluster = Resource.of(CLUSTER, color, color.encode())
    other = Resource.of(CLUSTER, "other", b"other")
    route = Resource.of(ROUTES, "iris", f"to {color}".encode(), {(CLUSTER, color)})
    return Snapshot.of(number, Audience(), [cluster, other, route])


def test_an_envoy_that_was_away_keeps_the_removed_cluster_until_its_routes_are_acked() -> None:
    away = Away()
    assert away.gets() == [(CLUSTER, ["blue", "green", "other"])]
    away.says(ROUTES, "iris", version=away.before.versions[ROUTES])
    assert away.gets() == []  # the new route waits for green
    away.says(CLUSTER)
    assert away.gets() == [(ROUTES, ["to green"])]
    away.stream.assume_complete()
    assert away.gets() == []  # blue stays as long as the old route may be there
    away.says(ROUTES, "iris")
    assert away.gets() == [(CLUSTER, ["green", "other"])]


def test_the_removed_cluster_goes_if_the_envoy_that_was_away_has_no_routes() -> None:
    away = Away()
    away.gets()
    away.says(CLUSTER)
    assert away.gets() == []  # it may ask for routes next
    away.stream.assume_complete()
    assert away.gets() == [(CLUSTER, ["green", "other"])]


def test_an_envoy_that_was_away_gets_nothing_if_only_a_cluster_was_removed_until_its_routes_are_acked() -> None:
    away = Away()
    away.now = Snapshot.of(
        3, Audience(), [away.before.resources[CLUSTER]["other"], Resource.of(ROUTES, "iris", b"to nothing")]
    )
    away.stream = SotwStream(context=away.context)
    away.stream.offer(away.now)
    away.says(CLUSTER, version=away.before.versions[CLUSTER])
    away.says(ROUTES, "iris", version=away.before.versions[ROUTES])
    assert away.gets() == [(ROUTES, ["to nothing"])]
    away.stream.assume_complete()
    assert away.gets() == []
    away.says(ROUTES, "iris")
    assert away.gets() == [(CLUSTER, ["other"])]


@pytest.mark.parametrize(("indexed", "kept"), [(False, True), (True, False)])
def test_a_cluster_that_is_not_known_is_removed_at_once(indexed: bool, kept: bool) -> None:
    """Its version is in the index, but its content is not kept any more, or the other way round."""
    assert Away(indexed=indexed, kept=kept).gets() == [(CLUSTER, ["green", "other"])]

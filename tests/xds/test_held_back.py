"""A client of another history is held back while it would lose something, in both variants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from controlplane.envoy_types import CLUSTER, ROUTES
from controlplane.snapshot import Audience, Resource, Snapshot
from controlplane.versions import VersionIndex
from controlplane.xds.context import Context
from controlplane.xds.delta import DeltaStream
from controlplane.xds.events import Claimed, HeldBack
from controlplane.xds.held_back import HoldBack
from controlplane.xds.memo import Core, MemoisedStream, TransitionMemo
from controlplane.xds.sotw import SotwStream


def snapshot(revision: int, *contents: str) -> Snapshot:
    """Return a snapshot with clusters `NAME=CONTENT`."""
    pairs = [c.partition("=")[::2] for c in contents]
    return Snapshot.of(revision, Audience(), [Resource.of(CLUSTER, n, c.encode()) for n, c in pairs])


# The other history, and this one.
OTHER, ONE, TWO, SAME = snapshot(7, "a=1", "b=1"), snapshot(1, "a=2"), snapshot(2, "a=3"), snapshot(3, "a=1", "b=1")
LOST = HeldBack(1, ((CLUSTER, "b"),))


def stream(kind: type[Core], index: VersionIndex | None = None, *, vouches: bool = True) -> MemoisedStream:
    """Return a stream at a server whose index has the snapshots of this history."""
    if index is None:
        index = VersionIndex()
        index.add(ONE, 1.0)
    index.vouches = vouches
    return MemoisedStream(kind, memo=TransitionMemo(Context(versions=index)))


def returning(kind: type[Core], held: Snapshot) -> Any:
    """Return the first request of a client that holds the clusters of a snapshot."""
    node = base_pb2.Node(id="edge-1")
    if kind is SotwStream:
        return discovery_pb2.DiscoveryRequest(type_url=CLUSTER, version_info=held.versions[CLUSTER], node=node)
    versions = {n: r.version for n, r in held.resources[CLUSTER].items()}
    return discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER, initial_resource_versions=versions, node=node)


def held_back(events: Any) -> list[HeldBack]:
    return [e for e in events if isinstance(e, HeldBack)]


BOTH = pytest.mark.parametrize(
    ("kind", "lost"), [(DeltaStream, LOST), (SotwStream, HeldBack(1, unknown=True))], ids=["delta", "sotw"]
)


@BOTH
@pytest.mark.parametrize("offered_first", [True, False])
def test_a_client_that_would_lose_something_is_sent_nothing_until_it_would_lose_nothing(
    kind: type[Core], lost: HeldBack, offered_first: bool
) -> None:
    core = stream(kind)
    first = core.offer(ONE) if offered_first else []
    events = [*first, *core.receive(returning(kind, OTHER))]
    events += core.offer(ONE)
    assert held_back(events) == [lost]
    assert held_back([*core.assume_complete(), *core.reconsider()]) == []
    core.heartbeat()
    assert core.to_send() == []
    # Another change goes on without the client.
    assert held_back(core.offer(TWO)) == [replace(lost, revision=2)]
    assert core.to_send() == []
    assert held_back(core.offer(SAME)) == [HeldBack(0)]
    assert core.to_send() == []  # the client has all of it
    core.offer(snapshot(4, "a=4", "b=1"))
    assert core.to_send()


@BOTH
def test_a_client_whose_version_the_index_learns_later_is_served(kind: type[Core], lost: HeldBack) -> None:
    index = VersionIndex()
    index.add(ONE, 1.0)
    core = stream(kind, index)
    core.offer(ONE)
    assert held_back(core.receive(returning(kind, OTHER))) == [lost]
    index.add(OTHER, 1.0)
    assert held_back(core.offer(TWO)) == [HeldBack(0)]
    assert core.to_send()


@BOTH
def test_an_adopted_client_is_sent_the_newest_revision(kind: type[Core], lost: HeldBack) -> None:
    core = stream(kind)
    assert list(core.adopt()) == []
    core.offer(ONE)
    core.receive(returning(kind, OTHER))
    assert core.to_send() == []
    assert held_back(core.adopt()) == [HeldBack(0)]
    (data,) = core.to_send()
    if kind is DeltaStream:
        response = discovery_pb2.DeltaDiscoveryResponse.FromString(data)
        assert [r.name for r in response.resources] == ["a"]
    assert list(core.adopt()) == []
    assert core.to_send() == []


def test_a_client_that_loses_nothing_is_served() -> None:
    core = stream(DeltaStream)
    core.offer(ONE)
    assert held_back(core.receive(returning(DeltaStream, snapshot(7, "a=9")))) == []
    assert core.to_send()


@BOTH
def test_a_client_of_this_history_is_served_whatever_it_loses(kind: type[Core], lost: HeldBack) -> None:
    index = VersionIndex()
    for known in (OTHER, ONE):
        index.add(known, 1.0)
    core = stream(kind, index)
    core.offer(ONE)
    assert held_back(core.receive(returning(kind, OTHER))) == []
    assert core.to_send()


@BOTH
def test_an_index_that_does_not_vouch_holds_nobody_back(kind: type[Core], lost: HeldBack) -> None:
    core = stream(kind, vouches=False)
    core.offer(ONE)
    assert held_back(core.receive(returning(kind, OTHER))) == []
    assert core.to_send()


@BOTH
def test_the_first_revision_was_checked_against_the_claims_of_a_connected_client(kind: type[Core], lost: HeldBack) -> None:
    core = stream(kind)
    core.offer(snapshot(0))
    core.receive(returning(kind, OTHER))
    assert held_back(core.offer(ONE)) == []
    assert core.to_send()


def vouching() -> VersionIndex:
    index = VersionIndex()
    index.vouches = True
    return index


def test_what_a_client_loses_is_collected_over_its_types() -> None:
    hold, index = HoldBack(), vouching()
    served, newer = (Snapshot.of(r, Audience(), [Resource.of(ROUTES, "a", b"1")]) for r in (3, 4))
    # A known version that loses something is no reason by itself; a foreign one of another type makes it one.
    known, foreign = Claimed(CLUSTER, frozenset("x")), Claimed(ROUTES, frozenset("a"), "00ff")
    assert hold.judge(known, served, index) == [known]
    assert hold.judge(foreign, served, index) == [foreign, HeldBack(3, ((CLUSTER, "x"),))]
    assert hold.judge(foreign, served, index) == [foreign]
    assert hold.fork().active
    assert hold.offer(served, index) == []
    assert hold.offer(newer, index) == [HeldBack(4, ((CLUSTER, "x"),))]
    assert hold.adopt() == [HeldBack(0)]
    assert hold.adopt() == []
    assert not hold.active


def test_many_names_are_counted() -> None:
    names = frozenset(f"c{i:03}" for i in range(150))
    (_, event) = HoldBack().judge(Claimed(CLUSTER, names, "00ff"), ONE, vouching())
    assert isinstance(event, HeldBack)
    assert (len(event.lost), event.omitted) == (100, 50)

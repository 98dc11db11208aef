"""Claims: the resources that a node says it holds."""

from __future__ import annotations

from controlplane.envoy_types import CLUSTER, LISTENER, ROUTES
from controlplane.fleet import RELEASED_NODES, Claims, Fleet, NodeState
from controlplane.snapshot import Audience, Resource, Snapshot
from controlplane.versions import VersionIndex
from controlplane.versions.index import TRUSTED_AFTER
from controlplane.xds.events import Claimed, Held, Refused, Settled, StreamClosed
from tests.fleet.clients import connect

A_B = frozenset(("a", "b"))


def test_a_node_claims_what_its_first_requests_say_until_it_has_acked_a_revision() -> None:
    fleet = Fleet()
    connect(fleet, 1)
    node = fleet.nodes["edge-1"]
    assert node.claims is None
    fleet.apply(1, Claimed(CLUSTER, A_B), 101.0)
    fleet.apply(1, Claimed(LISTENER, None, "v7", "v7"), 102.0)
    claims = node.claims
    assert claims == Claims(None, A_B, unknown_versions=((LISTENER, "v7"),), held_versions=frozenset(((LISTENER, "v7"),)))
    assert claims is not None
    assert claims.is_unknown
    assert node.last_seen == 102.0
    fleet.apply(1, Held(1), 103.0)
    assert fleet.nodes["edge-1"].claims is None


def test_a_node_that_refuses_something_claims_nothing_once_it_has_acked_the_rest() -> None:
    fleet = Fleet()
    connect(fleet, 1)
    fleet.apply(1, Claimed(CLUSTER, A_B), 101.0)
    fleet.apply(1, Refused(CLUSTER, ("a",), "no", 1), 102.0)
    assert fleet.nodes["edge-1"].claims == Claims(clusters=A_B)
    fleet.apply(1, Settled(2, 1), 103.0)
    assert fleet.nodes["edge-1"].claims is None


def test_the_claims_of_several_streams_are_one() -> None:
    fleet = Fleet()
    connect(fleet, 1)
    connect(fleet, 2)
    node = fleet.nodes["edge-1"]
    fleet.apply(1, Claimed(CLUSTER, frozenset("a")), 101.0)
    fleet.apply(2, Claimed(CLUSTER, frozenset("b")), 101.0)
    fleet.apply(2, Claimed(ROUTES, frozenset("r")), 101.0)
    assert node.claims == Claims(clusters=A_B, routes=frozenset("r"))
    assert not node.claims.is_unknown
    fleet.apply(1, Claimed(CLUSTER, None, version="7"), 102.0)
    assert node.claims.clusters is None
    fleet.apply(2, StreamClosed(), 103.0)
    assert node.claims == Claims(clusters=None, held_versions=frozenset(((CLUSTER, "7"),)))


def test_a_node_is_not_in_sync_while_there_is_no_revision() -> None:
    fleet = Fleet()
    connect(fleet, 1)
    assert fleet.counts[NodeState.BEHIND] == 1
    fleet.publish(1)
    fleet.apply(1, Held(1), 101.0)
    assert (fleet.counts[NodeState.BEHIND], fleet.counts[NodeState.SYNCED]) == (0, 1)


def test_a_node_with_a_version_of_another_history_is_remembered() -> None:
    fleet = Fleet()
    for stream, node in ((1, "edge-1"), (2, "edge-2"), (3, "edge-3")):
        connect(fleet, stream, node)
    fleet.apply(1, Claimed(CLUSTER, A_B), 101.0)
    fleet.apply(2, Claimed(CLUSTER, A_B, "v7"), 102.0)
    fleet.apply(3, Claimed(CLUSTER, A_B, "v7"), 103.0)
    fleet.apply(2, Claimed(LISTENER, A_B, "v7"), 104.0)
    assert list(fleet.foreign.items()) == [("edge-3", 103.0), ("edge-2", 104.0)]
    fleet.apply(2, Held(1), 105.0)
    assert "edge-2" in fleet.foreign
    fleet.apply(9, Claimed(CLUSTER, A_B, "v7"), 106.0)  # of no open stream
    assert len(fleet.foreign) == 2
    assert len(fleet.foreign) <= RELEASED_NODES


def test_a_version_that_a_worker_does_not_know_yet_is_not_foreign() -> None:
    index = VersionIndex()
    snapshot = Snapshot.of(1, Audience(), [Resource.of(CLUSTER, "a", b"a")])
    index.announced.add(snapshot)
    fleet = Fleet(index)
    connect(fleet, 1)
    fleet.apply(1, Claimed(CLUSTER, None, snapshot.versions[CLUSTER]), 100.0)
    fleet.apply(1, Claimed(CLUSTER, A_B, snapshot.resources[CLUSTER]["a"].version), 100.0)
    assert not fleet.foreign


def test_an_unknown_version_is_foreign_only_if_the_index_is_trusted() -> None:
    index = VersionIndex()
    index.known_since = 1_000.0
    fleet = Fleet(index)
    connect(fleet, 1)
    fleet.apply(1, Claimed(CLUSTER, A_B, "v7"), 1_000.0 + TRUSTED_AFTER - 1)
    assert not fleet.foreign
    fleet.apply(1, Claimed(CLUSTER, A_B, "v7"), 1_000.0 + TRUSTED_AFTER)
    assert list(fleet.foreign) == ["edge-1"]

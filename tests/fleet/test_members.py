"""Known, gone and released nodes: when a node counts, when it is released, and when it is saved."""

import pytest

from controlplane.domain import Gateway, Locality, NodeSelector
from controlplane.fleet import ExpectedNodes, Fleet, NodeState, ProgressState, RememberedNode, members
from controlplane.fleet.membership import remembered
from controlplane.snapshot import Audience, Client
from controlplane.xds.events import AudienceAssigned, Held, StreamClosed
from tests.fleet.clients import connect, refusal

EDGE = Gateway("edge", 80, absent_after=10.0)
CORE = Gateway("core", 81, nodes=NodeSelector(clusters=("core",)), absent_after=50.0)
GATEWAYS = {"edge": EDGE, "core": CORE}


def fleet_of(*ids: str, now: float = 100.0) -> Fleet:
    """Return a fleet whose nodes all hold revision 1. Node `ids[i]` has stream i."""
    fleet = Fleet()
    fleet.members.set_gateways({"edge": EDGE})
    for stream, node_id in enumerate(ids):
        connect(fleet, stream, node_id, now)
        fleet.apply(stream, AudienceAssigned(Audience(("edge",))), now)
        fleet.apply(stream, Held(1), now)
    return fleet


def stored(node_id: str, hour: int = 0, cluster: str = "edge") -> RememberedNode:
    return RememberedNode(node_id, cluster, Locality(), Client.ENVOY, 50, hour)


def forms(fleet: Fleet, now: float) -> dict[str, RememberedNode | None]:
    """Return what is to be stored of the unsaved nodes; None: the record is to be deleted."""
    nodes = {i: fleet.nodes.get(i) for i in fleet.members.unsaved}
    return {i: remembered(node, now) if node is not None and node.known else None for i, node in nodes.items()}


def test_a_node_is_known_from_its_first_ack_on() -> None:
    fleet = Fleet()
    connect(fleet, 1)
    node = fleet.nodes["edge-1"]
    assert (node.known, fleet.members.known, fleet.counted) == (False, 0, 1)
    fleet.apply(1, refusal(1), 101)
    assert not node.known
    fleet.apply(1, Held(2), 102)
    assert (node.known, fleet.members.known, fleet.counted) == (True, 1, 1)


def test_a_gone_node_counts_until_the_time_of_its_gateway_has_passed() -> None:
    fleet = fleet_of("a", "b")
    fleet.publish(2)
    fleet.apply(0, StreamClosed(), 105)
    fleet.apply(1, Held(2), 106)
    node = fleet.nodes["a"]
    assert (fleet.state_of(node), node.progress(2), node.progress(1)) == (
        NodeState.GONE,
        ProgressState.GONE,
        ProgressState.HOLDING,
    )
    assert (fleet.is_done(2), fleet.is_done(2, connected_only=True), fleet.counted) == (False, True, 2)
    assert fleet.members.next_release == 115
    assert fleet.members.release(114.9) == []
    assert fleet.members.release(115) == [node]
    assert (fleet.state_of(node), node.progress(2), node.known) == (NodeState.RELEASED, ProgressState.RELEASED, False)
    assert [fleet.is_done(2), fleet.counted, fleet.members.next_release] == [True, 1, None]


def test_a_gone_node_that_held_the_revision_does_not_delay_done() -> None:
    fleet = fleet_of("a", "b")
    fleet.apply(0, StreamClosed(), 105)
    assert fleet.is_done(1)


def test_a_node_that_returns_is_not_released() -> None:
    fleet = fleet_of("a")
    fleet.apply(0, StreamClosed(), 105)
    connect(fleet, 9, "a", now=110)
    node = fleet.nodes["a"]
    assert [node.gone_since, node.release_time, fleet.members.next_release] == [None, None, None]
    assert fleet.members.release(1_000) == []
    assert (node.known, fleet.is_done(1)) == (True, False)


def test_a_released_node_that_returns_is_known_again_after_an_ack() -> None:
    fleet = fleet_of("a")
    fleet.apply(0, StreamClosed(), 105)
    fleet.members.release(200)
    connect(fleet, 9, "a", now=210)
    assert not fleet.nodes["a"].known
    fleet.apply(9, Held(1), 211)
    assert fleet.nodes["a"].known
    assert fleet.counts == {**dict.fromkeys(NodeState, 0), NodeState.SYNCED: 1}


def test_a_changed_gateway_changes_when_a_gone_node_is_released() -> None:
    fleet = fleet_of("a")
    fleet.apply(0, StreamClosed(), 105)
    fleet.members.set_gateways({"edge": Gateway("edge", 80, absent_after=1.0)})
    assert fleet.members.next_release == 106
    fleet.members.set_gateways({})
    assert fleet.members.next_release == 105 + 24 * 3600
    assert fleet.nodes["a"].gateways == ()


def test_remembered_nodes_are_gone_until_they_connect() -> None:
    fleet = Fleet()
    fleet.members.set_gateways(GATEWAYS)
    fleet.publish(7)
    now = 10 * 3600.0
    fleet.members.restore([stored("a", 9), stored("b", 6), stored("c", 9, "core")], now)
    nodes = fleet.nodes
    assert [(n.id, n.gateways, n.gone_since) for n in nodes.values()] == [
        ("a", ("edge",), now),
        ("b", ("edge",), now - 2 * 3600),
        ("c", ("core", "edge"), now),
    ]
    assert [nodes["a"].first_seen, nodes["a"].last_seen, nodes["a"].held_revision] == [50, 9 * 3600, 0]
    assert (fleet.counted, fleet.counts[NodeState.GONE], fleet.is_done(7), fleet.is_done(7, connected_only=True)) == (
        3,
        3,
        False,
        True,
    )
    assert [n.id for n in fleet.members.release(now)] == ["b"]
    assert [n.id for n in fleet.members.release(now + 49)] == ["a"]
    connect(fleet, 1, "c", now + 49)
    assert (nodes["c"].restored, nodes["c"].first_seen, fleet.state_of(nodes["c"])) == (False, 50, NodeState.BEHIND)
    fleet.apply(1, Held(7), now + 50)
    assert fleet.is_done(7)


def test_a_clock_that_was_ahead_releases_nobody() -> None:
    fleet = Fleet()
    fleet.members.restore([stored("a", 10), stored("b", 500)], 10 * 3600.0)
    assert [n.gone_since for n in fleet.nodes.values()] == [10 * 3600.0] * 2


def test_changes_of_a_description_are_to_be_saved_and_an_ack_is_not() -> None:
    fleet = fleet_of("a", "b")
    unsaved = fleet.members.unsaved
    assert forms(fleet, 3_700.0) == {
        "a": RememberedNode("a", "edge", Locality(), Client.ENVOY, 100, 1),
        "b": RememberedNode("b", "edge", Locality(), Client.ENVOY, 100, 1),
    }
    unsaved.clear()
    fleet.publish(2)
    fleet.apply(0, Held(2), 101)
    fleet.apply(1, Held(2), 101)
    fleet.apply(1, refusal(3), 101)
    assert not unsaved
    fleet.apply(0, StreamClosed(), 102)
    assert list(unsaved) == ["a"]
    unsaved.clear()
    connect(fleet, 9, "a", now=103)
    assert list(unsaved) == ["a"]
    unsaved.clear()
    fleet.apply(1, StreamClosed(), 104)
    fleet.members.release(1_000)
    assert forms(fleet, 1_000) == {"b": None}
    unsaved.clear()
    fleet.members.note_hour()
    assert list(unsaved) == ["a"]


def test_a_node_that_never_acked_is_not_saved() -> None:
    fleet = Fleet()
    connect(fleet, 1)
    fleet.apply(1, StreamClosed(), 101)
    assert not fleet.members.unsaved
    assert fleet.counts[NodeState.RELEASED] == 1


def test_a_known_node_is_never_replaced_by_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MAX_REMEMBERED", 2)
    fleet = fleet_of("a", "b", "c")
    assert ([n.known for n in fleet.nodes.values()], fleet.members.not_remembered) == ([True, True, False], 1)
    assert fleet.counted == 3
    fleet.apply(0, StreamClosed(), 101)
    assert (fleet.nodes["a"].known, fleet.members.known) == (True, 2)
    # A node that is not remembered does not count once it is away.
    fleet.publish(2)
    fleet.apply(2, StreamClosed(), 102)
    assert (fleet.state_of(fleet.nodes["c"]), fleet.counted, fleet.members.not_remembered) == (NodeState.RELEASED, 2, 0)
    fleet.members.forget(["a"])
    connect(fleet, 9, "c", now=103)
    fleet.apply(9, Held(2), 104)
    assert (fleet.nodes["c"].known, fleet.members.not_remembered) == (True, 0)


def test_a_forgotten_node_is_gone_at_once() -> None:
    fleet = fleet_of("a", "b", "c")
    fleet.apply(0, StreamClosed(), 101)
    fleet.apply(1, StreamClosed(), 101)
    fleet.members.release(1_000)
    connect(fleet, 5, "b", now=1_001)
    fleet.apply(5, Held(1), 1_001)
    fleet.apply(5, StreamClosed(), 1_002)
    fleet.members.unsaved.clear()
    fleet.members.forget(["a", "b", "c", "none"])
    assert list(fleet.nodes) == ["c"]
    assert forms(fleet, 1_003) == {"b": None}
    assert [fleet.members.known, fleet.counted, fleet.is_done(1), fleet.members.next_release] == [1, 1, True, None]
    assert fleet.counts == {**dict.fromkeys(NodeState, 0), NodeState.SYNCED: 1}


def test_a_revision_is_not_done_while_a_gateway_has_too_few_nodes() -> None:
    fleet = fleet_of("a", "b")
    fleet.members.set_gateways({"edge": Gateway("edge", 80, expected_nodes=3), "core": CORE})
    assert fleet.members.expected(fleet.audiences) == [ExpectedNodes("edge", 3, 2)]
    assert (fleet.is_done(1), fleet.is_done(1, connected_only=True)) == (False, True)
    fleet.apply(0, StreamClosed(), 101)
    connect(fleet, 9, "c")
    fleet.apply(9, AudienceAssigned(Audience(("core", "edge"))), 102)
    fleet.apply(9, Held(1), 102)
    assert fleet.members.expected(fleet.audiences) == [ExpectedNodes("edge", 3, 3)]
    assert fleet.is_done(1)


def test_a_node_that_comes_and_goes_does_not_fill_the_memory() -> None:
    fleet = fleet_of("a")
    fleet.apply(0, StreamClosed(), 100)
    for stream in range(1, 1_000):
        connect(fleet, stream, "a", now=100 + stream)
        fleet.apply(stream, StreamClosed(), 100.5 + stream)
    assert len(fleet.members._due) < 100
    assert fleet.members.next_release == 100.5 + 999 + 10

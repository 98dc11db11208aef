"""The nodes that count: what is stored of a node, how long it may be away, and which gateways select it."""

import pytest

from controlplane.domain import Gateway, Locality, NodeSelector
from controlplane.fleet import RememberedNode
from controlplane.fleet.membership import absence_at_start, absence_limit, can_be_remembered, remembered, selecting
from controlplane.fleet.node import Node
from controlplane.snapshot import Audience, Client

HOUR = 3600.0
GATEWAYS = {
    "day": Gateway("day", 80),
    "pods": Gateway("pods", 81, nodes=NodeSelector(metadata={"kind": "pod"}), ephemeral=True),
    "short": Gateway("short", 82, nodes=NodeSelector(clusters=("edge",)), absent_after=7.0),
}


def test_a_remembered_node_has_place_and_times_and_nothing_that_it_holds() -> None:
    node = Node("edge-1", "edge", {"kind": "pod"}, locality=Locality("eu"), audience=Audience(("day",), Client.GRPC))
    node.first_seen = 5 * HOUR + 1.5
    stored = RememberedNode("edge-1", "edge", Locality("eu"), Client.GRPC, 18_001, 9)
    assert remembered(node, 9.9 * HOUR) == stored
    # A node that is away was last seen when its last stream was closed.
    node.gone_since = 7.2 * HOUR
    assert remembered(node, 9.9 * HOUR).last_seen_hour == 7


@pytest.mark.parametrize(
    ("node", "fits"),
    [
        (Node("a"), True),
        (Node(""), False),
        (Node("ü" * 256), True),
        (Node("ü" * 257), False),
        (Node("a", "c" * 1_000, locality=Locality("r" * 24)), True),
        (Node("a", "c" * 1_000, locality=Locality("r" * 24, "z")), False),
    ],
)
def test_a_node_with_a_huge_id_or_place_is_not_remembered(node: Node, fits: bool) -> None:
    assert can_be_remembered(node) is fits


@pytest.mark.parametrize(("last_seen", "newest", "hours"), [(9, 9, 0), (8, 9, 0), (7, 9, 1), (0, 9, 8), (10, 9, 0)])
def test_the_time_in_which_no_control_plane_ran_is_no_absence(last_seen: int, newest: int, hours: int) -> None:
    assert absence_at_start(last_seen, newest) == hours * HOUR


def test_the_gateways_of_a_node_follow_from_its_description() -> None:
    node = Node("a", "core", {"kind": "pod"})
    assert selecting(node, GATEWAYS) == ("day", "pods")
    assert selecting(Node("a", "edge"), GATEWAYS) == ("day", "short")


def test_a_gateway_that_could_select_a_node_of_unknown_metadata_counts() -> None:
    node = Node("a", "core", restored=True)
    assert selecting(node, GATEWAYS) == ("day", "pods")


def test_a_node_is_released_after_the_longest_time_of_its_gateways() -> None:
    assert absence_limit(("short",), GATEWAYS) == 7
    assert absence_limit(("pods", "short"), GATEWAYS) == 300
    assert absence_limit(("day", "pods", "short"), GATEWAYS) == 24 * HOUR
    assert absence_limit((), GATEWAYS) == absence_limit(("deleted",), GATEWAYS) == 24 * HOUR

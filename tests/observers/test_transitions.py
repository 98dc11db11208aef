"""Transitions of nodes: what each holds before a change, and what it would hold after it."""

import pytest

from controlplane.compiler.reach import NOTHING_HELD, Claim
from controlplane.domain import Locality
from controlplane.envoy_types import ROUTES
from controlplane.fleet import Fleet
from controlplane.fleet.membership import RememberedNode
from controlplane.observers.folds import FleetFold
from controlplane.observers.transitions import RETURN_SECONDS, NodeTransitions
from controlplane.reconciler.report import EventDispatcher
from controlplane.snapshot import Audience, Client
from controlplane.xds.events import Claimed, Held, HeldBack, Refused, StreamClosed
from tests.events import AT_EDGE, EDGE, INNER, LISTENER, connect, head

BOTH = Audience(("edge", "inner"))


@pytest.fixture
def transitions_and_events() -> tuple[NodeTransitions, EventDispatcher]:
    fleet = Fleet()
    transitions = NodeTransitions(fleet)
    return transitions, EventDispatcher(fleet, [FleetFold(fleet), transitions])


def test_transitions_compare_the_audiences_of_each_node_under_two_states(
    transitions_and_events: tuple[NodeTransitions, EventDispatcher],
) -> None:
    transitions, events = transitions_and_events
    before, after = head(1, EDGE), head(2, EDGE, INNER)
    events.publish(before)
    for stream, (node, zone) in enumerate([("a", "in"), ("b", "out"), ("c", "out"), ("d", "in")]):
        connect(events, stream, node, zone, AT_EDGE)
        events.report(stream, Held(1))
    events.report(3, StreamClosed())
    assert set(transitions.transitions(before, before.state)) == {(AT_EDGE, AT_EDGE)}
    moved, stayed = (AT_EDGE, BOTH), (AT_EDGE, AT_EDGE)
    assert set(transitions.transitions(before, after.state)) == {moved, stayed}
    assert transitions.nodes_of([moved], before, after.state) == {moved: ["a"]}
    assert transitions.nodes_of([moved, stayed], before, after.state) == {moved: ["a"], stayed: ["b", "c"]}
    assert transitions.nodes_of([(BOTH, AT_EDGE)], before, after.state) == {}
    assert transitions.nodes_of([stayed], before, before.state) == {stayed: ["a", "b", "c"]}


def test_after_a_start_the_remembered_nodes_make_transitions_until_they_should_be_back() -> None:
    now, fleet = [36_000.0], Fleet()
    transitions = NodeTransitions(fleet, lambda: now[0])
    events = EventDispatcher(fleet, [FleetFold(fleet), transitions])
    before, after = head(1, EDGE), head(2)
    events.publish(before)
    remembered = [("a", Client.ENVOY, 10), ("b", Client.GRPC, 10), ("away for long", Client.ENVOY, 7)]
    fleet.members.restore((RememberedNode(i, "edge", Locality(), client, 1, hour) for i, client, hour in remembered), now[0])
    envoys, programs = AT_EDGE, Audience(("edge",), Client.GRPC)
    cut = {(envoys, Audience()): ["a"], (programs, Audience((), Client.GRPC)): ["b"]}
    assert set(transitions.transitions(before, before.state)) == {(envoys, envoys), (programs, programs)}
    assert set(transitions.transitions(before, after.state)) == cut.keys()
    assert transitions.nodes_of(cut, before, after.state) == cut
    # Nothing is sent to them.
    assert transitions.by_audience(before.state) == {}
    connect(events, 1, "a", audience=AT_EDGE)
    assert transitions.nodes_of(cut, before, after.state) == cut
    events.report(1, StreamClosed())
    del cut[envoys, Audience()]
    assert transitions.nodes_of(transitions.transitions(before, after.state), before, after.state) == cut
    fleet.members.forget(["b"])
    assert transitions.transitions(before, after.state) == set()
    fleet.members.restore([RememberedNode("c", "edge", Locality(), Client.ENVOY, 1, 10)], now[0])
    assert len(transitions.transitions(before, after.state)) == 1
    now[0] += RETURN_SECONDS
    assert transitions.transitions(before, after.state) == set()


def test_without_a_revision_a_node_holds_what_it_claims(
    transitions_and_events: tuple[NodeTransitions, EventDispatcher],
) -> None:
    transitions, events = transitions_and_events
    after = head(1, EDGE)
    connect(events, 1, "new")
    connect(events, 2, "old")
    events.report(2, Claimed(LISTENER, frozenset({"0.0.0.0:80"})))
    connect(events, 3, "unknown")
    events.report(3, Claimed(LISTENER, None, "00ff", "00ff"))
    old = Claim(frozenset({"0.0.0.0:80"}), frozenset(), frozenset())
    unknown = Claim(None, frozenset(), frozenset(), frozenset({(LISTENER, "00ff")}))
    expected = {(NOTHING_HELD, AT_EDGE): ["new"], (old, AT_EDGE): ["old"], (unknown, AT_EDGE): ["unknown"]}
    assert set(transitions.transitions(head(0), after.state)) == expected.keys()
    assert transitions.nodes_of(expected, head(0), after.state) == expected


def test_only_the_listeners_that_a_refusal_names_are_refused(
    transitions_and_events: tuple[NodeTransitions, EventDispatcher],
) -> None:
    transitions, events = transitions_and_events
    events.publish(head(2, EDGE))
    connect(events, 1, "a", audience=AT_EDGE)
    assert transitions.refused_listeners() == {}
    names = ("0.0.0.0:80", "0.0.0.0:8080", "10.0.0.0:80", "[::1]:80")
    message = "Error adding/updating listener(s) 0.0.0.0:8080: cannot bind '0.0.0.0:8080'\n[::1]:80: Address already in use"
    events.report(1, Refused(LISTENER, names, message, 2))
    events.report(1, Refused(ROUTES, ("iris",), "iris: no", 2))
    assert transitions.refused_listeners() == {"a": [(2, frozenset({"0.0.0.0:8080", "[::1]:80"}))]}


def test_a_node_that_is_held_back_makes_no_transition(
    transitions_and_events: tuple[NodeTransitions, EventDispatcher],
) -> None:
    """It is sent nothing by which it would lose something, so it must not stand in the way of a change."""
    transitions, events = transitions_and_events
    before, after = head(1, EDGE), head(2)
    events.publish(before)
    for stream in (1, 2):
        connect(events, stream, f"edge-{stream}")
    cut = (AT_EDGE, Audience())
    assert transitions.nodes_of([cut], before, after.state) == {cut: ["edge-1", "edge-2"]}
    events.report(1, Claimed(LISTENER, frozenset({"0.0.0.0:80"}), "00ff"))
    events.report(1, HeldBack(1, ((LISTENER, "0.0.0.0:80"),)))
    assert transitions.nodes_of([cut], before, after.state) == {cut: ["edge-2"]}
    assert transitions.nodes_of([(AT_EDGE, AT_EDGE)], before, before.state) == {(AT_EDGE, AT_EDGE): ["edge-2"]}
    events.report(1, HeldBack(0))
    assert transitions.nodes_of([cut], before, after.state) == {cut: ["edge-1", "edge-2"]}

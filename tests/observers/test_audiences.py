"""Counts of nodes by audience: the audience that a node reported, or a computed one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.compiler import audience
from controlplane.compiler.reach import NOTHING_HELD, Claim, Transition
from controlplane.domain import Locality
from controlplane.domain.state import State
from controlplane.envoy_types import ROUTES
from controlplane.fleet import Fleet
from controlplane.fleet.membership import RememberedNode
from controlplane.observers.audiences import RETURN_SECONDS, AudienceCounts
from controlplane.observers.folds import FleetFold
from controlplane.reconciler.report import EventDispatcher
from controlplane.snapshot import Audience, Client
from controlplane.xds.events import AudienceAssigned, Claimed, Held, HeldBack, Refused, StreamClosed
from tests.events import AT_EDGE, EDGE, INNER, LISTENER, connect, head

BOTH = Audience(("edge", "inner"))


def counting() -> tuple[AudienceCounts, EventDispatcher]:
    fleet = Fleet()
    counts = AudienceCounts(fleet)
    return counts, EventDispatcher(fleet, [FleetFold(fleet), counts])


@pytest.fixture
def counts_and_events() -> tuple[AudienceCounts, EventDispatcher]:
    return counting()


def test_variants_of_each_audience(counts_and_events: tuple[AudienceCounts, EventDispatcher]) -> None:
    counts, events = counts_and_events
    for stream, (node, assigned) in enumerate([("a", AT_EDGE), ("b", AT_EDGE), ("c", BOTH)]):
        connect(events, stream, node, audience=assigned)
    assert counts.variants() == {}
    for stream, (node, assigned) in enumerate([("d", AT_EDGE), ("e", Audience())], 10):
        connect(events, stream, node, audience=assigned, variant="sotw")
    assert counts.variants() == {AT_EDGE: {"delta", "sotw"}, BOTH: {"delta"}, Audience(): {"sotw"}}
    events.report(11, StreamClosed())
    assert Audience() not in counts.variants()


def test_nodes_are_counted_under_any_state(counts_and_events: tuple[AudienceCounts, EventDispatcher]) -> None:
    counts, events = counts_and_events
    events.publish(head(1, EDGE))
    for stream, (node, zone) in enumerate([("a", "in"), ("b", "in"), ("c", "out")]):
        connect(events, stream, node, zone, AT_EDGE)
    events.report(1, StreamClosed())
    assert counts.by_audience(head(2, EDGE).state) == {AT_EDGE: 2}
    assert counts.by_audience(head(2, EDGE, INNER).state) == {BOTH: 1, AT_EDGE: 1}
    assert counts.by_audience(State()) == {Audience(): 2}


def test_the_audience_is_computed_until_a_node_has_reported_it(
    counts_and_events: tuple[AudienceCounts, EventDispatcher],
) -> None:
    counts, events = counts_and_events
    events.publish(head(1, EDGE))
    for stream, node in enumerate(("a", "b")):
        connect(events, stream, node, "in")
        assert counts.by_audience(head(1, EDGE).state) == {AT_EDGE: stream + 1}
        events.report(stream, AudienceAssigned(AT_EDGE))
        events.report(stream, Held(1))
    after = head(2, EDGE, INNER)
    events.publish(after)
    assert counts.by_audience(after.state) == {BOTH: 2}
    events.report(0, AudienceAssigned(BOTH))
    events.report(0, Held(2))
    assert counts.by_audience(after.state) == {BOTH: 2}
    # Once a node holds the revision, its reported audience is used, and is not computed again.
    events.report(1, AudienceAssigned(AT_EDGE))
    events.report(1, Held(2))
    events.publish(head(3, EDGE, INNER))
    assert counts.by_audience(after.state) == {BOTH: 1, AT_EDGE: 1}


def test_a_node_that_never_holds_anything_is_counted_by_its_newest_identity(
    counts_and_events: tuple[AudienceCounts, EventDispatcher],
) -> None:
    counts, events = counts_and_events
    events.publish(head(1, EDGE, INNER))
    state = head(1, EDGE, INNER).state
    connect(events, 1, "mute", "in")
    assert counts.by_audience(state) == counts.by_audience(state) == {BOTH: 1}
    connect(events, 2, "mute")
    assert counts.by_audience(state) == {AT_EDGE: 1}
    for stream in (1, 2):
        events.report(stream, StreamClosed())
    assert counts.by_audience(state) == {}
    assert not counts._computed
    connect(events, 3, "mute", "in")
    assert counts.by_audience(state) == {BOTH: 1}
    events.publish(head(2, EDGE))
    assert counts.by_audience(head(2, EDGE).state) == {AT_EDGE: 1}


STEPS = st.one_of(
    st.tuples(st.just("connect"), st.sampled_from(["a", "b", "c"]), st.sampled_from(["", "in"])),
    st.tuples(st.just("close"), st.integers(0, 9), st.none()),
    st.tuples(st.just("hold"), st.integers(0, 9), st.none()),
    st.tuples(st.just("publish"), st.sampled_from([(), (EDGE,), (EDGE, INNER)]), st.none()),
)


@given(st.lists(STEPS, max_size=20))
def test_random_events_keep_the_counts_equal_to_computing_each_audience(steps: list[tuple[str, object, str | None]]) -> None:
    fleet = Fleet()
    counts = AudienceCounts(fleet)
    events = EventDispatcher(fleet, [FleetFold(fleet), counts])
    newest, streams = head(0), list[int]()
    for kind, value, zone in steps:
        if kind == "connect":
            streams.append(len(streams))
            # The zone is part of the node's id, because all streams of a node must identify it in the same way.
            connect(events, streams[-1], f"{value}{zone}", zone or "")
        elif kind == "publish":
            assert isinstance(value, tuple)
            newest = head(newest.number + 1, *value)
            events.publish(newest)
        elif isinstance(value, int) and value < len(streams):
            node = fleet.node_of(value)
            if kind == "close":
                events.report(value, StreamClosed())
            elif node is not None and node.connected:
                # A stream reports its audience first.
                for stream in list(node.streams):
                    events.report(stream, AudienceAssigned(audience(newest.state, node)))
                    events.report(stream, Held(newest.number))
        expected: dict[Audience, int] = {}
        for node in fleet.nodes.values():
            if node.connected:
                expected[audience(newest.state, node)] = expected.get(audience(newest.state, node), 0) + 1
        assert counts.by_audience(newest.state) == expected
        assert counts._computed.keys() <= {n.id for n in fleet.nodes.values() if n.connected}


def test_transitions_compare_the_audiences_of_each_node_under_two_states(
    counts_and_events: tuple[AudienceCounts, EventDispatcher],
) -> None:
    counts, events = counts_and_events
    before, after = head(1, EDGE), head(2, EDGE, INNER)
    events.publish(before)
    for stream, (node, zone) in enumerate([("a", "in"), ("b", "out"), ("c", "out"), ("d", "in")]):
        connect(events, stream, node, zone, AT_EDGE)
        events.report(stream, Held(1))
    events.report(3, StreamClosed())
    assert set(counts.transitions(before, before.state)) == {(AT_EDGE, AT_EDGE)}
    moved, stayed = (AT_EDGE, BOTH), (AT_EDGE, AT_EDGE)
    assert set(counts.transitions(before, after.state)) == {moved, stayed}
    assert counts.nodes_of([moved], before, after.state) == {moved: ["a"]}
    assert counts.nodes_of([moved, stayed], before, after.state) == {moved: ["a"], stayed: ["b", "c"]}
    assert counts.nodes_of([(BOTH, AT_EDGE)], before, after.state) == {}
    assert counts.nodes_of([stayed], before, before.state) == {stayed: ["a", "b", "c"]}


def test_after_a_start_the_remembered_nodes_make_transitions_until_they_should_be_back() -> None:
    now, fleet = [36_000.0], Fleet()
    counts = AudienceCounts(fleet, lambda: now[0])
    events = EventDispatcher(fleet, [FleetFold(fleet), counts])
    before, after = head(1, EDGE), head(2)
    events.publish(before)
    remembered = [("a", Client.ENVOY, 10), ("b", Client.GRPC, 10), ("away for long", Client.ENVOY, 7)]
    fleet.members.restore((RememberedNode(i, "edge", Locality(), client, 1, hour) for i, client, hour in remembered), now[0])
    envoys, programs = AT_EDGE, Audience(("edge",), Client.GRPC)
    cut = {(envoys, Audience()): ["a"], (programs, Audience((), Client.GRPC)): ["b"]}
    assert set(counts.transitions(before, before.state)) == {(envoys, envoys), (programs, programs)}
    assert set(counts.transitions(before, after.state)) == cut.keys()
    assert counts.nodes_of(cut, before, after.state) == cut
    # Nothing is sent to them.
    assert counts.by_audience(before.state) == {}
    connect(events, 1, "a", audience=AT_EDGE)
    assert counts.nodes_of(cut, before, after.state) == cut
    events.report(1, StreamClosed())
    del cut[envoys, Audience()]
    assert counts.nodes_of(counts.transitions(before, after.state), before, after.state) == cut
    fleet.members.forget(["b"])
    assert counts.transitions(before, after.state) == set()
    fleet.members.restore([RememberedNode("c", "edge", Locality(), Client.ENVOY, 1, 10)], now[0])
    assert len(counts.transitions(before, after.state)) == 1
    now[0] += RETURN_SECONDS
    assert counts.transitions(before, after.state) == set()


def test_without_a_revision_a_node_holds_what_it_claims(counts_and_events: tuple[AudienceCounts, EventDispatcher]) -> None:
    counts, events = counts_and_events
    after = head(1, EDGE)
    connect(events, 1, "new")
    connect(events, 2, "old")
    events.report(2, Claimed(LISTENER, frozenset({"0.0.0.0:80"})))
    connect(events, 3, "unknown")
    events.report(3, Claimed(LISTENER, None))
    old, unknown = Claim(frozenset({"0.0.0.0:80"}), frozenset(), frozenset()), Claim(None, frozenset(), frozenset())
    expected = {(NOTHING_HELD, AT_EDGE): ["new"], (old, AT_EDGE): ["old"], (unknown, AT_EDGE): ["unknown"]}
    assert set(counts.transitions(head(0), after.state)) == expected.keys()
    assert counts.nodes_of(expected, head(0), after.state) == expected


def test_only_the_listeners_that_a_refusal_names_are_refused(
    counts_and_events: tuple[AudienceCounts, EventDispatcher],
) -> None:
    counts, events = counts_and_events
    events.publish(head(2, EDGE))
    connect(events, 1, "a", audience=AT_EDGE)
    assert counts.refused_listeners() == {}
    names = ("0.0.0.0:80", "0.0.0.0:8080", "10.0.0.0:80", "[::1]:80")
    message = "Error adding/updating listener(s) 0.0.0.0:8080: cannot bind '0.0.0.0:8080'\n[::1]:80: Address already in use"
    events.report(1, Refused(LISTENER, names, message, 2))
    events.report(1, Refused(ROUTES, ("iris",), "iris: no", 2))
    assert counts.refused_listeners() == {"a": [(2, frozenset({"0.0.0.0:8080", "[::1]:80"}))]}


def test_a_node_that_is_held_back_holds_what_it_claims(counts_and_events: tuple[AudienceCounts, EventDispatcher]) -> None:
    counts, events = counts_and_events
    before = head(1, EDGE)
    events.publish(before)
    for stream in (1, 2):
        connect(events, stream, f"edge-{stream}")
    assert set(counts.transitions(before, before.state)) == {(AT_EDGE, AT_EDGE)}
    events.report(1, Claimed(LISTENER, frozenset({"0.0.0.0:80"}), "00ff"))
    events.report(1, HeldBack(1, ((LISTENER, "0.0.0.0:80"),)))
    claim = Claim(frozenset({"0.0.0.0:80"}), frozenset(), frozenset())
    expected: dict[Transition, list[str]] = {(claim, AT_EDGE): ["edge-1"], (AT_EDGE, AT_EDGE): ["edge-2"]}
    assert set(counts.transitions(before, before.state)) == expected.keys()
    assert counts.nodes_of(expected, before, before.state) == expected
    # The next revision was checked against the claim, so the node is sent it.
    newer = head(2, EDGE)
    events.publish(newer)
    assert set(counts.transitions(newer, newer.state)) == {(AT_EDGE, AT_EDGE)}

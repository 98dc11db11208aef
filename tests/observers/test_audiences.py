"""Counts of nodes by audience: the audience that a node reported, or a computed one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.compiler import audience
from controlplane.domain.state import State
from controlplane.fleet import Fleet
from controlplane.observers.audiences import AudienceCounts
from controlplane.observers.folds import FleetFold
from controlplane.reconciler.report import EventDispatcher
from controlplane.snapshot import Audience
from controlplane.xds.events import AudienceAssigned, Held, Identified, StreamClosed
from tests.events import AT_EDGE, EDGE, INNER, connect, head

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


def test_connected_nodes_that_are_too_old_for_a_change(counts_and_events: tuple[AudienceCounts, EventDispatcher]) -> None:
    counts, events = counts_and_events
    for stream, (node, user_agent) in enumerate([("a", "envoy 1.35.0"), ("b", "envoy 1.40.0"), ("c", "envoy 1.35.0")], 1):
        connect(events, stream, node, "in", AT_EDGE)
        events.report(stream, Identified(node, "edge", {}, user_agent))
    events.report(3, StreamClosed())
    (found,) = counts.outdated(head(1), head(2, EDGE).state)
    assert (found.nodes, found.names) == (("a",), ("gateways/edge",))
    assert counts.outdated(head(1, EDGE), head(2, EDGE).state) == ()

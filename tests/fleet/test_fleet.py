"""The fleet: a fold of events into nodes, and counts that are always the same as if all nodes were counted."""

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.fleet import RELEASED_NODES, RELEASED_SECONDS, Fleet, HeldRevisions, NodeState, ProgressState
from controlplane.snapshot import Audience
from controlplane.xds.events import (
    AudienceAssigned,
    Blocked,
    Held,
    Identified,
    LastMessage,
    LoadReported,
    Recovered,
    Refused,
    ReporterIdentified,
    Settled,
    StreamClosed,
    StreamEvent,
    StreamOpened,
)
from tests.fleet.clients import LISTENER, ROUTES, connect, refusal


def recount(fleet: Fleet) -> dict[NodeState, int]:
    counted = Counter(fleet.state_of(n) for n in fleet.nodes.values())
    return {s: counted[s] for s in NodeState}


def test_a_stream_has_no_node_until_its_client_is_identified() -> None:
    fleet = Fleet()
    fleet.apply(1, StreamOpened("10.0.0.1:1", "delta"), 100)
    assert (fleet.streams, len(fleet.nodes), fleet.connected) == (1, 0, 0)
    fleet.apply(1, StreamClosed(), 101)
    assert (fleet.streams, len(fleet.nodes)) == (0, 0)


def test_a_node_has_what_its_stream_reported() -> None:
    fleet = Fleet()
    fleet.publish(7)
    connect(fleet, 1)
    fleet.apply(1, AudienceAssigned(Audience(("public",)), "no reason"), 101)
    node = fleet.nodes["edge-1"]
    assert (node.id, node.cluster, node.user_agent, node.peer) == ("edge-1", "edge", "envoy 1.40.0", "10.0.0.1:1")
    assert node.note == "no reason"
    assert (node.variants, node.gateways, node.connect_time, node.last_seen) == (("delta",), ("public",), 100, 100)
    assert (node.held_revision, fleet.state_of(node)) == (0, NodeState.BEHIND)
    fleet.apply(1, Held(7), 102)
    assert (node.held_revision, fleet.state_of(node), node.hold_time(7), node.last_seen) == (7, NodeState.SYNCED, 102, 102)


def test_every_node_is_behind_until_it_holds_a_newer_revision() -> None:
    fleet = Fleet()
    for stream in range(3):
        connect(fleet, stream, f"edge-{stream}")
        fleet.apply(stream, Held(1), 101)
    assert fleet.counts[NodeState.SYNCED] == fleet.holding(1) == 3
    fleet.publish(2)
    assert (fleet.counts[NodeState.SYNCED], fleet.counts[NodeState.BEHIND]) == (0, 3)
    fleet.apply(1, Held(2), 102)
    assert (fleet.counts[NodeState.SYNCED], fleet.counts[NodeState.BEHIND]) == (1, 2)
    assert (fleet.holding(1), fleet.holding(2), fleet.holding(3)) == (3, 1, 0)


def test_publishing_an_older_revision_changes_nothing() -> None:
    fleet = Fleet()
    fleet.publish(5)
    fleet.publish(4)
    assert fleet.revision == 5


def test_a_node_holds_a_revision_that_all_its_streams_hold() -> None:
    fleet = Fleet()
    connect(fleet, 1)
    fleet.apply(1, Held(3), 101)
    connect(fleet, 2, now=102, variant="sotw")
    node = fleet.nodes["edge-1"]
    assert (node.held_revision, node.variants, len(node.streams), node.connect_time) == (0, ("delta", "sotw"), 2, 100)
    fleet.apply(2, Held(3), 103)
    assert (node.held_revision, node.hold_time(3)) == (3, 101)
    fleet.apply(1, Held(4), 104)
    assert node.held_revision == 3
    fleet.apply(2, StreamClosed(), 105)
    assert (node.held_revision, node.variants, node.hold_time(4)) == (4, ("delta",), 105)


def test_a_node_that_disconnected_stays_listed_with_what_it_held() -> None:
    fleet = Fleet()
    connect(fleet, 1)
    fleet.apply(1, Held(3), 101)
    fleet.apply(1, refusal(4), 102)
    fleet.apply(1, StreamClosed(), 103)
    node = fleet.nodes["edge-1"]
    assert (fleet.state_of(node), node.connected, node.held_revision, node.connect_time) == (NodeState.GONE, False, 3, None)
    # A stream that was closed is no message.
    assert (node.refusals, node.last_seen, node.gone_since, fleet.holding(3)) == ((), 102, 103, 0)


def test_a_node_was_last_seen_when_its_last_message_came() -> None:
    fleet = Fleet()
    connect(fleet, 1)
    node = fleet.nodes["edge-1"]
    fleet.apply(1, LastMessage(2.5), 110)
    assert node.last_seen == 107.5
    fleet.apply(1, Held(1), 120)
    fleet.apply(1, LastMessage(5.0), 121)
    assert node.last_seen == 120
    fleet.apply(1, StreamClosed(), 200)
    assert (node.last_seen, node.gone_since) == (120, 200)


def test_a_load_report_is_a_message_of_its_node() -> None:
    fleet = Fleet()
    connect(fleet, 1)
    for stream, node_id in ((2, "edge-1"), (3, "no-node")):
        fleet.apply(stream, StreamOpened("10.0.0.1:1", "load"), 101)
        fleet.apply(stream, ReporterIdentified(node_id), 101)
        fleet.apply(stream, LoadReported(()), 130)
    assert fleet.nodes["edge-1"].last_seen == 130
    assert list(fleet.nodes) == ["edge-1"]
    fleet.apply(2, StreamClosed(), 131)
    fleet.apply(2, LoadReported(()), 140)
    assert fleet.nodes["edge-1"].last_seen == 130


def test_a_node_that_reconnects_holds_nothing_until_it_acks() -> None:
    fleet = Fleet()
    connect(fleet, 1)
    fleet.apply(1, Held(3), 101)
    fleet.apply(1, StreamClosed(), 102)
    connect(fleet, 2, now=103)
    node = fleet.nodes["edge-1"]
    assert (node.held_revision, fleet.state_of(node), node.connect_time) == (0, NodeState.BEHIND, 103)
    fleet.apply(2, Held(3), 104)
    assert (fleet.counts[NodeState.SYNCED], fleet.counts[NodeState.GONE], node.hold_time(3)) == (1, 0, 101)


def test_events_of_a_closed_stream_change_nothing() -> None:
    fleet = Fleet()
    connect(fleet, 1)
    fleet.apply(1, StreamClosed(), 101)
    for event in (Held(1), refusal(1), Identified("edge-2", "edge"), AudienceAssigned(Audience(("x",))), StreamClosed()):
        fleet.apply(1, event, 102)
    assert list(fleet.nodes) == ["edge-1"]
    assert fleet.nodes["edge-1"].held_revision == 0


def test_nodes_that_never_held_a_revision_are_dropped_a_day_after_they_left() -> None:
    fleet = Fleet()
    connect(fleet, 1)
    fleet.apply(1, StreamClosed(), 100)
    assert fleet.counts[NodeState.RELEASED] == 1
    connect(fleet, 2, "edge-2", now=100 + RELEASED_SECONDS)
    assert set(fleet.nodes) == {"edge-1", "edge-2"}
    fleet.apply(2, AudienceAssigned(Audience()), 101 + RELEASED_SECONDS)
    assert set(fleet.nodes) == {"edge-2"}
    assert fleet.counts == recount(fleet)


def test_the_number_of_released_nodes_is_bounded() -> None:
    fleet = Fleet()
    for stream in range(RELEASED_NODES + 10):
        connect(fleet, stream, f"n{stream}")
        fleet.apply(stream, StreamClosed(), 100)
    assert len(fleet.nodes) == RELEASED_NODES
    assert "n9" not in fleet.nodes
    assert "n10" in fleet.nodes
    assert fleet.counts == recount(fleet)


def test_nodes_that_are_not_in_sync_come_first() -> None:
    fleet = Fleet()
    for stream, node in enumerate("dcba"):
        connect(fleet, stream, node)
        fleet.apply(stream, Held(1), 101)
    fleet.apply(3, StreamClosed(), 102)
    fleet.apply(2, refusal(2), 103)
    connect(fleet, 9, "e")
    assert [n.id for n in fleet.unsynced_first()] == ["b", "e", "a", "c", "d"]


EVENTS: st.SearchStrategy[StreamEvent | int] = st.one_of(
    st.sampled_from(["delta", "sotw"]).map(lambda v: StreamOpened("10.0.0.1:1", v)),
    st.sampled_from(["a", "b", "c"]).map(lambda n: Identified(n, "edge")),
    st.integers(1, 9).map(Held),
    st.builds(refusal, st.integers(1, 9), st.sampled_from([LISTENER, ROUTES])),
    st.sampled_from([LISTENER, ROUTES]).map(Recovered),
    st.sampled_from([("public",), ("public", "inner"), ()]).map(lambda g: AudienceAssigned(Audience(g))),
    st.integers(1, 9).map(Blocked),
    st.tuples(st.integers(1, 9), st.integers(0, 8)).filter(lambda t: t[1] < t[0]).map(lambda t: Settled(*t)),
    st.just(StreamClosed()),
    st.integers(1, 9),  # a revision is published
)


@given(st.lists(st.tuples(st.integers(1, 5), EVENTS, st.sampled_from([0.0, 1.0, RELEASED_SECONDS]))))
def test_random_events_keep_the_counts_equal_to_counting_all_nodes(events: list[tuple[int, StreamEvent | int, float]]) -> None:
    fleet, now, used = Fleet(), 0.0, set[tuple[int, str]]()
    for stream, event, pause in events:
        now += pause
        if pause:
            fleet.members.release(now)
        if isinstance(event, int):
            fleet.publish(event)
        elif isinstance(event, StreamOpened | Identified):
            # Each stream opens once and is identified once. Its number is never used again.
            if (stream, type(event).__name__) in used:
                continue
            used.add((stream, type(event).__name__))
            fleet.apply(stream, event, now)
        else:
            fleet.apply(stream, event, now)
        assert fleet.counts == recount(fleet)
        connected = [n for n in fleet.nodes.values() if n.connected]
        assert fleet.connected == len(connected)
        assert fleet.audiences == Counter(n.audience for n in connected)
        missing = [n for n in fleet.nodes.values() if n.known and not n.connected]
        assert fleet.members.known == sum(n.known for n in fleet.nodes.values())
        assert fleet.members.next_release == min((n.release_time or 0.0 for n in missing), default=None)
        assert fleet.counted == len(connected) + len(missing)
        assert all((n.gone_since is None) is (n.release_time is None) is n.connected for n in fleet.nodes.values())
        for revision in range(11):
            assert fleet.holding(revision) == sum(n.progress(revision) is ProgressState.HOLDING for n in connected)
            holding = [n.progress(revision) is ProgressState.HOLDING for n in (*connected, *missing)]
            assert fleet.is_done(revision) is all(holding)
            assert fleet.is_done(revision, connected_only=True) is all(holding[: len(connected)])
            for node in connected:
                # A node never holds more than each of its streams.
                assert revision not in node.holds or all(revision in s.held for s in node.streams.values())
        for node in fleet.nodes.values():
            assert node.history == sorted(set(node.history))
            assert len({revision for revision, _ in node.history}) == len(node.history)
            # Values that each event updates are equal to values computed from the open streams.
            streams = node.streams.values()
            assert node.refusing == sum(bool(s.refused) for s in streams)
            assert node.connect_time == min((s.opened for s in streams), default=None)
            if streams:
                assert node.holds == HeldRevisions.common(s.held for s in streams)
                assert node.variants == tuple(sorted({s.variant for s in streams}))


@pytest.mark.parametrize("nodes", [100, 5_000])
def test_the_cost_of_an_event_does_not_depend_on_the_number_of_nodes(nodes: int) -> None:
    # The test does not measure time. It counts how often an event reads the streams of a node.
    fleet = Fleet()
    for stream in range(nodes):
        connect(fleet, stream, f"n{stream}")
    streams_read = 0

    class Counting(dict[int, object]):
        def values(self):  # type: ignore[no-untyped-def]
            nonlocal streams_read
            streams_read += 1
            return super().values()

    for node in fleet.nodes.values():
        node.streams = Counting(node.streams)  # type: ignore[assignment]
    fleet.publish(1)
    fleet.apply(0, Held(1), 101)
    fleet.apply(1, Settled(1, 0), 101)
    assert 0 < streams_read < 10
    assert fleet.counts[NodeState.SYNCED] == 1


@pytest.mark.parametrize("streams", [100, 1_000])
def test_the_cost_of_an_event_does_not_depend_on_the_streams_of_its_node(streams: int) -> None:
    fleet, last = Fleet(), streams - 1
    for stream in range(streams):
        connect(fleet, stream)
        fleet.apply(stream, Held(1), 101)
    streams_read = 0

    class Counting(dict[int, Any]):
        def values(self) -> Any:
            return self

        def __reversed__(self) -> Any:
            nonlocal streams_read
            for stream in reversed(list(super().values())):
                streams_read += 1
                yield stream

    node = fleet.nodes["edge-1"]
    node.streams = Counting(node.streams)
    for stream in range(0, last, streams // 10):
        fleet.apply(stream, Held(2), 102)
    assert 0 < streams_read <= 11
    node.streams = dict(node.streams)
    assert (fleet.holding(2), node.held_revision) == (0, 1)
    for stream in range(streams):
        fleet.apply(stream, Held(2), 103)
    assert (fleet.holding(2), node.held_revision, fleet.counts[NodeState.SYNCED]) == (1, 2, 1)


def test_the_fast_path_of_held_has_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(7)
    for _ in range(300):
        short, long = Fleet(), Fleet()
        monkeypatch.setattr(long, "_apply_held", lambda *_: False)
        for now in range(60):
            stream = rng.randrange(4)
            event: Any = rng.choice(
                [
                    StreamOpened("1.2.3.4:5", "delta"),
                    Identified(f"n{rng.randrange(3)}", "edge"),
                    *(Held(r) for r in rng.choices(range(1, 6), k=4)),
                    Settled(rng.randrange(2, 6), 1),
                    Refused(LISTENER, ("a",), "no", 2),
                    Recovered(LISTENER),
                    StreamClosed(),
                ]
            )
            if isinstance(event, Identified) and (stream not in short._streams or short._streams[stream].node):
                continue  # a stream is identified once
            if isinstance(event, StreamOpened) and stream in short._streams:
                continue
            for fleet in (short, long):
                fleet.apply(stream, event, float(now))
                if not now % 7:
                    fleet.publish(now // 10)
            assert short.counts == long.counts
            assert short._held == long._held
            for node, other in zip(short.nodes.values(), long.nodes.values(), strict=True):
                same = ("id", "held_revision", "holds", "history", "last_seen", "connected", "refusals")
                assert [getattr(node, n) for n in same] == [getattr(other, n) for n in same]


def test_the_node_of_a_stream_is_known_until_another_closes() -> None:
    fleet = Fleet()
    fleet.apply(1, StreamOpened("10.0.0.1:1", "delta"), 100)
    assert (fleet.node_of(1), fleet.node_of(2)) == (None, None)
    fleet.apply(1, Identified("edge-1", "edge"), 100)
    connect(fleet, 2, "edge-2")
    edge_1 = fleet.nodes["edge-1"]
    assert (fleet.node_of(1), fleet.node_of(2)) == (edge_1, fleet.nodes["edge-2"])
    fleet.apply(1, StreamClosed(), 101)
    assert fleet.node_of(1) is edge_1
    assert not edge_1.connected
    fleet.apply(2, StreamClosed(), 102)
    assert fleet.node_of(1) is None
    # A stream whose client never identified itself has no node, also right after it closed.
    fleet.apply(3, StreamOpened("10.0.0.1:3", "delta"), 103)
    fleet.apply(3, StreamClosed(), 103)
    assert fleet.node_of(3) is None


def test_the_streams_of_a_node_are_those_that_are_open() -> None:
    fleet = Fleet()
    connect(fleet, 1)
    connect(fleet, 2)
    connect(fleet, 3, "edge-2")
    assert (set(fleet.streams_of("edge-1")), set(fleet.streams_of("edge-2")), set(fleet.streams_of("x"))) == (
        {1, 2},
        {3},
        set(),
    )
    fleet.apply(1, StreamClosed(), 101)
    assert set(fleet.streams_of("edge-1")) == {2}

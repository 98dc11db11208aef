"""Progress of a revision: the counts, the nodes, and the first and last message of a watch."""

import asyncio

import pytest

from controlplane.aio.latest import Latest
from controlplane.api import progress as progress_module
from controlplane.api.progress import RevisionWatch, revision_progress
from controlplane.domain import Gateway
from controlplane.fleet import Fleet
from controlplane.generated.turnout.v1 import revision_pb2
from controlplane.snapshot import Audience
from controlplane.xds.events import (
    AudienceAssigned,
    Authenticated,
    Held,
    HeldBack,
    Identified,
    Refused,
    Settled,
    StreamClosed,
    StreamOpened,
)

LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"


def fleet_of(*nodes: str, held: int = 1) -> Fleet:
    """Return a fleet whose nodes have one stream each, numbered from 0, and hold a revision since 100 s."""
    fleet = Fleet()
    for stream, node in enumerate(nodes):
        fleet.apply(stream, StreamOpened("10.0.0.1:1", "delta"), 90)
        fleet.apply(stream, Identified(node, "edge"), 90)
        fleet.apply(stream, Held(held), 100)
    return fleet


def counts(p: revision_pb2.RevisionProgress) -> tuple[int, int, int, int, int, bool]:
    return p.total, p.holding, p.behind, p.refused, p.gone, p.complete


def test_every_node_is_in_one_count() -> None:
    fleet = fleet_of("a", "b", "c", "d")
    watch = RevisionWatch(2, 100)
    assert counts(watch.progress(fleet)) == (4, 0, 4, 0, 0, False)
    fleet.apply(0, Held(2), 101.5)
    fleet.apply(1, Refused(LISTENER, ("public",), "cannot bind", 2), 102)
    fleet.apply(2, StreamClosed(), 103)
    progress = watch.progress(fleet)
    assert counts(progress) == (4, 1, 1, 1, 1, False)
    assert [n.node for n in progress.nodes] == ["nodes/b", "nodes/d", "nodes/c", "nodes/a"]
    refused, behind, gone, holding = progress.nodes
    assert (refused.refused_type, list(refused.refused_resources), refused.error) == ("Listener", ["public"], "cannot bind")
    assert (behind.held_revision, gone.held_revision, holding.held_revision) == (1, 1, 2)
    assert holding.hold_time.ToMilliseconds() == progress.last_ack_time.ToMilliseconds() == 101_500


def test_the_list_of_nodes_is_limited_and_begins_with_refusing_ones() -> None:
    fleet = fleet_of("a", "b", "c", "d")
    fleet.apply(3, Refused(LISTENER, ("public",), "cannot bind", 2), 102)
    progress = RevisionWatch(2, 2).progress(fleet)
    assert [n.node for n in progress.nodes] == ["nodes/d", "nodes/a"]
    assert progress.total == 4
    assert not RevisionWatch(2, 0).progress(fleet).nodes


def test_a_node_that_disconnected_while_holding_counts_as_holding() -> None:
    fleet = fleet_of("a", "b")
    watch = RevisionWatch(1, 100)
    assert counts(watch.progress(fleet)) == (2, 2, 0, 0, 0, True)
    fleet.apply(0, StreamClosed(), 101)
    assert counts(watch.progress(fleet)) == (2, 2, 0, 0, 0, True)
    assert counts(RevisionWatch(1, 100).progress(fleet)) == (2, 2, 0, 0, 0, True)
    assert counts(RevisionWatch(1, 100, connected_only=True).progress(fleet)) == (1, 1, 0, 0, 0, True)


def test_a_node_with_an_older_refusal_holds_the_revision_and_names_the_refusal() -> None:
    fleet = fleet_of("a", "b")
    fleet.apply(0, Refused(LISTENER, ("public",), "cannot bind", 2), 101)
    for stream in (0, 1):
        fleet.apply(stream, Settled(3, 2) if stream == 0 else Held(3), 102 + stream)
    assert counts(RevisionWatch(2, 100).progress(fleet)) == (2, 1, 0, 1, 0, False)
    progress = RevisionWatch(3, 100).progress(fleet)
    assert counts(progress) == (2, 2, 0, 0, 0, True)
    a, b = progress.nodes
    assert (a.refused_type, list(a.refused_resources), a.error, a.refused_revision) == (
        "Listener",
        ["public"],
        "cannot bind",
        2,
    )
    assert (a.held_revision, a.hold_time.ToMilliseconds()) == (3, 102_000)
    assert (b.refused_type, b.refused_revision, b.held_revision) == ("", 0, 3)


def test_a_missing_node_counts_until_it_is_released_and_is_named_afterwards() -> None:
    fleet = fleet_of("a", "b")
    watch = RevisionWatch(2, 100, made=100.0)
    fleet.publish(2)
    fleet.apply(0, StreamClosed(), 101)
    fleet.apply(1, Held(2), 102)
    progress = watch.progress(fleet)
    assert counts(progress) == (2, 1, 0, 0, 1, False)
    gone = progress.nodes[0]
    assert (gone.node, gone.state) == ("nodes/a", revision_pb2.NODE_PROGRESS_STATE_GONE)
    assert gone.release_time.seconds == 101 + 24 * 3600
    fleet.members.release(101 + 24 * 3600)
    progress = watch.progress(fleet)
    assert (counts(progress), progress.released) == ((1, 1, 0, 0, 0, True), 1)
    assert [(n.node, n.state) for n in progress.nodes] == [
        ("nodes/a", revision_pb2.NODE_PROGRESS_STATE_RELEASED),
        ("nodes/b", revision_pb2.NODE_PROGRESS_STATE_HOLDING),
    ]
    # A later revision does not name it.
    assert RevisionWatch(3, 100, made=200_000.0).progress(fleet).released == 0


def test_only_connected_nodes_count_if_the_watch_asks_for_them() -> None:
    fleet = fleet_of("a", "b", "c")
    fleet.apply(0, StreamClosed(), 101)
    watch = RevisionWatch(2, 100, connected_only=True)
    assert counts(watch.progress(fleet)) == (2, 0, 2, 0, 0, False)
    fleet.apply(1, StreamClosed(), 102)
    fleet.apply(2, Held(2), 103)
    assert counts(watch.progress(fleet)) == (2, 1, 0, 0, 1, True)
    fleet.members.release(1e9)
    assert counts(watch.progress(fleet)) == (2, 1, 0, 0, 1, True)


def test_a_revision_is_not_complete_while_a_gateway_has_too_few_nodes() -> None:
    fleet = fleet_of("a", "b")
    fleet.apply(0, AudienceAssigned(Audience(("edge",))), 101)
    fleet.apply(1, AudienceAssigned(Audience(("edge",))), 101)
    fleet.members.set_gateways({"edge": Gateway("edge", 80, expected_nodes=3)})
    fleet.apply(0, Held(2), 102)
    (expected,) = RevisionWatch(2, 100).progress(fleet).expected
    assert (expected.gateway, expected.expected, expected.counted, expected.holding) == ("gateways/edge", 3, 2, 1)
    assert counts(RevisionWatch(1, 100).progress(fleet)) == (2, 2, 0, 0, 0, False)
    connected = RevisionWatch(1, 100, connected_only=True).progress(fleet)
    assert (connected.complete, list(connected.expected)) == (True, [])


def test_a_fleet_without_nodes_is_complete_and_has_no_ack_time() -> None:
    progress = RevisionWatch(3, 100).progress(Fleet())
    assert counts(progress) == (0, 0, 0, 0, 0, True)
    assert not progress.HasField("last_ack_time")


async def test_the_first_and_the_last_message_are_sent_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "INTERVAL", 60.0)
    fleet = fleet_of("a", "b")
    changed: Latest[Fleet | None] = Latest(fleet)
    watch = revision_progress(revision_pb2.Revision(name="revisions/2", number=2), 100, changed)
    first = await anext(watch)
    assert (counts(first), first.revision.name) == ((2, 0, 2, 0, 0, False), "revisions/2")
    for stream in (0, 1):
        fleet.apply(stream, Held(2), 101)
    changed.set(fleet)
    assert counts(await asyncio.wait_for(anext(watch), 10)) == (2, 2, 0, 0, 0, True)
    with pytest.raises(StopAsyncIteration):
        await anext(watch)


def test_a_node_that_is_held_back_is_marked() -> None:
    fleet = fleet_of("a", "b")
    fleet.publish(2)
    fleet.apply(1, HeldBack(2, unknown=True), 101)
    assert [(n.node, n.held_back) for n in RevisionWatch(2, 9).progress(fleet).nodes] == [
        ("nodes/a", False),
        ("nodes/b", True),
    ]
    fleet.apply(1, HeldBack(0), 102)
    assert not any(n.held_back for n in RevisionWatch(2, 9).progress(fleet).nodes)


def test_nodes_of_one_identity_are_one_in_the_worst_of_their_states() -> None:
    fleet = Fleet()
    for stream, (node, identity) in enumerate((("a", "liar"), ("b", "liar"), ("c", "liar"), ("d", "honest"), ("e", ""))):
        fleet.apply(stream, StreamOpened("10.0.0.1:1", "delta"), 90)
        if identity:
            fleet.apply(stream, Authenticated(identity), 90)
        fleet.apply(stream, Identified(node, "edge"), 90)
        fleet.apply(stream, Held(1 if node == "b" else 2), 100)
    progress = RevisionWatch(2, 100).progress(fleet)
    assert counts(progress) == (3, 2, 1, 0, 0, False)
    assert len(progress.nodes) == 5
    fleet.apply(1, Held(2), 101)
    assert counts(RevisionWatch(2, 100).progress(fleet)) == (3, 3, 0, 0, 0, True)

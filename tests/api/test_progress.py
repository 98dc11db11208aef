"""Pictures of a revision's way: what is in them, and when they come."""

import asyncio

import pytest

from controlplane.aio.latest import Latest
from controlplane.api import progress as progress_module
from controlplane.api.progress import RevisionWatch, pictures, resource_name, revision_progress
from controlplane.errors import Code, Error
from controlplane.fleet import Fleet
from controlplane.generated.turnout.v1 import revision_pb2
from controlplane.xds.events import Held, Identified, Refused, Settled, StreamClosed, StreamOpened

LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"


def fleet_of(*nodes: str, held: int = 1) -> Fleet:
    """Nodes with a stream each, numbered from 0, that hold a revision since 100 s."""
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
    assert counts(watch.picture(fleet)) == (4, 0, 4, 0, 0, False)
    fleet.apply(0, Held(2), 101.5)
    fleet.apply(1, Refused(LISTENER, ("public",), "cannot bind", 2), 102)
    fleet.apply(2, StreamClosed(), 103)
    picture = watch.picture(fleet)
    assert counts(picture) == (4, 1, 1, 1, 1, False)
    assert [n.node for n in picture.nodes] == ["nodes/b", "nodes/d", "nodes/c", "nodes/a"]
    refused, behind, gone, holding = picture.nodes
    assert (refused.refused_type, list(refused.refused_resources), refused.error) == ("Listener", ["public"], "cannot bind")
    assert (behind.held_revision, gone.held_revision, holding.held_revision) == (1, 1, 2)
    assert holding.hold_time.ToMilliseconds() == picture.last_ack_time.ToMilliseconds() == 101_500


def test_as_many_nodes_as_asked_for_the_worst_first() -> None:
    fleet = fleet_of("a", "b", "c", "d")
    fleet.apply(3, Refused(LISTENER, ("public",), "cannot bind", 2), 102)
    picture = RevisionWatch(2, 2).picture(fleet)
    assert [n.node for n in picture.nodes] == ["nodes/d", "nodes/a"]
    assert picture.total == 4
    assert not RevisionWatch(2, 0).picture(fleet).nodes


def test_a_node_that_left_holding_counts_as_holding() -> None:
    fleet = fleet_of("a", "b")
    watch = RevisionWatch(1, 100)
    assert counts(watch.picture(fleet)) == (2, 2, 0, 0, 0, True)
    fleet.apply(0, StreamClosed(), 101)
    assert counts(watch.picture(fleet)) == (2, 2, 0, 0, 0, True)
    assert counts(RevisionWatch(1, 100).picture(fleet)) == (1, 1, 0, 0, 0, True)


def test_a_node_that_still_refuses_something_older_holds_the_revision_and_says_what() -> None:
    fleet = fleet_of("a", "b")
    fleet.apply(0, Refused(LISTENER, ("public",), "cannot bind", 2), 101)
    for stream in (0, 1):
        fleet.apply(stream, Settled(3, 2) if stream == 0 else Held(3), 102 + stream)
    assert counts(RevisionWatch(2, 100).picture(fleet)) == (2, 1, 0, 1, 0, False)
    picture = RevisionWatch(3, 100).picture(fleet)
    assert counts(picture) == (2, 2, 0, 0, 0, True)
    a, b = picture.nodes
    assert (a.refused_type, list(a.refused_resources), a.error, a.refused_revision) == (
        "Listener",
        ["public"],
        "cannot bind",
        2,
    )
    assert (a.held_revision, a.hold_time.ToMilliseconds()) == (1, 102_000)
    assert (b.refused_type, b.refused_revision, b.held_revision) == ("", 0, 3)


def test_no_nodes_is_complete_and_no_ack() -> None:
    picture = RevisionWatch(3, 100).picture(Fleet())
    assert counts(picture) == (0, 0, 0, 0, 0, True)
    assert not picture.HasField("last_ack_time")


def test_a_name_is_one_part() -> None:
    fleet = fleet_of("edge/1%")
    assert resource_name(fleet.nodes["edge/1%"]) == "nodes/edge%2F1%25"


async def test_the_first_and_the_last_picture_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "REVISION_INTERVAL", 60.0)
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


async def test_in_between_pictures_wait_for_their_turn_and_show_the_newest() -> None:
    fleet = fleet_of("a", "b", "c")
    changed: Latest[Fleet | None] = Latest(fleet)
    watch = pictures(changed, lambda f: f.holding(2), 0.5)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await anext(watch) == 0
    following = asyncio.ensure_future(anext(watch))
    for stream in (0, 1, 2):
        fleet.apply(stream, Held(2), 101)
        changed.set(fleet)
        await asyncio.sleep(0.01)
    assert await following == 3
    assert loop.time() - began >= 0.5


async def test_a_picture_that_takes_long_comes_less_often() -> None:
    fleet = fleet_of("a")
    changed: Latest[Fleet | None] = Latest(fleet)
    loop = asyncio.get_running_loop()

    def slow(_: Fleet) -> float:
        until = loop.time() + 0.02
        while loop.time() < until:
            pass
        return until

    watch = pictures(changed, slow, 0.01)
    first = await anext(watch)
    changed.set(fleet)
    assert await anext(watch) - first >= 0.2


async def test_nothing_is_sent_while_nothing_changes() -> None:
    watch = pictures(Latest[Fleet | None](fleet_of("a")), lambda f: f.connected, 0.01)
    assert await anext(watch) == 1
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(watch), 0.1)


async def test_a_watch_ends_when_the_control_plane_stops() -> None:
    changed: Latest[Fleet | None] = Latest(fleet_of("a"))
    watch = pictures(changed, lambda f: f.connected, 5.0)
    await anext(watch)
    following = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    changed.set(None)
    with pytest.raises(Error) as caught:
        await asyncio.wait_for(following, 1)
    assert caught.value.code is Code.UNAVAILABLE

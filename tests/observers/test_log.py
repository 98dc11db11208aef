"""The log of the fleet: the lines for each event."""

import asyncio
import time
from collections.abc import MutableMapping, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from controlplane.fleet import Fleet
from controlplane.observers.folds import FleetFold
from controlplane.observers.log import FleetLog
from controlplane.observers.rate_limited_log import LINES_PER_SECOND
from controlplane.reconciler.report import EventDispatcher
from controlplane.xds.events import Held, Oversized, Recovered, Refused, Settled, StreamClosed, StreamOpened
from tests.events import AT_EDGE, LISTENER, connect, head


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def events(fleet: Fleet) -> EventDispatcher:
    return EventDispatcher(fleet, [FleetFold(fleet), FleetLog(fleet)])


def test_each_connect_nack_and_disconnect_of_a_node_has_a_line(events: EventDispatcher) -> None:
    events.publish(head(7))
    with capture_logs() as lines:
        for stream in (1, 2):
            connect(events, stream, audience=AT_EDGE)
        events.report(1, Held(7))
        events.report(1, Refused(LISTENER, ("public",), "cannot bind", 7))
        events.report(1, Recovered(LISTENER))
        events.report(1, StreamClosed())
        events.report(2, StreamClosed())
        events.report(3, StreamOpened("10.0.0.1:3", "delta"))
        events.report(3, StreamClosed())
    assert lines == [
        {
            "event": "node connected",
            "log_level": "info",
            "node": "edge-1",
            "cluster": "edge",
            "client": "envoy 1.40.0",
            "peer": "10.0.0.1:1",
        },
        {
            "event": "revision refused",
            "log_level": "warning",
            "node": "edge-1",
            "revision": 7,
            "type": "Listener",
            "resources": ["public"],
            "error": "cannot bind",
        },
        {"event": "node disconnected", "log_level": "info", "node": "edge-1", "held": 0},
    ]


async def test_connects_and_disconnects_above_the_limit_have_a_summary(events: EventDispatcher) -> None:
    nodes = LINES_PER_SECOND + 1
    with capture_logs() as lines:
        for stream in range(nodes):
            connect(events, stream, f"edge-{stream}")
        for stream in range(nodes):
            events.report(stream, StreamClosed())
        events.close()
    assert [(line["event"], line["count"]) for line in lines[2 * LINES_PER_SECOND :]] == [
        ("more nodes connected", 1),
        ("more nodes disconnected", 1),
    ]


async def test_nacks_above_the_limit_have_a_summary_and_the_fleet_keeps_all(fleet: Fleet, events: EventDispatcher) -> None:
    nodes = 1_000
    events.publish(head(1))

    def lines_of(event: str) -> list[dict[str, Any]]:
        return [dict(line) for line in lines if line["event"] == event]

    with capture_logs() as lines:
        for stream in range(nodes):
            connect(events, stream, f"edge-{stream}")
            events.report(stream, Refused(LISTENER, ("public",), f"cannot bind {stream}", 1))
        async with asyncio.timeout(10):
            while not lines_of("revision refused by more nodes"):  # noqa: ASYNC110  a log line wakes nobody
                await asyncio.sleep(0.05)
        # The limit also applies to the lines about earlier refusals and about large responses.
        for stream in range(nodes):
            events.report(stream, Settled(2, 1))
            events.report(stream, Oversized(LISTENER, 5_000_000))
        events.close()
    assert [line["node"] for line in lines_of("revision refused")] == [f"edge-{i}" for i in range(LINES_PER_SECOND)]
    assert lines_of("revision refused by more nodes") == [
        {
            "event": "revision refused by more nodes",
            "log_level": "warning",
            "count": nodes - LINES_PER_SECOND,
            "first": f"edge-{LINES_PER_SECOND}",
            "revision": 1,
            "type": "Listener",
            "resources": ["public"],
            "error": f"cannot bind {LINES_PER_SECOND}",
        }
    ]
    for event, summary, level in (
        ("revision held except for an earlier refusal", "revision held by more nodes except for earlier refusals", "info"),
        (
            "response above gRPC's default limit; google_grpc clients may drop the stream",
            "more responses above gRPC's default limit",
            "warning",
        ),
    ):
        assert len(lines_of(event)) == LINES_PER_SECOND
        assert [(line["log_level"], line["count"], line["first"]) for line in lines_of(summary)] == [
            (level, nodes - LINES_PER_SECOND, f"edge-{LINES_PER_SECOND}")
        ]
    refusals = {n.id: [r.message for r in n.refusals] for n in fleet.nodes.values()}
    assert refusals == {f"edge-{i}": [f"cannot bind {i}"] for i in range(nodes)}


def held_lines(lines: Sequence[MutableMapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines that say who holds a revision, without their times."""
    held = [dict(line) for line in lines if line["event"].startswith("revision held by all")]
    assert all(0 <= line.pop("ms", 0) < 60_000 for line in held)
    return held


def test_a_revision_has_one_line_when_every_node_holds_it(events: EventDispatcher) -> None:
    with capture_logs() as lines:
        events.publish(head(7))
        for stream in (1, 2):
            connect(events, stream, f"edge-{stream}", audience=AT_EDGE)
        for stream in (1, 2, 1):
            events.report(stream, Held(7))
    assert held_lines(lines) == [{"event": "revision held by all", "log_level": "info", "revision": 7, "nodes": 2}]


def test_a_node_that_refuses_the_revision_does_not_hold_it(events: EventDispatcher) -> None:
    events.publish(head(7))
    for stream in (1, 2):
        connect(events, stream, f"edge-{stream}")
    with capture_logs() as lines:
        events.report(1, Held(7))
        events.report(2, Refused(LISTENER, ("public",), "no", 7))
        assert held_lines(lines) == []
        # It holds a later revision except for what it refuses, as everywhere.
        events.publish(head(8))
        events.report(1, Held(8))
        events.report(2, Settled(8, 7))
    assert held_lines(lines) == [
        {"event": "revision held by all", "log_level": "info", "revision": 8, "nodes": 2, "refusing": 1}
    ]


def test_a_node_that_is_gone_delays_the_line_until_it_is_released(fleet: Fleet, events: EventDispatcher) -> None:
    for stream in (1, 2):
        connect(events, stream, f"edge-{stream}", audience=AT_EDGE)
        events.report(stream, Held(7))
    events.report(2, StreamClosed())
    with capture_logs() as lines:
        events.publish(head(8))
        events.report(1, Held(8))
        events.report(1, Held(8))
        assert held_lines(lines) == [
            {
                "event": "revision held by all connected nodes",
                "log_level": "info",
                "revision": 8,
                "nodes": 1,
                "gone": 1,
            }
        ]
        now = time.time() + 25 * 3600
        events.members_changed(fleet.members.release(now), now)
    assert [(line["event"], line.get("nodes"), line.get("node")) for line in lines[1:]] == [
        ("node released: it does not count any more", None, "edge-2"),
        ("revision held by all", 1, None),
    ]


def test_the_line_is_written_when_the_last_node_behind_closes(events: EventDispatcher) -> None:
    events.publish(head(7))
    for stream in (1, 2):
        connect(events, stream, f"edge-{stream}")
    events.report(1, Held(7))
    with capture_logs() as lines:
        events.report(2, StreamClosed())
    assert [(line["event"], line.get("nodes")) for line in lines[1:]] == [("revision held by all", 1)]


async def test_nodes_that_are_late_are_named(events: EventDispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.observers.log.LATE", 0.01)
    with capture_logs() as lines:
        events.publish(head(7))
        connect(events, 1)
        async with asyncio.timeout(10):
            while not (late := [line for line in lines if line["event"] == "revision not held by all yet"]):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    events.close()
    assert late == [
        {"event": "revision not held by all yet", "log_level": "warning", "revision": 7, "behind": 1, "nodes": ["edge-1"]}
    ]


def test_events_of_a_stream_that_is_not_open_have_no_line(events: EventDispatcher) -> None:
    with capture_logs() as lines:
        for event in (Refused(LISTENER, (), "no", 1), Settled(2, 1), Oversized(LISTENER, 5_000_000), StreamClosed()):
            events.report(9, event)
    assert lines == []

"""The loops: what is logged of the fleet, and what is served of the store."""

import asyncio
import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from controlplane.aio.latest import Latest
from controlplane.domain import Gateway, NodeSelector
from controlplane.domain.endpoints import Endpoints
from controlplane.domain.revision import Head
from controlplane.domain.state import State
from controlplane.published import CompiledRevision
from controlplane.reconciler.publish import COALESCE, SINGLY, Observer, Publisher
from controlplane.snapshot import Audience, Snapshot
from controlplane.xds.events import (
    AudienceAssigned,
    Held,
    Identified,
    Oversized,
    Recovered,
    Refused,
    Settled,
    StreamClosed,
    StreamOpened,
)

LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"

EDGE = Gateway("edge", 80, nodes=NodeSelector(clusters=("edge",)))
INNER = Gateway("inner", 81, nodes=NodeSelector(metadata={"zone": "in"}))


def head(number: int, *gateways: Gateway) -> Head:
    return Head(number, State({g.name: g for g in gateways}), {}, time.time())


AT_EDGE = Audience(("edge",))


class Compiler:
    """Compiles nothing, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, Audience, int | None]] = []
        self.broken = False

    def compile(
        self, state: State, endpoints: Endpoints, audience: Audience, revision: int, previous: Snapshot | None = None
    ) -> Snapshot:
        if self.broken:
            raise RuntimeError("broken")
        self.asked.append((revision, audience, previous.revision if previous else None))
        return Snapshot.of(revision, audience, [])


def test_one_line_for_each_thing_that_happens_to_a_node() -> None:
    observer = Observer()
    observer.published(head(7))
    with capture_logs() as lines:
        for stream in (1, 2):
            observer.report(stream, StreamOpened(f"10.0.0.1:{stream}", "delta"))
            observer.report(stream, Identified("edge-1", "edge", {}, "envoy 1.40.0"))
            observer.report(stream, AudienceAssigned(AT_EDGE))
        observer.report(1, Held(7))
        observer.report(1, Refused(LISTENER, ("public",), "cannot bind", 7))
        observer.report(1, Recovered(LISTENER))
        observer.report(1, StreamClosed())
        observer.report(2, StreamClosed())
        observer.report(3, StreamOpened("10.0.0.1:3", "delta"))
        observer.report(3, StreamClosed())
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


async def test_a_fleet_that_comes_and_goes_has_a_line_a_second() -> None:
    observer = Observer()
    with capture_logs() as lines:
        for stream in range(SINGLY + 500):
            observer.report(stream, StreamOpened("10.0.0.1:1", "delta"))
            observer.report(stream, Identified(f"edge-{stream}", "edge", {}, "envoy 1.40.0"))
        assert len(lines) == SINGLY
        async with asyncio.timeout(10):
            while len(lines) == SINGLY:  # noqa: ASYNC110  nobody is told of it
                await asyncio.sleep(0.05)
        assert lines[-1] == {
            "event": "more nodes connected",
            "log_level": "info",
            "count": 500,
            "first": f"edge-{SINGLY}",
        }
        # The next one is told of again; and what was not said yet, is at the end.
        observer.report(9_000, StreamOpened("10.0.0.1:1", "delta"))
        observer.report(9_000, Identified("late", "edge", {}, "envoy 1.40.0"))
        assert lines[-1]["node"] == "late"
        for stream in range(SINGLY + 1):
            observer.report(stream, StreamClosed())
        observer.close()
        assert lines[-1]["event"] == "more nodes disconnected"
        assert lines[-1]["count"] == 1


async def test_a_fleet_that_refuses_has_a_line_a_second_and_all_of_it_can_be_asked_for() -> None:
    observer, nodes = Observer(), 1_000
    observer.published(head(1))

    def told(event: str) -> list[dict[str, Any]]:
        return [dict(line) for line in lines if line["event"] == event]

    with capture_logs() as lines:
        for stream in range(nodes):
            observer.report(stream, StreamOpened("10.0.0.1:1", "delta"))
            observer.report(stream, Identified(f"edge-{stream}", "edge", {}, "envoy 1.40.0"))
            observer.report(stream, Refused(LISTENER, ("public",), f"cannot bind {stream}", 1))
        async with asyncio.timeout(10):
            while not told("revision refused by more"):  # noqa: ASYNC110  nobody is told of it
                await asyncio.sleep(0.05)
        # So have those that hold what is newer, but for that; and what is too large for some.
        for stream in range(nodes):
            observer.report(stream, Settled(2, 1))
            observer.report(stream, Oversized(LISTENER, 5_000_000))
        observer.close()
    assert [line["node"] for line in told("revision refused")] == [f"edge-{i}" for i in range(SINGLY)]
    assert told("revision refused by more") == [
        {
            "event": "revision refused by more",
            "log_level": "warning",
            "count": nodes - SINGLY,
            "first": f"edge-{SINGLY}",
            "revision": 1,
            "type": "Listener",
            "resources": ["public"],
            "error": f"cannot bind {SINGLY}",
        }
    ]
    for one, more, level in (
        ("revision held but for an older refusal", "revision held by more but for older refusals", "info"),
        (
            "response above gRPC's default limit; google_grpc clients may drop the stream",
            "more responses above gRPC's default limit",
            "warning",
        ),
    ):
        assert len(told(one)) == SINGLY
        assert [(line["log_level"], line["count"], line["first"]) for line in told(more)] == [
            (level, nodes - SINGLY, f"edge-{SINGLY}")
        ]
    # Nothing is lost but lines.
    words = {n.id: [r.message for r in n.refusals] for n in observer.fleet.nodes.values()}
    assert words == {f"edge-{i}": [f"cannot bind {i}"] for i in range(nodes)}


def test_one_line_once_nobody_is_behind() -> None:
    observer = Observer()
    with capture_logs() as lines:
        for revision in (7, 8):
            observer.published(head(revision))
            for stream in (1, 2):
                if revision == 7:
                    observer.report(stream, StreamOpened(f"10.0.0.1:{stream}", "delta"))
                    observer.report(stream, Identified(f"edge-{stream}", "edge", {}, "envoy 1.40.0"))
                    observer.report(stream, AudienceAssigned(AT_EDGE))
            observer.report(1, Held(revision))
            observer.report(2, Refused(LISTENER, ("public",), "no", 8) if revision == 8 else Held(revision))
            observer.report(1, Held(revision))
    held = [line for line in lines if line["event"] == "revision held by all"]
    assert all(0 <= line.pop("ms") < 60_000 for line in held)
    assert held == [
        {"event": "revision held by all", "log_level": "info", "revision": 7, "nodes": 2},
        {"event": "revision held by all", "log_level": "info", "revision": 8, "nodes": 1, "refusing": 1},
    ]


async def test_those_that_are_late_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.reconciler.publish.LATE", 0.01)
    observer = Observer()
    with capture_logs() as lines:
        observer.published(head(7))
        observer.report(1, StreamOpened("10.0.0.1:1", "delta"))
        observer.report(1, Identified("edge-1", "edge", {}, "envoy 1.40.0"))
        async with asyncio.timeout(10):
            while not (late := [line for line in lines if line["event"] == "revision not held by all yet"]):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    observer.close()
    assert late == [
        {"event": "revision not held by all yet", "log_level": "warning", "revision": 7, "behind": 1, "nodes": ["edge-1"]}
    ]


def test_nodes_are_counted_by_what_they_would_be_served() -> None:
    observer = Observer()
    observer.published(head(1, EDGE))
    for stream, (node, zone) in enumerate([("a", "in"), ("b", "in"), ("c", "out")]):
        observer.report(stream, StreamOpened("10.0.0.1:1", "delta"))
        observer.report(stream, Identified(node, "edge", {"zone": zone}))
        observer.report(stream, AudienceAssigned(AT_EDGE))
    observer.report(1, StreamClosed())
    assert observer.by_audience(head(2, EDGE).state) == {AT_EDGE: 2}
    assert observer.by_audience(head(2, EDGE, INNER).state) == {Audience(("edge", "inner")): 1, AT_EDGE: 1}
    assert observer.by_audience(State()) == {Audience(): 2}


def test_nodes_that_did_not_say_yet_what_they_are_served_are_counted_by_what_it_will_be() -> None:
    observer = Observer()
    observer.published(head(1, EDGE))
    for stream, node in enumerate(("a", "b")):
        observer.report(stream, StreamOpened("10.0.0.1:1", "delta"))
        observer.report(stream, Identified(node, "edge", {"zone": "in"}))
        assert observer.by_audience(head(1, EDGE).state) == {AT_EDGE: stream + 1}
        observer.report(stream, AudienceAssigned(AT_EDGE))
        observer.report(stream, Held(1))
    both, after = Audience(("edge", "inner")), head(2, EDGE, INNER)
    observer.published(after)
    assert observer.by_audience(after.state) == {both: 2}
    observer.report(0, AudienceAssigned(both))
    observer.report(0, Held(2))
    assert observer.by_audience(after.state) == {both: 2}
    # Those that hold it are what they said, and are not looked at again.
    observer.report(1, AudienceAssigned(AT_EDGE))
    observer.report(1, Held(2))
    observer.published(head(3, EDGE, INNER))
    assert observer.by_audience(after.state) == {both: 1, AT_EDGE: 1}


def test_a_node_that_never_holds_anything_is_counted_by_who_it_says_it_is_now() -> None:
    observer = Observer()
    observer.published(head(1, EDGE, INNER))
    both, state = Audience(("edge", "inner")), head(1, EDGE, INNER).state
    observer.report(1, StreamOpened("10.0.0.1:1", "delta"))
    observer.report(1, Identified("mute", "edge", {"zone": "in"}))
    assert observer.by_audience(state) == observer.by_audience(state) == {both: 1}
    observer.report(2, StreamOpened("10.0.0.1:2", "delta"))
    observer.report(2, Identified("mute", "edge", {}))
    assert observer.by_audience(state) == {AT_EDGE: 1}
    for stream in (1, 2):
        observer.report(stream, StreamClosed())
    assert observer.by_audience(state) == {}
    assert not observer._aimed
    observer.report(3, StreamOpened("10.0.0.1:3", "delta"))
    observer.report(3, Identified("mute", "edge", {"zone": "in"}))
    assert observer.by_audience(state) == {both: 1}
    observer.published(head(2, EDGE))
    assert observer.by_audience(head(2, EDGE).state) == {AT_EDGE: 1}


def test_a_world_compiles_once_an_audience_and_only_what_is_asked_for() -> None:
    compiler = Compiler()
    first = CompiledRevision(head(1, EDGE, INNER), compiler)
    assert compiler.asked == []
    assert first.snapshot(AT_EDGE) is first.snapshot(AT_EDGE)
    first.snapshot(Audience(("inner",)))
    assert compiler.asked == [(1, AT_EDGE, None), (1, Audience(("inner",)), None)]
    # The next is ready for who asked before, and has the old one to go by; an audience without its gateway is gone.
    compiler.asked.clear()
    world = first.next(head(2, EDGE))
    assert compiler.asked == [(2, AT_EDGE, 1)]
    world.snapshot(AT_EDGE)
    # When nobody asks any more it is made ready for a while, and then when somebody does.
    for number in range(3, 100):
        compiler.asked.clear()
        world = world.next(head(number, EDGE))
    assert compiler.asked == []
    world.snapshot(AT_EDGE)
    assert compiler.asked == [(99, AT_EDGE, None)]


def test_worlds_with_the_same_gateways_say_so() -> None:
    first = CompiledRevision(head(1, EDGE), Compiler())
    second = first.next(head(2, EDGE))
    third = second.next(head(3, EDGE, INNER))
    assert first.gateways is second.gateways is not third.gateways
    assert [w.note(Audience()) for w in (second, third)] == [
        "no gateway selects it: edge wants cluster in [edge]",
        "no gateway selects it: edge wants cluster in [edge]; inner wants metadata zone = in",
    ]


async def test_what_does_not_compile_leaves_what_is_served() -> None:
    compiler, heads, observer = Compiler(), Latest(head(1, EDGE)), Observer()
    publisher = Publisher(heads, compiler, observer)
    publisher.publish()
    before = publisher.published.value
    assert before is not None
    before.snapshot(AT_EDGE)
    compiler.broken = True
    heads.set(head(2, EDGE))
    with capture_logs() as lines:
        publisher.publish()
    assert publisher.published.value is before
    assert observer.fleet.revision == 1
    assert [(line["event"], line["log_level"]) for line in lines] == [("revision not served: it does not compile", "error")]


async def test_the_first_change_goes_out_at_once_and_a_burst_after_it_together() -> None:
    heads, observer = Latest(head(1)), Observer()
    publisher = Publisher(heads, Compiler(), observer)
    publisher.publish()
    run = asyncio.create_task(publisher.run())
    served: list[int] = []

    async def watch() -> None:
        async for world in publisher.published.watch():
            if world is not None:
                served.append(world.revision)

    watching = asyncio.create_task(watch())
    began = time.monotonic()
    async with asyncio.timeout(5):
        await asyncio.sleep(0.02)
        assert publisher.published.serial == 1  # what is published is not published again
        for number in range(2, 40):
            heads.set(head(number))
            await asyncio.sleep(0)
        while publisher.published.value is None or publisher.published.value.revision < 39:
            await publisher.published.newer(publisher.published.serial)
        await asyncio.sleep(0)
    for task in (run, watching):
        task.cancel()
    assert served[0] == 1
    assert served[-1] == 39
    assert served[1] in (2, 3)
    assert len(served) <= 4 + (time.monotonic() - began) / COALESCE


async def test_watchers_of_the_fleet_are_let_go_and_stay_so() -> None:
    observer = Observer()
    observer.close()
    observer.report(1, StreamOpened("10.0.0.1:1", "delta"))
    assert observer.changed.value is None
    assert observer.fleet.streams == 1

"""The dispatcher: an event gets one time, is passed to the observers in order, and wakes the watchers."""

from __future__ import annotations

import time
from collections.abc import Mapping

from controlplane.domain.revision import Head
from controlplane.fleet import Fleet
from controlplane.observers import Handler, Observer
from controlplane.observers.folds import FleetFold
from controlplane.reconciler.report import EventDispatcher
from controlplane.xds.events import Held, LoadReported, ReporterIdentified, StreamClosed, StreamEvent, StreamOpened
from tests.events import connect, head


class Recorder(Observer):
    """Handles some types of events, and records its calls in a list that several observers share."""

    def __init__(self, name: str, calls: list[object], *types: type, fleet: Fleet | None = None) -> None:
        self.name, self.calls, self.types, self.fleet = name, calls, types, fleet

    def handlers(self) -> Mapping[type, Handler]:
        return dict.fromkeys(self.types, self.handle)

    def handle(self, stream: int, event: StreamEvent, now: float) -> None:
        node = self.fleet.node_of(stream) if self.fleet is not None else None
        self.calls.append((self.name, stream, event, now) if node is None else (self.name, node.id, node.connected))

    def publish(self, head: Head) -> None:
        self.calls.append((self.name, head.number))

    def close(self) -> None:
        self.calls.append((self.name, "closed"))


def test_an_event_gets_one_time_and_is_passed_to_its_observers_in_order() -> None:
    calls: list[object] = []
    times = iter([100.0, 101.0])
    observers = [Recorder("a", calls, Held, LoadReported), Recorder("b", calls, StreamClosed), Recorder("c", calls, Held)]
    events = EventDispatcher(Fleet(), observers, clock=lambda: next(times))
    held, closed = Held(1), StreamClosed()
    events.report(1, held)
    events.report(2, closed)
    events.report(3, held, 90.0)
    assert calls == [
        ("a", 1, held, 100.0),
        ("c", 1, held, 100.0),
        ("b", 2, closed, 101.0),
        ("a", 3, held, 90.0),
        ("c", 3, held, 90.0),
    ]


def test_the_clock_is_the_wall_clock() -> None:
    fleet = Fleet()
    events = EventDispatcher(fleet, [FleetFold(fleet)])
    before = time.time()
    connect(events, 1)
    assert before <= fleet.nodes["edge-1"].last_seen <= time.time()


def test_every_observer_is_called_for_a_head_and_at_the_end() -> None:
    calls: list[object] = []
    events = EventDispatcher(Fleet(), [Recorder("a", calls), Observer(), Recorder("b", calls)])
    events.publish(head(7))
    events.close()
    assert calls == [("a", 7), ("b", 7), ("a", "closed"), ("b", "closed")]


def test_the_fleet_has_applied_an_event_before_other_observers_get_it() -> None:
    calls: list[object] = []
    fleet = Fleet()
    events = EventDispatcher(fleet, [FleetFold(fleet), Recorder("log", calls, StreamClosed, fleet=fleet)])
    connect(events, 1)
    connect(events, 2)
    events.report(1, StreamClosed())
    events.report(2, StreamClosed())
    assert calls == [("log", "edge-1", True), ("log", "edge-1", False)]


def test_only_events_that_change_the_fleet_wake_the_watchers() -> None:
    fleet = Fleet()
    events = EventDispatcher(fleet, [FleetFold(fleet)])
    events.report(1, StreamOpened("10.0.0.1:1", "delta"))
    assert (events.changed.serial, events.changed.value) == (1, fleet)
    events.report(2, ReporterIdentified("edge-1"))
    events.report(2, LoadReported(()))
    assert events.changed.serial == 1
    events.publish(head(7))
    assert events.changed.serial == 2


def test_watches_end_and_stay_ended_while_events_are_still_folded() -> None:
    fleet = Fleet()
    events = EventDispatcher(fleet, [FleetFold(fleet)])
    events.close()
    assert events.changed.value is None
    events.report(1, StreamOpened("10.0.0.1:1", "delta"))
    events.publish(head(7))
    assert events.changed.value is None
    assert (fleet.streams, fleet.revision) == (1, 7)

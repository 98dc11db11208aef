"""Metrics of the fleet: the same numbers as `turnout status`."""

from prometheus_client import CollectorRegistry

from controlplane.fleet import Fleet, NodeState
from controlplane.observers.folds import FleetFold
from controlplane.observers.metrics import FleetMetrics
from controlplane.reconciler.report import EventDispatcher
from controlplane.xds.events import Held, Refused, StreamClosed
from tests.events import LISTENER, connect, head


def test_nodes_are_counted_by_state() -> None:
    fleet, registry = Fleet(), CollectorRegistry()
    events = EventDispatcher(fleet, [FleetFold(fleet), FleetMetrics(fleet, registry)])

    def nodes() -> dict[str, float | None]:
        return {s.value: registry.get_sample_value("turnout_nodes", {"state": s.value}) for s in NodeState}

    assert nodes() == {"synced": 0, "behind": 0, "refusing": 0, "gone": 0, "released": 0}
    events.publish(head(7))
    for stream in range(5):
        connect(events, stream, f"edge-{stream}")
    for stream in (0, 1):
        events.report(stream, Held(7))
    events.report(2, Refused(LISTENER, ("public",), "cannot bind", 7))
    events.report(3, StreamClosed())
    assert nodes() == {"synced": 2, "behind": 1, "refusing": 1, "gone": 0, "released": 1}
    events.report(0, StreamClosed())
    assert nodes() == {"synced": 1, "behind": 1, "refusing": 1, "gone": 1, "released": 1}
    events.publish(head(8))
    assert nodes() == {s.value: fleet.counts[s] for s in NodeState}
    assert nodes() == {"synced": 0, "behind": 2, "refusing": 1, "gone": 1, "released": 1}


def test_the_revision_is_the_newest_that_is_served() -> None:
    fleet, registry = Fleet(), CollectorRegistry()
    events = EventDispatcher(fleet, [FleetFold(fleet), FleetMetrics(fleet, registry)])
    assert registry.get_sample_value("turnout_revision") == 0
    for number in (1, 7):
        events.publish(head(number))
        assert registry.get_sample_value("turnout_revision") == number


def test_registries_are_independent() -> None:
    first, second = CollectorRegistry(), CollectorRegistry()
    fleet = Fleet()
    FleetMetrics(fleet, first)
    FleetMetrics(Fleet(), second)
    fleet.counts[NodeState.SYNCED] = 3
    samples = [r.get_sample_value("turnout_nodes", {"state": "synced"}) for r in (first, second)]
    assert samples == [3, 0]

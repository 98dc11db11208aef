"""The folds as observers: each handles the events of its own kind of stream."""

from typing import get_args

from controlplane.domain import Endpoint, Gateway, Model, Version
from controlplane.domain.revision import Head
from controlplane.domain.state import State
from controlplane.fleet import Fleet
from controlplane.observers.folds import ACCESS_EVENTS, FLEET_EVENTS, MESSAGE_EVENTS, TRAFFIC_EVENTS, FleetFold, TrafficFold
from controlplane.traffic import Traffic
from controlplane.xds.events import Held, LoadReported, ReporterIdentified, StreamEvent
from tests.events import EDGE, head
from tests.test_traffic import load


def test_every_event_has_a_fold() -> None:
    assert {*FLEET_EVENTS, *MESSAGE_EVENTS, *ACCESS_EVENTS, *TRAFFIC_EVENTS} == set(get_args(StreamEvent))
    assert FleetFold(Fleet()).handlers().keys() == {*FLEET_EVENTS, *MESSAGE_EVENTS}
    assert TrafficFold(Traffic()).handlers().keys() == set(TRAFFIC_EVENTS)


def test_a_message_without_an_event_of_its_own_wakes_no_watcher() -> None:
    assert not set(MESSAGE_EVENTS) & set(FLEET_EVENTS)


def test_the_gateways_say_when_a_node_is_released() -> None:
    fleet = Fleet()
    FleetFold(fleet).publish(head(7, Gateway("edge", 80, expected_nodes=2)))
    assert [e.gateway for e in fleet.members.expected({})] == ["edge"]


def test_the_fleet_is_expected_to_hold_the_published_revision() -> None:
    fleet = Fleet()
    FleetFold(fleet).publish(head(7, EDGE))
    assert fleet.revision == 7
    FleetFold(fleet).handlers()[Held](1, Held(8), 100.0)
    assert fleet.revision == 8


def test_reports_count_for_the_published_models() -> None:
    traffic = Traffic()
    fold = TrafficFold(traffic)
    version = Version("blue", (Endpoint("127.0.0.1", 9001),))
    fold.publish(Head(1, State({"edge": EDGE}, {"iris": Model("iris", ("edge",), (version,), {"blue": 10_000})})))
    handlers = fold.handlers()
    handlers[ReporterIdentified](1, ReporterIdentified("edge-1"), 100.0)
    handlers[LoadReported](1, LoadReported((load("iris/blue", issued=10), load("wine/blue", issued=10))), 110.0)
    assert (traffic.cluster("iris/blue").totals.tries, traffic.cluster("wine/blue").totals.tries) == (10, 0)
    assert traffic.last_report == 110.0

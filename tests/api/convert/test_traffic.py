"""Conversion of observed traffic."""

from __future__ import annotations

from controlplane.api.convert.traffic import node_traffic_to_proto, traffic_to_proto
from controlplane.domain import Endpoint, Mirror, Model, Version
from controlplane.traffic import Traffic
from controlplane.xds.events import LoadReported, ReporterIdentified
from tests.test_traffic import load

VERSIONS = tuple(Version(name, (Endpoint(f"10.0.0.{i}", 80),)) for i, name in enumerate(("blue", "green"), 1))
IRIS = Model("iris", ("edge",), VERSIONS, {"blue": 10_000}, mirror=Mirror("green"))


def reported(*nodes: str) -> Traffic:
    """Return the traffic after one report of each node: 100 more requests to blue for each further node."""
    traffic = Traffic(100.0)
    traffic.publish({"iris": IRIS})
    for stream, node in enumerate(nodes):
        traffic.apply(stream, ReporterIdentified(node), 110.0)
        blue = load(issued=100 * (stream + 1), failed=10, active=2)
        traffic.apply(stream, LoadReported((blue, load("iris/green/mirror", issued=20))), 120.0)
    return traffic


def test_rates_and_totals_of_each_version() -> None:
    message = traffic_to_proto(IRIS, reported("edge-1", "edge-2"), 130.0)
    assert message.model == "models/iris"
    assert [(v.version, v.copies, v.share) for v in message.versions] == [
        ("green", False, 0),
        ("green", True, 0),
        ("blue", False, 10_000),
    ]
    blue = message.versions[2]
    assert (blue.rate.requests_per_second, blue.rate.errors_per_second, blue.rate.in_progress) == (30.0, 2.0, 4)
    assert (blue.rate.tries_per_second, blue.rate.successes_per_second) == (30.0, 28.0)
    assert (blue.totals.requests, blue.totals.tries) == (300, 300)
    assert (blue.totals.tries, blue.totals.successes, blue.totals.errors, blue.nodes) == (300, 280, 20, 2)
    assert blue.last_request_time.seconds == 120
    assert not message.versions[0].HasField("last_request_time")


def test_nodes_are_sorted_by_requests_and_limited() -> None:
    traffic = reported("edge-1", "edge/2")
    nodes = node_traffic_to_proto(IRIS, traffic, 10)
    assert [(n.node, n.version, n.copies) for n in nodes] == [
        ("nodes/edge%2F2", "blue", False),
        ("nodes/edge-1", "blue", False),
        ("nodes/edge-1", "green", True),
        ("nodes/edge%2F2", "green", True),
    ]
    assert node_traffic_to_proto(IRIS, traffic, 1) == nodes[:1]

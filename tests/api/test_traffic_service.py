"""The service for observed traffic."""

from __future__ import annotations

import pytest

from controlplane.aio.latest import Latest
from controlplane.api.traffic_service import TrafficService
from controlplane.errors import Code, Error
from controlplane.fleet import Fleet
from controlplane.generated.turnout.v1 import model_pb2
from controlplane.generated.turnout.v1 import traffic_service_pb2 as pb
from controlplane.traffic import Traffic
from controlplane.xds.events import LoadReported, ReporterIdentified
from tests.api.api import Api, model
from tests.test_traffic import load


@pytest.fixture
async def traffic(api: Api) -> TrafficService:
    """Make a service with model `iris`, which has a mirror to green, and three nodes that report."""
    await api.apply(model(split={"blue": 10_000}, mirror=model_pb2.Mirror(version="green")), force=True)
    traffic = Traffic(100.0)
    traffic.publish(api.store.head.value.state.models)
    for stream, node in enumerate(("edge-1", "edge/2", "edge-3")):
        traffic.apply(stream, ReporterIdentified(node), 110.0)
        blue = load(issued=100 * stream, failed=10 * stream, active=1)
        traffic.apply(stream, LoadReported((blue, load("iris/green/mirror", issued=50))), 120.0)
    return TrafficService(api.store, traffic, Latest(Fleet()))


async def test_versions_are_listed_newest_first_with_separate_copies(traffic: TrafficService) -> None:
    response = await traffic.GetTraffic(pb.GetTrafficRequest(name="models/iris"), None)
    versions = response.traffic.versions
    assert [(v.version, v.copies, v.share) for v in versions] == [
        ("red", False, 0),
        ("green", False, 0),
        ("green", True, 0),
        ("blue", False, 10_000),
    ]
    copies, blue = versions[2], versions[3]
    assert (copies.rate.requests_per_second, copies.nodes) == (15.0, 3)
    assert (blue.rate.requests_per_second, blue.rate.errors_per_second, blue.rate.in_progress) == (30.0, 3.0, 3)
    assert (blue.totals.requests, blue.totals.successes, blue.totals.errors) == (300, 270, 30)
    assert blue.last_request_time.seconds == 120
    assert not versions[0].HasField("last_request_time")
    assert (response.source.reporting_nodes, response.source.connected_nodes) == (3, 0)
    assert (response.source.last_report_time.seconds, response.source.start_time.seconds) == (120, 100)


async def test_the_nodes_with_the_most_requests_come_first(traffic: TrafficService) -> None:
    response = await traffic.GetTraffic(pb.GetTrafficRequest(name="models/iris", max_nodes=3), None)
    assert [(n.node, n.version, n.copies) for n in response.nodes] == [
        ("nodes/edge-3", "blue", False),
        ("nodes/edge%2F2", "blue", False),
        ("nodes/edge-1", "green", True),
    ]


async def test_pages(traffic: TrafficService) -> None:
    first = await traffic.ListTraffic(pb.ListTrafficRequest(page_size=1), None)
    assert ([t.model for t in first.traffic], first.source.reporting_nodes) == (["models/iris"], 3)
    second = await traffic.ListTraffic(pb.ListTrafficRequest(page_token=first.next_page_token), None)
    assert ([t.model for t in second.traffic], second.next_page_token) == (["models/wine"], "")


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (pb.GetTrafficRequest(name="models/none"), Code.NOT_FOUND),
        (pb.GetTrafficRequest(name="gateways/edge"), Code.INVALID_ARGUMENT),
        (pb.GetTrafficRequest(name="models/iris", max_nodes=-1), Code.INVALID_ARGUMENT),
    ],
)
async def test_bad_requests(traffic: TrafficService, request_: pb.GetTrafficRequest, code: Code) -> None:
    with pytest.raises(Error) as error:
        await traffic.GetTraffic(request_, None)
    assert error.value.code is code

"""The service for the status."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.api.status_service import StatusService
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1 import node_pb2
from controlplane.generated.turnout.v1 import status_pb2 as pb
from controlplane.generated.turnout.v1 import status_service_pb2 as spb
from controlplane.problems.judge import Observed
from tests.api.api import Api
from tests.problems.fleets import SampleFleet
from tests.test_traffic import load


@pytest.fixture
def sample() -> SampleFleet:
    """Two nodes of which one refuses a cluster of wine, and a version of iris that fails."""
    return SampleFleet().add(1, 2).refuse(1, "wine/blue").report(2, 110, load("iris/blue", issued=100, failed=100))


@pytest.fixture
def service(api: Api, sample: SampleFleet) -> StatusService:
    return StatusService(
        lambda: Observed(api.store.head.value, sample.fleet, sample.traffic, sample.store_failure), lambda: 120.0
    )


async def status(service: StatusService, **request: Any) -> pb.Status:
    return (await service.GetStatus(spb.GetStatusRequest(**request), None)).status


async def test_problems_first_with_nodes_that_are_not_in_sync(service: StatusService) -> None:
    answer = await status(service)
    assert (answer.level, [p.reason for p in answer.problems]) == (pb.STATUS_LEVEL_CRITICAL, ["VERSION_FAILS", "NODES_REFUSE"])
    assert answer.text == "CRITICAL: 2 problems: VERSION_FAILS models/iris, NODES_REFUSE nodes/edge-1"
    assert answer.problems[0].text == "models/iris: 100% of the tries at version blue end with an error (10.0 tries/s)"
    assert (answer.summary.synced, answer.summary.refusing) == (1, 1)
    assert [n.name for n in answer.nodes] == ["nodes/edge-1"]
    assert not (await status(service, max_nodes=1, error="zebra")).nodes


async def test_a_filter_changes_the_level_and_the_text(service: StatusService) -> None:
    wine = await status(service, models=["models/wine"])
    assert (wine.level, [p.reason for p in wine.problems]) == (pb.STATUS_LEVEL_WARNING, ["NODES_REFUSE"])
    assert wine.text == "WARNING: 1 problem: NODES_REFUSE nodes/edge-1"
    gone = await status(service, states=[node_pb2.NODE_STATE_GONE])
    assert (gone.level, gone.text) == (pb.STATUS_LEVEL_OK, "OK: no problem matches the filter; 2 more exist")
    ignored = await status(service, ignored_reasons=["VERSION_FAILS"])
    assert ignored.level == pb.STATUS_LEVEL_WARNING


@pytest.mark.parametrize(
    ("request_fields", "code", "text"),
    [
        ({"models": ["models/rose"]}, Code.NOT_FOUND, "models/rose does not exist"),
        ({"models": ["gateways/edge"]}, Code.INVALID_ARGUMENT, "not the name of one of the models"),
        ({"states": [9]}, Code.INVALID_ARGUMENT, "states[0]: 9 is not the state of a node"),
        ({"ignored_reasons": ["NOISE"]}, Code.INVALID_ARGUMENT, "'NOISE' is not a reason. There are: VERSION_FAILS, "),
        ({"max_nodes": -1}, Code.INVALID_ARGUMENT, "-1 is negative"),
    ],
)
async def test_bad_requests(service: StatusService, request_fields: dict[str, Any], code: Code, text: str) -> None:
    with pytest.raises(Error) as caught:
        await status(service, **request_fields)
    assert caught.value.code is code
    assert text in caught.value.message

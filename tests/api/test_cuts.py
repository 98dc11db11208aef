"""Changes that cut traffic, through every method that changes desired state."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from controlplane.fleet import Node
from controlplane.generated.turnout.v1 import (
    gateway_pb2,
    gateway_service_pb2,
    model_pb2,
    model_service_pb2,
    revision_pb2,
    revision_service_pb2,
    secret_service_pb2,
)
from tests.api.api import Api, gateway, model, refused, serving
from tests.fakes.connected_nodes import FakeNodes

FILES = (gateway_service_pb2, model_service_pb2, revision_service_pb2, secret_service_pb2)
PATH = "model iris loses its path at 0.0.0.0:8080 on edge-1"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """Revision 1: gateway `edge` with model `iris`. Revision 2: also model `wine`. One node is connected."""
    async with serving(tmp_path, FakeNodes([Node("edge-1")])) as api:
        await api.apply(gateway(), model(split={"blue": 10_000}))
        await api.apply(model("wine", split={"blue": 10_000}))
        yield api


async def call_and_allow(call: Callable[..., Awaitable[Any]], request: Callable[..., Any], texts: list[str]) -> Any:
    """Check that a request is refused for these losses, even with force, and made with allow_cut. Return the response."""
    error = await refused(call(request()))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CUTS_TRAFFIC")
    assert [v.description for v in error.details["PreconditionFailure"].violations] == texts
    assert error.details["ErrorInfo"].metadata["losses"] == str(len(texts))
    # The dry run is not refused, and has the same token.
    tried = (await call(request(validate_only=True))).impact
    assert [loss.text for loss in tried.losses] == texts
    assert (tried.loss_count, tried.cut_token) == (len(texts), error.details["ErrorInfo"].metadata["cut_token"])
    done = await call(request(allow_cut=True, cut_token=tried.cut_token))
    assert [loss.text for loss in done.impact.losses] == texts
    return done


def requests(api: Api) -> dict[str, tuple[Any, Callable[..., Any]]]:
    """Return the methods by which `iris` can be cut, each with its request."""
    routed_by_header = gateway_pb2.Gateway(name="gateways/edge", header=gateway_pb2.HeaderRouting(name="x-model"))
    keyed = model_pb2.Model(name="models/iris", keys=["flower"])

    def delete_model(**fields: Any) -> Any:
        return model_service_pb2.DeleteModelRequest(name="models/iris", force=True, **fields)

    def update_model(**fields: Any) -> Any:
        return model_service_pb2.UpdateModelRequest(model=keyed, **fields)

    def update_gateway(**fields: Any) -> Any:
        return gateway_service_pb2.UpdateGatewayRequest(gateway=routed_by_header, **fields)

    def apply(**fields: Any) -> Any:
        return revision_service_pb2.ApplyRequest(delete_names=["models/iris"], force=True, **fields)

    def revert_to(**fields: Any) -> Any:
        return revision_service_pb2.RevertToRequest(name="revisions/0", force=True, **fields)

    def restore_state(**fields: Any) -> Any:
        return revision_service_pb2.RestoreStateRequest(name="revisions/0", force=True, **fields)

    def revert_revision(**fields: Any) -> Any:
        return revision_service_pb2.RevertRevisionRequest(name="revisions/2", **fields)

    return {
        "DeleteModel": (api.models.DeleteModel, delete_model),
        "UpdateModel": (api.models.UpdateModel, update_model),
        "UpdateGateway": (api.gateways.UpdateGateway, update_gateway),
        "Apply": (api.revisions.Apply, apply),
        "RevertTo": (api.revisions.RevertTo, revert_to),
        "RestoreState": (api.revisions.RestoreState, restore_state),
        "RevertRevision": (api.revisions.RevertRevision, revert_revision),
    }


EVERYTHING = ["edge-1 loses its only listener 0.0.0.0:8080 with models iris, wine"]
LOSSES = {
    "DeleteModel": [PATH],
    "Apply": [PATH],
    "UpdateModel": ["model iris loses its path 'iris' at 0.0.0.0:8080 on edge-1"],
    "UpdateGateway": [
        "models iris, wine can't be reached by path segment 3 at 0.0.0.0:8080 any more, only by header x-model, on edge-1"
    ],
    "RevertTo": EVERYTHING,
    "RestoreState": EVERYTHING,
    "RevertRevision": ["model wine loses its path at 0.0.0.0:8080 on edge-1"],
}


@pytest.mark.parametrize("method", LOSSES)
async def test_every_method_that_can_cut_traffic_needs_permission(api: Api, method: str) -> None:
    call, request = requests(api)[method]
    before = api.number
    await call_and_allow(call, request, LOSSES[method])
    assert api.number == before + 1


async def test_an_etag_does_not_permit_a_cut(api: Api) -> None:
    live = (await api.models.GetModel(model_service_pb2.GetModelRequest(name="models/iris"))).model
    request = model_service_pb2.DeleteModelRequest(name="models/iris", etag=live.etag)
    assert (await refused(api.models.DeleteModel(request))).reason == "CUTS_TRAFFIC"


async def test_a_loss_that_has_grown_is_refused_again(api: Api) -> None:
    def request(*names: str, **fields: Any) -> Any:
        return revision_service_pb2.ApplyRequest(delete_names=names, force=True, **fields)

    token = (await api.revisions.Apply(request("models/iris", validate_only=True))).impact.cut_token
    error = await refused(api.revisions.Apply(request("models/iris", "models/wine", allow_cut=True, cut_token=token)))
    assert error.reason == "CUTS_TRAFFIC"
    assert "other traffic than was allowed, so it needs another dry run: models iris, wine lose their path" in error.message
    assert (await refused(api.revisions.Apply(request("models/iris", cut_token=token)))).fields == ["cut_token"]


async def test_a_loss_is_a_message_with_its_nodes_and_models(api: Api) -> None:
    answer = await api.revisions.Apply(
        revision_service_pb2.ApplyRequest(delete_names=["models/iris"], force=True, validate_only=True)
    )
    (loss,) = answer.impact.losses
    assert loss == revision_pb2.Loss(
        kind=revision_pb2.LOSS_KIND_MODEL,
        text=PATH,
        address="0.0.0.0:8080",
        models=["models/iris"],
        model_count=1,
        nodes=["nodes/edge-1"],
        node_count=1,
    )


async def test_a_change_that_only_adds_needs_nothing(api: Api) -> None:
    answer = await api.apply(gateway("more", port=8081), model("rose", split={"blue": 10_000}))
    assert (answer.changed, list(answer.impact.losses), answer.impact.cut_token) == (True, [], "")


@pytest.mark.parametrize("method", [m for f in FILES for s in f.DESCRIPTOR.services_by_name.values() for m in s.methods])
def test_every_request_that_changes_state_can_permit_a_cut(method: Any) -> None:
    fields = set(method.input_type.fields_by_name)
    # Purging keys makes no revision: what is live stays.
    revises = "validate_only" in fields and method.name != "PurgeKeys"
    assert {"allow_cut", "cut_token"} <= fields if revises else not fields & {"allow_cut", "cut_token"}

"""Refusals of changes by object, dry runs, cuts, authors and notes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from google.protobuf.field_mask_pb2 import FieldMask

from controlplane.generated.turnout.v1 import gateway_service_pb2 as gpb
from controlplane.generated.turnout.v1 import model_service_pb2 as mpb
from controlplane.generated.turnout.v1 import revision_service_pb2 as rpb
from tests.api.api import Api, gateway, model, refused, serving
from tests.fakes.gate import FakeGate, acting

RULES = """
rules:
- {who: ["user:root"], role: admin}
- {who: ["user:vera"], role: viewer}
- {who: ["user:sam"], role: switcher, on: [models/iris]}
- {who: ["user:ed"], role: editor, on: [models/*, gateways/*]}
- {who: ["user:cut"], role: cutter}
- {who: ["user:cut"], role: editor}
- {who: ["user:ml"], role: editor, labels: {team: ml}}
"""


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with serving(tmp_path, gate=FakeGate(RULES)) as api:
        models = [model(split={"blue": 10_000}), model("wine", split={"blue": 10_000})]
        manifest = rpb.Manifest(gateways=[gateway()], models=models)
        await api.revisions.Apply(rpb.ApplyRequest(manifest=manifest), metadata=acting("user:root"))
        yield api


def switch(name: str = "iris", to: str = "green", **fields: Any) -> mpb.SwitchTrafficRequest:
    return mpb.SwitchTrafficRequest(switches=[mpb.TrafficSwitch(model=f"models/{name}", version=to)], force=True, **fields)


async def test_a_switcher_moves_its_own_model_and_no_other(api: Api) -> None:
    mine = acting("user:sam")
    assert (await api.models.SwitchTraffic(switch(), metadata=mine)).revision.number == 2
    refusal = await refused(api.models.SwitchTraffic(switch("wine"), metadata=mine))
    assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
    assert refusal.message == "needs switcher on models/wine; user:sam is switcher on models/iris"
    assert refusal.details["ResourceInfo"].resource_name == "models/wine"
    # Together with its own, too, and also if nothing would change.
    both = mpb.SwitchTrafficRequest(switches=[*switch(to="blue").switches, *switch("wine").switches], force=True)
    assert (await refused(api.models.SwitchTraffic(both, metadata=mine))).message.startswith("needs switcher on models/wine")
    assert (await refused(api.models.SwitchTraffic(switch("wine", "blue"), metadata=mine))).reason == "NEEDS_ROLE"
    assert api.number == 2
    undo = mpb.UndoModelsRequest(undos=[mpb.ModelUndo(model="models/iris")], force=True)
    assert (await api.models.UndoModels(undo, metadata=mine)).revision.author == "user:sam"


async def test_every_way_of_moving_traffic_is_checked_by_its_objects(api: Api) -> None:
    mine = acting("user:sam")
    await api.models.SwitchTraffic(switch("wine"), metadata=acting("user:root"))
    calls = [
        api.revisions.Apply(
            rpb.ApplyRequest(manifest=rpb.Manifest(models=[model("wine", split={"blue": 10_000})]), force=True), metadata=mine
        ),
        api.revisions.RevertRevision(rpb.RevertRevisionRequest(name="revisions/2"), metadata=mine),
        api.revisions.RestoreState(rpb.RestoreStateRequest(name="revisions/1", force=True), metadata=mine),
        api.models.UpdateModel(
            mpb.UpdateModelRequest(
                model=model("wine", split={"blue": 10_000}), update_mask=FieldMask(paths=["split"]), force=True
            ),
            metadata=mine,
        ),
        api.models.UndoModels(mpb.UndoModelsRequest(undos=[mpb.ModelUndo(model="models/wine")], force=True), metadata=mine),
    ]
    for call in calls:
        refusal = await refused(call)
        assert refusal.message == "needs switcher on models/wine; user:sam is switcher on models/iris"
    assert api.number == 2


async def test_a_file_needs_roles_only_for_what_it_changes(api: Api) -> None:
    models = [model(split={"green": 10_000}), model("wine", split={"blue": 10_000})]
    manifest = rpb.Manifest(gateways=[gateway()], models=models)
    answer = await api.revisions.Apply(rpb.ApplyRequest(manifest=manifest, force=True), metadata=acting("user:sam"))
    assert [c.name for c in answer.revision.changes] == ["models/iris"]


async def test_a_switcher_changes_nothing_but_the_split(api: Api) -> None:
    changed = model(split={"green": 10_000}, preview_header="x-p")
    refusal = await refused(
        api.models.UpdateModel(mpb.UpdateModelRequest(model=changed, force=True), metadata=acting("user:sam"))
    )
    assert refusal.message == "needs editor on models/iris; user:sam is switcher on models/iris"


async def test_a_dry_run_is_for_everybody_and_says_what_would_be_refused(api: Api) -> None:
    answer = await api.models.SwitchTraffic(switch(validate_only=True), metadata=acting("user:vera"))
    assert answer.impact.warnings == ["the change would be refused: needs switcher on models/iris; user:vera is viewer"]
    answer = await api.models.SwitchTraffic(switch(validate_only=True), metadata=acting("user:sam"))
    assert not answer.impact.warnings


async def test_to_cut_traffic_is_a_role_of_its_own_and_needs_a_reason(api: Api) -> None:
    delete: dict[str, Any] = {"name": "gateways/edge", "allow_cut": True}
    await api.models.DeleteModel(mpb.DeleteModelRequest(name="models/wine", force=True), metadata=acting("user:ed"))
    await api.models.DeleteModel(mpb.DeleteModelRequest(name="models/iris", force=True), metadata=acting("user:ed"))
    request = gpb.DeleteGatewayRequest(**delete, reason="moved away")
    refusal = await refused(api.gateways.DeleteGateway(request, metadata=acting("user:ed")))
    assert refusal.message == "needs cutter on gateways/edge; user:ed is editor on models/*, gateways/*"
    refusal = await refused(api.gateways.DeleteGateway(gpb.DeleteGatewayRequest(**delete), metadata=acting("user:cut")))
    assert (refusal.reason, refusal.fields) == ("REASON_REQUIRED", ["reason"])
    assert (await api.gateways.DeleteGateway(request, metadata=acting("user:cut"))).revision


async def test_the_author_is_the_credentials_and_what_the_caller_says_is_a_note(api: Api) -> None:
    metadata = (*acting("user:sam"), ("x-turnout-author", "the boss"))
    with structlog.testing.capture_logs() as lines:
        answer = await api.models.SwitchTraffic(switch(), metadata=metadata)
    assert answer.revision.author == "user:sam"
    (line,) = [line for line in lines if line["event"] == "revision committed"]
    assert (line["author"], line["note"]) == ("user:sam", "the boss")


async def test_another_caller_does_not_get_the_answer_to_a_request_id(api: Api) -> None:
    request = switch(request_id="5c2ee66c-7fd2-4a0f-8c9b-2a2f1f1d5f10")
    await api.models.SwitchTraffic(request, metadata=acting("user:sam"))
    assert (await api.models.SwitchTraffic(request, metadata=acting("user:sam"))).revision.number == 2
    assert (await refused(api.models.SwitchTraffic(request, metadata=acting("user:ed")))).reason == "REQUEST_ID_REUSED"


async def test_a_rule_by_label_is_for_objects_that_have_it_before_and_after(api: Api) -> None:
    mine = acting("user:ml")
    new = model("new", {"blue": 10_000}, labels={"team": "ml"})
    assert (await api.models.CreateModel(mpb.CreateModelRequest(model=new), metadata=mine)).model.labels == {"team": "ml"}
    await api.models.SwitchTraffic(switch("new"), metadata=mine)
    refusal = await refused(api.models.SwitchTraffic(switch("iris"), metadata=mine))
    assert refusal.message == "needs switcher on models/iris; user:ml is editor with team=ml"
    for name, labels in (("new", {"team": "ops"}), ("iris", {"team": "ml"})):
        changed = model(name, {"green": 10_000}, labels=labels)
        request = mpb.UpdateModelRequest(model=changed, update_mask=FieldMask(paths=["labels"]), force=True)
        assert (await refused(api.models.UpdateModel(request, metadata=mine))).reason == "NEEDS_ROLE"

"""The service for models."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from controlplane.generated.turnout.v1 import model_pb2, revision_pb2
from controlplane.generated.turnout.v1 import model_service_pb2 as pb
from tests.api.api import Api, model, refused, version
from tests.store.opening import etag


def switch(name: str = "iris", to: str = "green", etag: str = "") -> pb.TrafficSwitch:
    return pb.TrafficSwitch(model=name, version=to, etag=etag)


async def read(api: Api, name: str = "iris") -> model_pb2.Model:
    result: model_pb2.Model = (await api.models.GetModel(pb.GetModelRequest(name=name))).model
    return result


async def test_create_and_get(api: Api) -> None:
    sent = model("rose", split={"blue": 9_000, "green": 1_000}, sticky=model_pb2.Sticky(header="x-user"))
    created = await api.models.CreateModel(pb.CreateModelRequest(model=sent, reason="new"))
    assert created.revision == 2
    assert created.model.name == "models/rose"
    assert created.model.gateways == ["gateways/edge"]
    assert created.model.etag == etag(2)
    assert created.model.create_time == created.model.update_time
    for name in ("rose", "models/rose"):
        assert await read(api, name) == created.model


async def test_create_validate_only(api: Api) -> None:
    request = pb.CreateModelRequest(model=model("rose", split={"blue": 10_000}), validate_only=True)
    created = await api.models.CreateModel(request)
    assert (created.revision, created.model.name, created.model.etag) == (0, "models/rose", "")
    assert api.number == 1


async def test_the_only_version_gets_all_traffic(api: Api) -> None:
    sent = model("rose", versions=[version("blue", "10.0.0.1:80")])
    created = await api.models.CreateModel(pb.CreateModelRequest(model=sent))
    assert created.model.split == {"blue": 10_000}


async def test_pages(api: Api) -> None:
    await api.apply(*(model(f"m{i}", split={"blue": 10_000}) for i in range(5)))
    first = await api.models.ListModels(pb.ListModelsRequest(page_size=3))
    assert [m.name for m in first.models] == ["models/iris", "models/m0", "models/m1"]
    # Changes between two pages neither invalidate the token nor repeat names.
    await api.apply(model("a", split={"blue": 10_000}), delete_names=["models/m1", "models/m2"], force=True)
    second = await api.models.ListModels(pb.ListModelsRequest(page_size=3, page_token=first.next_page_token))
    assert [m.name for m in second.models] == ["models/m3", "models/m4", "models/wine"]
    assert second.next_page_token == ""


async def test_update_with_a_mask_takes_the_fields_that_it_names(api: Api) -> None:
    before = await read(api)
    sent = model(preview_header="x-preview", keys=["i"], etag=etag(1))
    response = await api.models.UpdateModel(pb.UpdateModelRequest(model=sent, update_mask=FieldMask(paths=["preview_header"])))
    assert response.revision == 2
    assert (response.model.preview_header, response.model.keys, response.model.etag) == ("x-preview", [], etag(2))
    assert response.model.create_time == before.create_time
    assert response.model.update_time != before.update_time
    cleared = pb.UpdateModelRequest(model=model_pb2.Model(name="iris"), update_mask=FieldMask(paths=["preview_header"]))
    assert (await api.models.UpdateModel(cleared)).model.preview_header == ""


async def test_update_without_a_mask_takes_the_populated_fields(api: Api) -> None:
    response = await api.models.UpdateModel(pb.UpdateModelRequest(model=model_pb2.Model(name="iris", keys=["k"])))
    assert (response.model.keys, response.model.split) == (["k"], {"blue": 10_000})
    assert [v.name for v in response.model.versions] == [v.name for v in model().versions]
    response = await api.models.UpdateModel(pb.UpdateModelRequest(model=model_pb2.Model(name="iris", preview_header="x-try")))
    assert (response.model.keys, response.model.preview_header) == (["k"], "x-try")


async def test_update_without_a_mask_of_a_populated_split_moves_traffic(api: Api) -> None:
    sent = model_pb2.Model(name="iris", split={"green": 10_000})
    assert (await refused(api.models.UpdateModel(pb.UpdateModelRequest(model=sent)))).reason == "MOVES_TRAFFIC"
    sent.etag = etag(1)
    assert (await api.models.UpdateModel(pb.UpdateModelRequest(model=sent))).model.split == {"green": 10_000}


async def test_update_with_a_star_replaces_the_model_and_leaves_the_split(api: Api) -> None:
    sent = model_pb2.Model(name="iris", keys=["k"], preview_header="x-try")
    await api.models.UpdateModel(pb.UpdateModelRequest(model=sent))
    starred = pb.UpdateModelRequest(model=model(), update_mask=FieldMask(paths=["*"]))
    response = await api.models.UpdateModel(starred)
    assert (response.model.keys, response.model.preview_header, response.model.split) == ([], "", {"blue": 10_000})


async def test_update_of_the_split_needs_an_etag_or_force(api: Api) -> None:
    sent = model(split={"green": 10_000}, etag=etag(1))
    response = await api.models.UpdateModel(pb.UpdateModelRequest(model=sent, update_mask=FieldMask(paths=["split"])))
    assert response.model.split == {"green": 10_000}
    back = pb.UpdateModelRequest(model=model(split={"blue": 10_000}, etag=etag(1)), force=True)
    assert (await api.models.UpdateModel(back)).model.split == {"blue": 10_000}


async def test_an_update_without_a_change_makes_no_revision(api: Api) -> None:
    response = await api.models.UpdateModel(pb.UpdateModelRequest(model=model()))
    assert (response.revision, response.model.etag, api.number) == (1, etag(1), 1)


async def test_update_validate_only(api: Api) -> None:
    response = await api.models.UpdateModel(pb.UpdateModelRequest(model=model(keys=["k"]), validate_only=True))
    assert (response.revision, response.model.keys, response.model.etag) == (0, ["k"], "")
    assert api.number == 1


async def test_delete(api: Api) -> None:
    validated = await api.models.DeleteModel(pb.DeleteModelRequest(name="iris", force=True, validate_only=True))
    assert (validated.revision, api.number) == (0, 1)
    response = await api.models.DeleteModel(pb.DeleteModelRequest(name="iris", etag=etag(1)))
    assert response.revision == 2
    assert "iris" not in api.store.head.value.state.models


async def test_switch_of_two_models_is_one_revision(api: Api) -> None:
    request = pb.SwitchTrafficRequest(
        switches=[switch("wine", etag=etag(1)), switch("models/iris", etag=etag(1))], reason="go"
    )
    response = await api.models.SwitchTraffic(request, metadata=[("x-turnout-author", "ann")])
    assert (response.revision.number, response.revision.name, response.revision.author, response.revision.reason) == (
        2,
        "revisions/2",
        "ann",
        "go",
    )
    assert response.revision.action == revision_pb2.ACTION_SWITCH
    assert [(c.name, list(c.lines)) for c in response.revision.changes] == [
        ("models/iris", ["split: blue 10000 -> green 10000"]),
        ("models/wine", ["split: blue 10000 -> green 10000"]),
    ]
    assert [m.name for m in response.models] == ["models/wine", "models/iris"]
    assert all(m.split == {"green": 10_000} and m.etag == etag(2) for m in response.models)
    assert [(t.type, t.changed, t.removed) for t in response.impact.types] == [("RouteConfiguration", 2, 0)]
    assert response.impact.nodes == 3
    assert 0 < response.impact.bytes_per_node < 2_000
    assert api.number == 2


async def test_switch_to_a_split(api: Api) -> None:
    target = pb.TrafficSwitch(model="iris", split=pb.Split(shares={"green": 1_000, "blue": 9_000, "red": 0}))
    response = await api.models.SwitchTraffic(pb.SwitchTrafficRequest(switches=[target], force=True))
    assert response.models[0].split == {"blue": 9_000, "green": 1_000}
    assert list(response.revision.changes[0].lines) == ["split: blue 10000 -> blue 9000, green 1000"]


async def test_a_switch_to_the_live_version_makes_no_revision(api: Api) -> None:
    response = await api.models.SwitchTraffic(pb.SwitchTrafficRequest(switches=[switch(to="blue", etag=etag(1))]))
    assert (response.revision.number, api.number, len(response.impact.types)) == (1, 1, 0)


async def test_switch_validate_only(api: Api) -> None:
    request = pb.SwitchTrafficRequest(switches=[switch(etag=etag(1))], validate_only=True)
    response = await api.models.SwitchTraffic(request)
    assert (response.revision.number, response.models[0].split, response.models[0].etag) == (2, {"green": 10_000}, "")
    assert response.impact.nodes == 3
    assert api.number == 1


async def test_force_permits_a_stale_etag(api: Api) -> None:
    await api.models.SwitchTraffic(pb.SwitchTrafficRequest(switches=[switch(etag=etag(1))]))
    response = await api.models.SwitchTraffic(pb.SwitchTrafficRequest(switches=[switch(to="blue", etag=etag(1))], force=True))
    assert response.revision.number == 3


async def test_bytes_that_are_not_a_message_are_refused(api: Api) -> None:
    raw: Any = api.channel
    refusal = await refused(raw.unary_unary("/turnout.v1.ModelService/GetModel")(b"\xff\xff"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED")


async def test_the_author_is_kept_in_the_revision(api: Api) -> None:
    request = pb.SwitchTrafficRequest(switches=[switch(to="green")], force=True)
    response = await api.models.SwitchTraffic(request, metadata=[("x-turnout-author", "ann")])
    assert response.revision.author == "ann"

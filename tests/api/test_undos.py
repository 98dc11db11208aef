"""`UndoModels` on a real store: which revisions an undo takes back, and what its answer says about them."""

from __future__ import annotations

import asyncio
import uuid

import grpc

from controlplane.api.undos import find_undos
from controlplane.generated.turnout.v1 import model_service_pb2 as pb
from controlplane.generated.turnout.v1 import revision_pb2
from tests.api.api import Api, model, read_refusal, refused


async def switch(api: Api, *names: str, to: str = "green", author: str = "bob", reason: str = "") -> None:
    switches = [pb.TrafficSwitch(model=name, version=to) for name in names]
    request = pb.SwitchTrafficRequest(switches=switches, force=True, reason=reason)
    await api.models.SwitchTraffic(request, metadata=[("x-turnout-author", author)])


def undo(*names: str, **fields: object) -> pb.UndoModelsRequest:
    return pb.UndoModelsRequest(undos=[pb.ModelUndo(model=name) for name in names], **{"force": True, **fields})  # type: ignore[arg-type]


def split_of(api: Api, name: str = "iris") -> dict[str, int]:
    return dict(api.store.head.value.state.models[name].split)


async def test_an_undo_returns_only_the_named_model(api: Api) -> None:
    await switch(api, "iris", "wine", author="bob", reason="both")
    await switch(api, "wine", to="blue", author="eve")
    response = await api.models.UndoModels(undo("iris", reason="slow"))
    assert (split_of(api), split_of(api, "wine")) == ({"blue": 10_000}, {"blue": 10_000})
    assert (response.revision.number, response.revision.action) == (4, revision_pb2.ACTION_UNDO)
    assert (response.revision.undone_revision, [c.name for c in response.revision.changes]) == (2, ["models/iris"])
    (undone,) = response.undone
    assert (undone.model, undone.revision.author, undone.revision.reason) == ("models/iris", "bob", "both")
    assert (list(undone.other_models), list(undone.revision.changes)) == (["models/wine"], [])
    assert response.models[0].split == {"blue": 10_000}


async def test_several_models_in_one_revision(api: Api) -> None:
    await switch(api, "iris")
    await switch(api, "wine")
    response = await api.models.UndoModels(undo("wine", "iris"))
    assert (api.number, split_of(api), split_of(api, "wine")) == (4, {"blue": 10_000}, {"blue": 10_000})
    assert [(u.model, u.revision.number) for u in response.undone] == [("models/wine", 3), ("models/iris", 2)]
    assert response.revision.undone_revision == 0
    answer = await refused(api.models.UndoModels(undo("wine", "iris")))
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOTHING_TO_UNDO")
    assert answer.fields == ["undos[0].model", "undos[1].model"]


async def test_a_dry_run_names_what_would_be_undone(api: Api) -> None:
    await switch(api, "iris", author="bob")
    response = await api.models.UndoModels(undo("iris", validate_only=True))
    assert (api.number, response.undone[0].revision.author, response.models[0].etag) == (2, "bob", "")


async def test_a_long_history_is_searched_to_its_end(api: Api) -> None:
    await switch(api, "iris")
    for i in range(60):
        await api.apply(model(keys=[f"k{i}"]))
    response = await api.models.UndoModels(undo("iris"))
    assert response.undone[0].revision.number == 2
    assert (await refused(api.models.UndoModels(undo("iris")))).reason == "NOTHING_TO_UNDO"


async def test_when_two_people_undo_at_once_one_wins_and_the_other_is_told(api: Api) -> None:
    await switch(api, "iris")
    await switch(api, "iris", to="blue")
    etag = (await api.models.GetModel(pb.GetModelRequest(name="models/iris"))).model.etag
    request = pb.UndoModelsRequest(undos=[pb.ModelUndo(model="iris", etag=etag)])
    answers = await asyncio.gather(*(api.models.UndoModels(request) for _ in range(2)), return_exceptions=True)
    (refusal,) = (read_refusal(a) for a in answers if isinstance(a, grpc.aio.AioRpcError))
    assert (refusal.code, refusal.reason, api.number) == (grpc.StatusCode.ABORTED, "STALE_ETAG", 4)
    assert split_of(api) == {"green": 10_000}


async def test_a_replay_returns_the_first_answer(api: Api) -> None:
    await switch(api, "iris")
    request = undo("iris", request_id=str(uuid.uuid4()))
    first = await api.models.UndoModels(request)
    await switch(api, "iris")
    assert await api.models.UndoModels(request) == first
    assert api.number == 4


async def test_what_is_not_there(api: Api) -> None:
    answer = await refused(api.models.UndoModels(undo("rose")))
    assert (answer.code, answer.fields) == (grpc.StatusCode.NOT_FOUND, ["undos[0].model"])
    assert (await refused(api.models.UndoModels(undo("iris", force=False)))).fields == ["undos[0].etag"]
    assert (await refused(api.models.UndoModels(pb.UndoModelsRequest()))).fields == ["undos"]
    assert (await refused(api.models.UndoModels(undo("iris", "iris")))).fields == ["undos[1].model"]


async def test_undos_as_of_an_earlier_revision(api: Api) -> None:
    await switch(api, "iris")
    await switch(api, "iris", to="blue")
    assert (await find_undos(api.store, ["iris"], 3)).target == 2
    assert (await find_undos(api.store, ["iris"], 4)).target == 3

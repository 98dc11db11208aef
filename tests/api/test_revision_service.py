"""The service for revisions: apply, history, going back, repeated requests, and watches."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid

import grpc

from controlplane.generated.turnout.v1 import gateway_service_pb2 as gpb
from controlplane.generated.turnout.v1 import model_service_pb2 as mpb
from controlplane.generated.turnout.v1 import revision_pb2
from controlplane.generated.turnout.v1 import revision_service_pb2 as pb
from tests.api.api import Api, gateway, kinds, model, refused, version
from tests.store.opening import etag

CREATED, UPDATED, DELETED = (
    revision_pb2.CHANGE_KIND_CREATED,
    revision_pb2.CHANGE_KIND_UPDATED,
    revision_pb2.CHANGE_KIND_DELETED,
)


async def switch(api: Api, name: str = "iris", to: str = "green") -> int:
    request = mpb.SwitchTrafficRequest(switches=[mpb.TrafficSwitch(model=name, version=to)], force=True)
    return int((await api.models.SwitchTraffic(request)).revision.number)


# ------------------------------------------------------------------------------------------------------------- Apply


async def test_apply_makes_one_revision(empty: Api) -> None:
    response = await empty.apply(gateway(), model(split={"blue": 10_000}), reason="start")
    assert response.changed
    assert (response.revision.number, response.revision.action, response.revision.author) == (
        1,
        revision_pb2.ACTION_APPLY,
        "unknown",
    )
    assert kinds(response.revision.changes) == [("gateways/edge", CREATED), ("models/iris", CREATED)]
    assert response.impact.nodes == 3
    # That of the model, and that of the gateway's own answers.
    assert {t.type: t.changed for t in response.impact.types}["RouteConfiguration"] == 2


async def test_an_empty_apply_changes_nothing(empty: Api) -> None:
    response = await empty.apply()
    assert not response.changed
    assert not response.HasField("revision")


async def test_apply_again_makes_no_revision(api: Api) -> None:
    response = await api.apply(gateway(), model(), model("wine"))
    assert not response.changed
    assert (response.revision.number, api.number, len(response.impact.types)) == (1, 1, 0)


async def test_apply_creates_updates_and_deletes(api: Api) -> None:
    response = await api.apply(gateway(port=81), model(keys=["k"]), delete_names=["models/wine"], force=True)
    assert kinds(response.revision.changes) == [("gateways/edge", UPDATED), ("models/iris", UPDATED), ("models/wine", DELETED)]
    assert [list(c.lines) for c in response.revision.changes] == [["port: 8080 -> 81"], ["keys: none -> k"], []]


async def test_apply_leaves_the_live_split(api: Api) -> None:
    await switch(api)
    response = await api.apply(model(versions=[*model().versions, version("gold", "10.0.0.9:80")]))
    assert api.store.head.value.state.models["iris"].split == {"green": 10_000}
    assert list(response.revision.changes[0].lines) == [
        "versions: blue, green, red -> blue, green, red, gold",
        "versions.gold.endpoints: + 10.0.0.9:80",
    ]


async def test_apply_moves_traffic_with_an_etag_or_force(api: Api) -> None:
    assert (await api.apply(model(split={"green": 10_000}, etag=etag(1)))).revision.number == 2
    assert (await api.apply(model(split={"blue": 10_000}), force=True)).revision.number == 3
    moved = model(versions=[version("gold", "10.0.0.9:80")], split={"gold": 10_000}, etag=etag(3))
    assert (await api.apply(moved)).revision.number == 4


async def test_apply_validate_only_with_bootstraps(api: Api) -> None:
    response = await api.apply(model(split={"green": 10_000}), force=True, validate_only=True, include_bootstraps=True)
    assert (response.changed, response.revision.number, api.number) == (True, 2, 1)
    (bootstrap,) = (json.loads(b) for b in response.bootstraps)
    assert {c["name"] for c in bootstrap["static_resources"]["clusters"]} >= {"iris/blue", "iris/green"}
    same = await api.apply(validate_only=True, include_bootstraps=True)
    assert (same.changed, len(same.bootstraps)) == (False, 1)


async def test_a_gateway_and_its_models_are_deleted_together(api: Api) -> None:
    names = ["gateways/edge", "models/iris", "models/wine"]
    response = await api.apply(delete_names=names, force=True)
    assert kinds(response.revision.changes) == [(n, DELETED) for n in names]
    # The impact counts the removal of the listener.
    assert {t.type: t.removed for t in response.impact.types}["Listener"] == 1


async def test_thousands_of_models(empty: Api) -> None:
    """The event loop is never blocked for long, so that streams are served meanwhile."""
    longest = 0.0
    loop = asyncio.get_running_loop()

    async def measure_pauses() -> None:
        nonlocal longest
        while True:
            before = loop.time()
            await asyncio.sleep(0.001)
            longest = max(longest, loop.time() - before)

    await empty.apply(gateway())
    measuring = asyncio.create_task(measure_pauses())
    response = await empty.apply(*(model(f"m{i}", split={"blue": 10_000}) for i in range(2_000)))
    measuring.cancel()
    assert len(response.revision.changes) == 2_000
    assert longest < 2.0


# --------------------------------------------------------------------------------------------------------- history


async def test_history(api: Api) -> None:
    for to in ("green", "blue", "green", "blue"):
        await switch(api, to=to)
    first = await api.revisions.ListRevisions(pb.ListRevisionsRequest(page_size=3))
    assert [r.number for r in first.revisions] == [5, 4, 3]
    await switch(api, "wine")
    second = await api.revisions.ListRevisions(pb.ListRevisionsRequest(page_size=3, page_token=first.next_page_token))
    assert [r.number for r in second.revisions] == [2, 1]
    assert second.next_page_token == ""
    wine = await api.revisions.ListRevisions(pb.ListRevisionsRequest(object_name="models/wine"))
    assert [r.number for r in wine.revisions] == [6, 1]
    exact = await api.revisions.ListRevisions(pb.ListRevisionsRequest(object_name="models/wine", page_size=2))
    assert exact.next_page_token == ""
    other = pb.ListRevisionsRequest(object_name="models/wine", page_token=first.next_page_token)
    assert (await refused(api.revisions.ListRevisions(other))).reason == "INVALID_PAGE_TOKEN"


async def test_names_and_tokens_of_another_history_are_refused(api: Api) -> None:
    named = await api.revisions.GetRevision(pb.GetRevisionRequest(name=f"revisions/{etag(1)}"))
    assert (named.revision.name, named.revision.etag) == ("revisions/1", etag(1))
    other = "ffffffff-1"
    token = base64.urlsafe_b64encode(f"revisions \0{other}".encode()).decode()
    for call in (
        api.revisions.GetRevision(pb.GetRevisionRequest(name=f"revisions/{other}")),
        api.revisions.RevertTo(pb.RevertToRequest(name=other, force=True)),
        api.revisions.RevertTo(pb.RevertToRequest(name="revisions/0", etag=other)),
        api.revisions.DiffRevisions(pb.DiffRevisionsRequest(to=f"revisions/{other}", **{"from": "revisions/0"})),
        api.revisions.ListRevisions(pb.ListRevisionsRequest(page_token=token)),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "OTHER_HISTORY")
    old = pb.ListRevisionsRequest(page_token=base64.urlsafe_b64encode(b"revisions \x001").decode())
    assert (await refused(api.revisions.ListRevisions(old))).reason == "INVALID_PAGE_TOKEN"
    invalid = pb.GetRevisionRequest(name=f"revisions/{etag('latest')}")
    assert (await refused(api.revisions.GetRevision(invalid))).reason == "INVALID_FIELD"


async def test_a_long_history_is_read_in_chunks(api: Api) -> None:
    for i in range(120):
        await switch(api, to=("green", "blue")[i % 2])
    listed = await api.revisions.ListRevisions(pb.ListRevisionsRequest(page_size=110))
    assert [r.number for r in listed.revisions] == list(range(121, 11, -1))
    second = await api.revisions.ListRevisions(pb.ListRevisionsRequest(page_size=110, page_token=listed.next_page_token))
    assert [r.number for r in second.revisions] == list(range(11, 0, -1))


async def test_get_revision(api: Api) -> None:
    await switch(api)
    for name in ("revisions/1", "1"):
        response = await api.revisions.GetRevision(pb.GetRevisionRequest(name=name, include_manifest=True))
        assert response.revision.number == 1
        assert [m.name for m in response.manifest.models] == ["models/iris", "models/wine"]
        assert response.manifest.models[0].split == {"blue": 10_000}
        assert [g.name for g in response.manifest.gateways] == ["gateways/edge"]
    latest = await api.revisions.GetRevision(pb.GetRevisionRequest(name="revisions/latest"))
    assert latest.revision.number == 2
    assert not latest.HasField("manifest")


async def test_there_is_no_latest_revision_at_first(empty: Api) -> None:
    refusal = await refused(empty.revisions.GetRevision(pb.GetRevisionRequest(name="revisions/latest")))
    assert (refusal.code, refusal.details["ResourceInfo"].resource_name) == (grpc.StatusCode.NOT_FOUND, "revisions/latest")


async def test_a_manifest_of_history_can_be_applied(api: Api) -> None:
    response = await api.revisions.GetRevision(pb.GetRevisionRequest(name="1", include_manifest=True))
    response = await api.revisions.Apply(pb.ApplyRequest(manifest=response.manifest))
    assert not response.changed


async def test_diff(api: Api) -> None:
    await switch(api)
    request = pb.DiffRevisionsRequest(to="revisions/latest", **{"from": "revisions/1"})
    response = await api.revisions.DiffRevisions(request)
    assert [(c.name, list(c.lines)) for c in response.changes] == [("models/iris", ["split: blue 10000 -> green 10000"])]
    assert [(t.type, t.changed, t.removed) for t in response.impact.types] == [("RouteConfiguration", 1, 0)]
    back = await api.revisions.DiffRevisions(pb.DiffRevisionsRequest(to="0", **{"from": "2"}))
    assert kinds(back.changes) == [("gateways/edge", DELETED), ("models/iris", DELETED), ("models/wine", DELETED)]


async def test_revert(api: Api) -> None:
    before = api.store.head.value.state
    await switch(api)
    await api.apply(delete_names=["models/wine"], force=True)
    validated = await api.revisions.RevertTo(pb.RevertToRequest(name="revisions/1", etag=etag(3), validate_only=True))
    assert (validated.revision.number, api.number) == (4, 3)
    response = await api.revisions.RevertTo(pb.RevertToRequest(name="revisions/1", etag=etag(3), reason="oops"))
    assert (response.revision.number, response.revision.action, response.revision.reverted_to) == (
        4,
        revision_pb2.ACTION_REVERT,
        1,
    )
    assert kinds(response.revision.changes) == [("models/iris", UPDATED), ("models/wine", CREATED)]
    assert api.store.head.value.state == before
    again = await api.revisions.RevertTo(pb.RevertToRequest(name="revisions/1", etag=etag(4)))
    assert (again.revision.number, api.number) == (4, 4)


async def test_revert_to_the_empty_state_and_back(api: Api) -> None:
    before = api.store.head.value.state
    await api.revisions.RevertTo(pb.RevertToRequest(name="revisions/0", force=True))
    assert list(api.store.head.value.state.objects()) == []
    await api.revisions.RevertTo(pb.RevertToRequest(name="revisions/1", force=True))
    assert api.store.head.value.state == before


# --------------------------------------------------------------------------------------------------------- replays


def request_id() -> str:
    return str(uuid.uuid4())


async def test_a_replay_returns_the_first_answer(api: Api) -> None:
    target = mpb.TrafficSwitch(model="iris", version="green", etag=etag(1))
    request = mpb.SwitchTrafficRequest(switches=[target], request_id=request_id())
    first = await api.models.SwitchTraffic(request)
    await switch(api, to="blue")
    assert await api.models.SwitchTraffic(request) == first
    assert api.number == 3
    upper = mpb.SwitchTrafficRequest(switches=[target], request_id=request.request_id.upper())
    assert (await refused(api.models.SwitchTraffic(upper))).reason == "REQUEST_ID_REUSED"


async def test_a_replay_of_each_call(api: Api) -> None:
    sent = model("rose", split={"blue": 10_000})
    create = mpb.CreateModelRequest(model=sent, request_id=request_id())
    update = mpb.UpdateModelRequest(model=model("rose", keys=["k"]), request_id=request_id())
    delete = mpb.DeleteModelRequest(name="rose", force=True, request_id=request_id())
    applies = gpb.CreateGatewayRequest(gateway=gateway("b", 81), request_id=request_id())
    gone = gpb.DeleteGatewayRequest(name="b", request_id=request_id())
    apply = pb.ApplyRequest(manifest=pb.Manifest(models=[sent]), request_id=request_id())
    revert = pb.RevertToRequest(name="0", force=True, request_id=request_id())
    calls = [
        (api.models.CreateModel, create),
        (api.models.UpdateModel, update),
        (api.models.DeleteModel, delete),
        (api.gateways.CreateGateway, applies),
        (api.gateways.DeleteGateway, gone),
        (api.revisions.Apply, apply),
        (api.revisions.RevertTo, revert),
    ]
    answers = [await call(request) for call, request in calls]
    newest = api.number
    assert newest == 8
    assert [await call(request) for call, request in calls] == answers
    assert api.number == newest


async def test_a_replay_of_a_call_that_changed_nothing(api: Api) -> None:
    request = pb.ApplyRequest(manifest=pb.Manifest(models=[model()]), request_id=request_id())
    first = await api.revisions.Apply(request)
    assert (first.changed, first.revision.number) == (False, 1)
    await switch(api)
    assert await api.revisions.Apply(request) == first
    assert api.number == 2


async def test_a_request_id_is_for_one_call(api: Api) -> None:
    used = request_id()
    await api.apply(model(keys=["a"]), request_id=used)
    for call in (api.apply(model(keys=["b"]), request_id=used), api.apply(model(keys=["a"]), request_id=used, reason="other")):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason, refusal.fields) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "REQUEST_ID_REUSED",
            ["request_id"],
        )
    assert api.number == 2


async def test_a_refused_call_can_be_repeated_with_its_id(api: Api) -> None:
    used = request_id()
    assert (await refused(api.apply(model("rose", {"blue": 10_000}, gateways=["later"]), request_id=used))).reason
    await api.apply(gateway("later", 81))
    assert (await api.apply(model("rose", {"blue": 10_000}, gateways=["later"]), request_id=used)).revision.number == 3


async def test_concurrent_changes(api: Api) -> None:
    """Each change gets its own number, and only one of those with the same etag succeeds."""
    request = mpb.SwitchTrafficRequest(switches=[mpb.TrafficSwitch(model="iris", version="green", etag=etag(1))])
    applies = [api.apply(model(f"m{i}", split={"blue": 10_000})) for i in range(10)]
    switches = [api.models.SwitchTraffic(request) for _ in range(5)]
    results = await asyncio.gather(*applies, *switches, return_exceptions=True)
    numbers = [r.revision.number for r in results if not isinstance(r, BaseException)]
    assert sorted(numbers) == list(range(2, 13))
    stale = [r for r in results if isinstance(r, grpc.aio.AioRpcError)]
    assert [r.code() for r in stale] == [grpc.StatusCode.ABORTED] * 4


async def test_a_cancelled_call_is_made_completely_or_not_at_all(api: Api) -> None:
    calls = [asyncio.ensure_future(api.apply(model(f"m{i}", split={"blue": 10_000}))) for i in range(10)]
    await asyncio.sleep(0.02)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    response = await api.apply(model("last", split={"blue": 10_000}))
    assert response.revision.number == api.number
    listed = await api.revisions.ListRevisions(pb.ListRevisionsRequest())
    assert [r.number for r in listed.revisions] == list(range(api.number, 0, -1))


# --------------------------------------------------------------------------------------------------------- watching


async def test_watch(api: Api) -> None:
    await switch(api)
    messages = [p.progress async for p in api.revisions.WatchRevision(pb.WatchRevisionRequest(name="latest"))]
    assert len(messages) == 1
    assert (messages[0].revision.number, messages[0].complete) == (2, True)


async def test_watch_of_an_invalid_revision(api: Api) -> None:
    async def watch(**fields: object) -> None:
        async for _ in api.revisions.WatchRevision(pb.WatchRevisionRequest(**fields)):  # type: ignore[arg-type]
            pass

    assert (await refused(watch(name="revisions/9"))).code == grpc.StatusCode.NOT_FOUND
    assert (await refused(watch(name="x"))).fields == ["name"]
    assert (await refused(watch(name="1", max_nodes=-1))).fields == ["max_nodes"]


# ---------------------------------------------------------------------------------------------------------- going back


async def test_a_revert_takes_back_one_revision_and_nothing_else(api: Api) -> None:
    await switch(api)
    await switch(api, "wine")
    await api.apply(model(keys=["k"]))
    request = pb.RevertRevisionRequest(name="revisions/2", reason="slow", request_id=request_id())
    validated = await api.revisions.RevertRevision(pb.RevertRevisionRequest(name="revisions/2", validate_only=True))
    assert (validated.revision.number, validated.changed, api.number) == (5, True, 4)
    response = await api.revisions.RevertRevision(request)
    assert (response.revision.action, response.revision.undone_revision) == (revision_pb2.ACTION_REVERT_REVISION, 2)
    assert (response.reverted.number, kinds(response.reverted.changes)) == (2, [("models/iris", UPDATED)])
    assert [(c.name, list(c.lines)) for c in response.revision.changes] == [
        ("models/iris", ["split: green 10000 -> blue 10000"])
    ]
    models = api.store.head.value.state.models
    assert (models["iris"].keys, models["wine"].split) == (("k",), {"green": 10_000})
    assert await api.revisions.RevertRevision(request) == response
    again = await api.revisions.RevertRevision(pb.RevertRevisionRequest(name="revisions/2"))
    assert (again.changed, again.revision.number, api.number) == (False, 5, 5)


async def test_a_revert_of_what_changed_since_is_refused(api: Api) -> None:
    await switch(api)
    await api.apply(model(split={"blue": 1, "green": 9_999}), force=True)
    answer = await refused(api.revisions.RevertRevision(pb.RevertRevisionRequest(name="revisions/2")))
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CHANGED_SINCE")
    assert (answer.fields, "revision 3 changed it last" in answer.message) == (["models/iris.split"], True)
    missing = await refused(api.revisions.RevertRevision(pb.RevertRevisionRequest(name="revisions/9")))
    assert missing.code == grpc.StatusCode.NOT_FOUND


async def test_a_revert_of_the_newest_revision(api: Api) -> None:
    await switch(api)
    response = await api.revisions.RevertRevision(pb.RevertRevisionRequest(name="revisions/latest"))
    assert response.reverted.number == 2
    assert api.store.head.value.state.models["iris"].split == {"blue": 10_000}


async def test_restore_a_state(api: Api) -> None:
    await switch(api)
    needs_etag = await refused(api.revisions.RestoreState(pb.RestoreStateRequest(name="revisions/1")))
    assert needs_etag.reason == "MOVES_TRAFFIC"
    response = await api.revisions.RestoreState(pb.RestoreStateRequest(name="revisions/1", force=True))
    assert (response.changed, response.revision.action, response.revision.reverted_to) == (True, revision_pb2.ACTION_REVERT, 1)
    again = await api.revisions.RestoreState(pb.RestoreStateRequest(name="revisions/1", force=True))
    assert (again.changed, api.number) == (False, 3)

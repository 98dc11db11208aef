"""gRPC's own xDS clients in Python (C core) and Node (grpc-js) call `xds:///MODEL`, and follow the changes of operators."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from controlplane.generated.turnout.v1.model_pb2 import Endpoint, Retries, Sticky, Timeouts, UpstreamTls, Version
from controlplane.generated.turnout.v1.model_service_pb2 import DeleteModelRequest
from controlplane.generated.turnout.v1.node_pb2 import NODE_STATE_SYNCED
from tests.grpc.rig import DATA_ERRORS, Gateway, Locality, NodeSelector, Rig, serving

CLIENTS = pytest.mark.parametrize("kind", ["python", "node"])
USER_AGENTS = {"python": "gRPC C-core", "node": "gRPC Node Pure JS"}


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with serving(tmp_path) as rig:
        yield rig


async def wait_until_synced(rig: Rig, *nodes: str) -> None:
    """Wait until these nodes are synced, and check that they have no refusals."""
    async with asyncio.timeout(10):
        while True:
            fleet = await rig.nodes()
            if all(n in fleet and fleet[n].state == NODE_STATE_SYNCED for n in nodes):
                break
            await asyncio.sleep(0.02)
    assert [list(fleet[n].refusals) for n in nodes] == [[]] * len(nodes)


@CLIENTS
async def test_a_client_follows_a_split_and_a_switch_without_a_lost_call(rig: Rig, kind: str) -> None:
    await rig.plane.apply(rig.manifest())
    app = await rig.caller(kind)
    assert (await app.call(times=50)).counts == {"blue": 50}
    await wait_until_synced(rig, "app-1")
    assert (await rig.nodes())["app-1"].user_agent.startswith(USER_AGENTS[kind])

    await app.run("start", target="xds:///iris")
    await rig.plane.held(await rig.plane.split("iris", {"blue": 5_000, "green": 5_000}), nodes=1)
    await app.until("green")
    counts = (await app.call(times=200)).counts
    assert counts.keys() == {"blue", "green"}
    assert 58 < counts["green"] < 142  # 6 standard deviations

    await rig.plane.held(await rig.plane.split("iris", {"green": 10_000}), nodes=1)
    await app.until("green", times=10)
    assert (await app.call(times=50)).counts == {"green": 50}
    for version in ("blue", "green") * 3:
        await rig.plane.held(await rig.plane.split("iris", {version: 10_000}), nodes=1)
    # One revision removes the version that gets all calls, and adds another.
    for version in ("blue", "green") * 2:
        only = rig.model(versions=[rig.version(version)], split={version: 10_000})
        await rig.plane.held(await rig.plane.apply(rig.manifest(only)), nodes=1)
        await app.until(version, times=10)
    calls = await app.run("stop")
    assert calls.counts.keys() == {"blue", "green"}, "a call was lost"
    await wait_until_synced(rig, "app-1")


@CLIENTS
async def test_a_client_serves_without_the_control_plane_and_reconnects(rig: Rig, kind: str) -> None:
    await rig.plane.apply(rig.manifest())
    app = await rig.caller(kind)
    assert (await app.call()).counts == {"blue": 1}
    await app.run("start", target="xds:///iris")
    await rig.plane.kill()
    assert (await app.call(times=20)).counts == {"blue": 20}
    await rig.plane.start()
    await rig.plane.held(await rig.plane.split("iris", {"green": 10_000}), nodes=1)
    await app.until("green", times=10)
    calls = await app.run("stop")
    assert calls.counts.keys() == {"blue", "green"}, "a call was lost"
    await wait_until_synced(rig, "app-1")


async def test_a_client_keeps_what_it_has_while_the_store_has_no_revision(rig: Rig) -> None:
    await rig.plane.apply(rig.manifest())
    app = await rig.caller("python")
    await app.run("start", target="xds:///iris")
    await app.until("blue")
    await rig.plane.stop()
    shutil.rmtree(rig.plane.data)
    await rig.plane.start()
    async with asyncio.timeout(30):
        while "app-1" not in await rig.nodes():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await asyncio.sleep(2)
    calls = await app.run("stop")
    assert calls.counts.keys() == {"blue"}, "a call was lost"
    assert calls.counts["blue"] > 10


@CLIENTS
async def test_a_client_calls_models_of_every_form(rig: Rig, kind: str) -> None:
    await rig.plane.apply(rig.manifest())
    app = await rig.caller(kind)
    assert (await app.call()).counts == {"blue": 1}
    # Calls to a model that does not exist wait until it is created. One of its endpoints is a DNS name.
    early = asyncio.create_task(app.call("wine"))
    dns = [rig.version("blue", host="localhost"), rig.version("green")]
    wine = rig.model(
        "wine",
        versions=dns,
        preview_header="x-version",
        sticky=Sticky(header="x-user"),
        retries=Retries(attempts=2, unsafe=True),
        timeouts=Timeouts(request=Duration(seconds=5)),
    )
    await rig.plane.apply(rig.manifest(rig.model(), wine))
    assert (await early).counts == {"blue": 1}
    # A version without a share can be previewed.
    assert (await app.call("wine", metadata={"x-version": "green"})).counts == {"green": 1}
    assert (await app.call("wine", metadata={"x-version": "other"})).counts == {"blue": 1}
    await wait_until_synced(rig, "app-1")
    # Calls to a deleted model fail, and calls to the other model don't.
    await app.run("start", target="xds:///iris")
    await rig.plane.models.DeleteModel(DeleteModelRequest(name="models/wine", force=True, allow_cut=True))
    async with asyncio.timeout(10):
        while "blue" in (gone := await app.call("wine")).counts:
            pass
    assert [error.partition(":")[0] for error in gone.counts] == ["UNAVAILABLE"]
    assert (await app.run("stop")).counts.keys() == {"blue"}
    await wait_until_synced(rig, "app-1")


async def test_calls_to_models_that_a_client_does_not_receive_fail_at_once_and_its_note_says_why(rig: Rig) -> None:
    secure = rig.version("green")
    secure.tls.CopyFrom(UpstreamTls(insecure_skip_verify=True))
    plain = Version(name="blue", endpoints=[Endpoint(host="127.0.0.1", port=rig.ports["blue"])])
    models = rig.model(versions=[rig.version("blue"), secure]), rig.model("old", versions=[plain]), rig.model("rose")
    await rig.plane.apply(rig.manifest(*models))
    app = await rig.caller("python", env=DATA_ERRORS, metadata={"turnout.models": ["iris", "old", "nosuch"]})
    assert (await app.call(times=10)).counts == {"blue": 10}
    for model in ("old", "rose", "nosuch"):
        result = await app.call(model)
        assert list(result.counts) == [
            f"UNAVAILABLE: empty address list (LDS resource {model}: there is none (node ID:app-1))"
        ]
        assert result.seconds < 2
    await wait_until_synced(rig, "app-1")
    node = (await rig.nodes())["app-1"]
    assert list(node.models) == ["iris", "nosuch", "old"]
    assert node.note == (
        "it names models that its gateways don't have: nosuch; "
        "not given to gRPC clients: iris/green (it is reached over TLS), old (its version blue speaks HTTP/1)"
    )


async def test_a_client_that_does_not_use_a_model_holds_its_switch(rig: Rig) -> None:
    await rig.plane.apply(rig.manifest(rig.model(), rig.model("wine")))
    app, idle = await rig.caller("python"), await rig.caller("python", "app-2")
    assert (await app.call("iris")).counts == {"blue": 1}
    assert (await idle.call("wine")).counts == {"blue": 1}
    progress = await rig.plane.held(await rig.plane.split("iris", {"green": 10_000}), nodes=2)
    assert (progress.holding, progress.total) == (2, 2)
    await app.until("green", times=10)
    assert (await idle.call("wine")).counts == {"blue": 1}
    await wait_until_synced(rig, "app-1", "app-2")


async def test_a_program_may_call_many_models(rig: Rig) -> None:
    """The C core opens a stream for each model, so the node has more streams than any Envoy."""
    models = [f"model-{i}" for i in range(40)]
    await rig.plane.apply(rig.manifest(*map(rig.model, models)))
    app = await rig.caller("python")
    for model in models:
        assert (await app.call(model)).counts == {"blue": 1}
    await wait_until_synced(rig, "app-1")
    assert (await rig.nodes())["app-1"].streams == len(models)
    await rig.plane.held(await rig.plane.split("model-7", {"green": 10_000}), nodes=1)
    await app.until("green", "model-7", times=10)
    assert (await app.call("model-8")).counts == {"blue": 1}


async def test_the_note_of_a_client_that_no_gateway_selects_says_why(rig: Rig) -> None:
    edge = Gateway(name="edge", port=10000, nodes=NodeSelector(zones=["eu-1", "eu-2"]))
    await rig.plane.apply(rig.manifest(gateways=(edge,)))
    selected = await rig.caller("python", "selected", locality=Locality("eu", "eu-2"))
    other = await rig.caller("python", "other", DATA_ERRORS, locality=Locality("us", "us-1"))
    assert (await selected.call()).counts == {"blue": 1}
    assert "blue" not in (await other.call()).counts
    await wait_until_synced(rig, "selected", "other")
    nodes = await rig.nodes()
    assert (nodes["selected"].note, list(nodes["selected"].gateways), nodes["selected"].locality.zone) == (
        "",
        ["gateways/edge"],
        "eu-2",
    )
    assert (nodes["other"].note, list(nodes["other"].gateways)) == (
        "no gateway selects it: edge wants zone in [eu-1, eu-2]",
        [],
    )
    # After a change of the selector, the client receives the model.
    edge.nodes.zones.append("us-1")
    await rig.plane.apply(rig.manifest(gateways=(edge,)))
    await other.until("blue")
    await wait_until_synced(rig, "selected", "other")
    assert (await rig.nodes())["other"].note == ""

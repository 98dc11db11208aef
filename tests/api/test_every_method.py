"""Each method of the operator API, called by six callers. docs/access-table.md shows the results of a run.

Write the page again with `REGENERATE=1 pytest tests/api/test_every_method.py`, and read what changed in the diff. A method
that is served and has no row here makes a test fail: `test_methods.py` compares the server with its table of methods.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.status.v3 import csds_pb2
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from controlplane.api.methods import METHODS
from controlplane.app import App
from controlplane.config import Address, Config
from controlplane.generated.turnout.v1 import gateway_service_pb2 as gpb
from controlplane.generated.turnout.v1 import model_service_pb2 as mpb
from controlplane.generated.turnout.v1 import node_service_pb2 as npb
from controlplane.generated.turnout.v1 import revision_service_pb2 as rpb
from controlplane.generated.turnout.v1 import secret_service_pb2 as spb
from controlplane.generated.turnout.v1 import status_service_pb2 as stpb
from controlplane.generated.turnout.v1 import traffic_service_pb2 as tpb
from controlplane.generated.turnout.v1.secret_pb2 import OpaqueValue, Secret
from tests.api.api import gateway, model
from tests.fakes.provider import Provider, serving
from tests.structure.tree import ROOT

PAGE = ROOT / "docs" / "access-table.md"

RULES = """
rules:
- {who: ["user:viewer"], role: viewer}
- {who: ["user:other"], role: switcher, on: [models/other]}
- {who: ["user:switcher"], role: switcher, on: [models/iris]}
- {who: ["user:editor"], role: editor}
- {who: ["user:secrets"], role: secrets}
- {who: ["user:cutter"], role: cutter}
- {who: ["user:admin"], role: admin}
"""

# Column -> the caller's name. The first three have no valid credential.
CALLERS = ("no credential", "wrong audience", "expired", "viewer", "other")
TITLES = ("no credential", "wrong audience", "expired", "viewer", "switcher of another model")

NO, DENIED = "UNAUTHENTICATED", "PERMISSION_DENIED"


@dataclass(frozen=True)
class Row:
    """A method, a request, and the results that are right."""

    method: str
    request: Message
    # The caller who may, with the least role, and the result. NOT_FOUND and FAILED_PRECONDITION come after the check.
    right: str
    result: str = "OK"
    # The result of callers without a valid credential, and of callers with another role.
    nobody: str = NO
    others: str = DENIED

    @property
    def expected(self) -> tuple[str, ...]:
        return (self.nobody, self.nobody, self.nobody, self.others, self.others, self.result)


def view(method: str, request: Message, result: str = "OK") -> Row:
    """Return the row of a method that every role may call."""
    return Row(method, request, "viewer", result, others=result)


def is_open(method: str, request: Message, result: str = "OK") -> Row:
    """Return the row of a method that needs no credential."""
    return Row(method, request, "no credential", result, nobody=result, others=result)


SIDE = gateway("side", 10_001)
NEW = model("new", {"blue": 10_000})
IRIS: Any = {"name": "models/iris"}
NODE: Any = {"name": "nodes/gone"}
KEY = Secret(name="k", opaque=OpaqueValue(value="value"))
FORCE: Any = {"force": True}

# In an order in which each request of the right caller is valid.
ROWS = (
    view("GatewayService/GetGateway", gpb.GetGatewayRequest(name="gateways/edge")),
    view("GatewayService/ListGateways", gpb.ListGatewaysRequest()),
    Row("GatewayService/CreateGateway", gpb.CreateGatewayRequest(gateway=SIDE), "editor"),
    Row("GatewayService/UpdateGateway", gpb.UpdateGatewayRequest(gateway=SIDE), "editor"),
    Row("GatewayService/DeleteGateway", gpb.DeleteGatewayRequest(name="gateways/side"), "editor"),
    view("ModelService/GetModel", mpb.GetModelRequest(**IRIS)),
    view("ModelService/ListModels", mpb.ListModelsRequest()),
    Row("ModelService/CreateModel", mpb.CreateModelRequest(model=NEW), "editor"),
    Row("ModelService/UpdateModel", mpb.UpdateModelRequest(model=NEW, **FORCE), "editor"),
    Row("ModelService/DeleteModel", mpb.DeleteModelRequest(name="models/new", **FORCE), "editor"),
    Row(
        "ModelService/SwitchTraffic",
        mpb.SwitchTrafficRequest(switches=[mpb.TrafficSwitch(model="models/iris", version="green")], **FORCE),
        "switcher",
    ),
    Row("ModelService/UndoModels", mpb.UndoModelsRequest(undos=[mpb.ModelUndo(model="models/iris")], **FORCE), "switcher"),
    view("SecretService/ListSecrets", spb.ListSecretsRequest()),
    Row("SecretService/CreateSecret", spb.CreateSecretRequest(secret=KEY), "secrets"),
    view("SecretService/GetSecret", spb.GetSecretRequest(name="secrets/k")),
    Row("SecretService/UpdateSecret", spb.UpdateSecretRequest(secret=KEY), "secrets"),
    Row("SecretService/DeleteSecret", spb.DeleteSecretRequest(name="secrets/k"), "secrets"),
    Row("SecretService/PurgeKeys", spb.PurgeKeysRequest(name="secrets/k"), "secrets"),
    Row(
        "RevisionService/Apply",
        rpb.ApplyRequest(manifest=rpb.Manifest(models=[model(split={"green": 10_000})]), **FORCE),
        "switcher",
    ),
    Row("RevisionService/RevertRevision", rpb.RevertRevisionRequest(name="revisions/latest"), "switcher"),
    Row("RevisionService/RestoreState", rpb.RestoreStateRequest(name="revisions/2", **FORCE), "switcher"),
    Row("RevisionService/RevertTo", rpb.RevertToRequest(name="revisions/1", **FORCE), "switcher"),
    view("RevisionService/GetRevision", rpb.GetRevisionRequest(name="revisions/1")),
    view("RevisionService/ListRevisions", rpb.ListRevisionsRequest()),
    view("RevisionService/DiffRevisions", rpb.DiffRevisionsRequest(to="revisions/1", **{"from": "revisions/2"})),
    view("RevisionService/WatchRevision", rpb.WatchRevisionRequest(name="revisions/latest")),
    view("NodeService/GetNode", npb.GetNodeRequest(**NODE), "NOT_FOUND"),
    view("NodeService/GetNodeStatus", npb.GetNodeStatusRequest(**NODE), "NOT_FOUND"),
    view("NodeService/ListNodes", npb.ListNodesRequest()),
    view("NodeService/WatchNodes", npb.WatchNodesRequest()),
    Row("NodeService/ReconnectNode", npb.ReconnectNodeRequest(**NODE), "editor", "NOT_FOUND"),
    Row("NodeService/ForgetNodes", npb.ForgetNodesRequest(names=["nodes/gone"]), "editor", "NOT_FOUND"),
    Row("NodeService/AdoptNodes", npb.AdoptNodesRequest(names=["nodes/gone"]), "cutter", "NOT_FOUND"),
    Row("NodeService/BlockNode", npb.BlockNodeRequest(client="gone"), "editor"),
    Row("NodeService/UnblockNode", npb.UnblockNodeRequest(client="gone"), "editor"),
    view("NodeService/ListNodeBlocks", npb.ListNodeBlocksRequest()),
    view("TrafficService/GetTraffic", tpb.GetTrafficRequest(name="models/iris")),
    view("TrafficService/ListTraffic", tpb.ListTrafficRequest()),
    view("StatusService/GetStatus", stpb.GetStatusRequest()),
    view("envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus", csds_pb2.ClientStatusRequest()),
    view("envoy.service.status.v3.ClientStatusDiscoveryService/StreamClientStatus", csds_pb2.ClientStatusRequest()),
    view(
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest(list_services=""),
    ),
    is_open("grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest()),
    is_open("grpc.health.v1.Health/List", health_pb2.HealthListRequest(), "UNIMPLEMENTED"),
    is_open("grpc.health.v1.Health/Watch", health_pb2.HealthCheckRequest()),
)


def path(row: Row) -> str:
    return f"/{row.method}" if row.method.partition("/")[0].count(".") else f"/turnout.v1.{row.method}"


def test_every_method_has_a_row() -> None:
    assert sorted(map(path, ROWS)) == sorted(METHODS)


def metadata(provider: Provider, caller: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a caller of a column."""
    tokens = {
        "wrong audience": lambda: provider.token(sub="admin", aud="another-api"),
        "expired": lambda: provider.token(sub="admin", exp=time.time() - 60),
    }
    if caller == "no credential":
        return ()
    token = tokens[caller]() if caller in tokens else provider.token(sub=caller)
    return (("authorization", f"Bearer {token}"),)


async def called(channel: Any, row: Row, headers: tuple[tuple[str, str], ...]) -> str:
    """Return the code of a call, or OK once its first message is there. On the wire, all kinds of calls are alike."""
    call = channel.stream_stream(path(row))(metadata=headers, timeout=20)
    try:
        await call.write(row.request.SerializeToString())
        await call.done_writing()
        await call.read()
        if call.done():
            return (await call.code()).name  # type: ignore[no-any-return]
    except (grpc.aio.AioRpcError, grpc.aio.UsageError):
        return (await call.code()).name  # type: ignore[no-any-return]
    call.cancel()
    return "OK"


@pytest.fixture(scope="module")
def provider() -> Any:
    with serving() as provider:
        yield provider


@pytest.fixture
async def channel(tmp_path: Path, provider: Provider) -> AsyncIterator[Any]:
    """A channel to a server with gateway `edge`, models `iris` and `other`, and two revisions."""
    access = tmp_path / "access.yaml"
    access.write_text(f"oidc: {{issuer: '{provider.issuer}', audience: turnout}}\n{RULES}")
    local = Address("127.0.0.1", 0)
    app = App(Config(data=tmp_path / "data", api=local, xds=local, metrics=None, grace=0.1, access=access, probe=False))
    await app.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{app.api_port}") as channel:
            manifest = rpb.Manifest(
                gateways=[gateway()], models=[model(split={"blue": 10_000}), model("other", {"blue": 10_000})]
            )
            switch = mpb.SwitchTrafficRequest(switches=[mpb.TrafficSwitch(model="models/iris", version="green")], **FORCE)
            for row in (
                Row("RevisionService/Apply", rpb.ApplyRequest(manifest=manifest), "admin"),
                Row("ModelService/SwitchTraffic", switch, "admin"),
                Row("ModelService/UndoModels", mpb.UndoModelsRequest(undos=[mpb.ModelUndo(model="iris")], **FORCE), "admin"),
            ):
                assert await called(channel, row, metadata(provider, "admin")) == "OK"
            yield channel
    finally:
        await app.stop(0)


async def test_every_method_by_every_caller(channel: Any, provider: Provider) -> None:
    actual = {
        row.method: tuple([await called(channel, row, metadata(provider, caller)) for caller in (*CALLERS, row.right)])
        for row in ROWS
    }
    differences = {row.method: (row.expected, actual[row.method]) for row in ROWS if row.expected != actual[row.method]}
    assert differences == {}
    page = rendered(actual)
    if os.environ.get("REGENERATE"):
        PAGE.write_text(page, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page


def rendered(actual: dict[str, tuple[str, ...]]) -> str:
    """Return the page with the results."""
    head = (
        "# Every method by every caller\n\n"
        "The results of a run of `tests/api/test_every_method.py`, which are those that it expects. [Access](access.md)\n"
        "explains the roles. The last column is the least role that may call the method, and the result. NOT_FOUND comes\n"
        "after the check.\n\n"
    )
    heading = f"| method | {' | '.join(TITLES)} | right one |\n|{'---|' * 7}\n"
    rows = []
    for row in ROWS:
        *others, right = actual[row.method]
        rows.append(f"| {row.method} | {' | '.join(others)} | {row.right}: {right} |\n")
    return head + heading + "".join(rows)

"""Invalid requests: each gives its code, reason and field, and changes nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from controlplane.generated.turnout.v1 import gateway_pb2, model_pb2
from controlplane.generated.turnout.v1 import gateway_service_pb2 as gpb
from controlplane.generated.turnout.v1 import model_service_pb2 as mpb
from controlplane.generated.turnout.v1 import revision_service_pb2 as rpb
from tests.api.api import Api, gateway, model, refused, version
from tests.store.opening import etag

INVALID = grpc.StatusCode.INVALID_ARGUMENT
FAILED = grpc.StatusCode.FAILED_PRECONDITION
MISSING = grpc.StatusCode.NOT_FOUND
ABORTED = grpc.StatusCode.ABORTED

BLUE = version("blue", "10.0.0.1:80")


@dataclass
class Case:
    name: str
    call: Callable[[Api], Awaitable[Any]]
    code: grpc.StatusCode
    reason: str
    fields: list[str] = field(default_factory=list)
    text: str = ""


def create(
    fields: list[str], reason: str = "INVALID_FIELD", code: grpc.StatusCode = INVALID, text: str = "", **values: Any
) -> Case:
    """Return the case of a new model that is invalid."""
    message = model_pb2.Model(**{"name": "new", "gateways": ["edge"], "versions": [BLUE], **values})
    at = [f"model.{f}" if f else "model" for f in fields]
    return Case(
        f"model: {at} {text}", lambda a: a.models.CreateModel(mpb.CreateModelRequest(model=message)), code, reason, at, text
    )


def of_version(fields: list[str], text: str = "", reason: str = "INVALID_FIELD", **values: Any) -> Case:
    """Return the case of a model with an invalid version."""
    message = model_pb2.Version(**{"name": "blue", "endpoints": BLUE.endpoints, **values})
    return create([f"versions[0].{f}" for f in fields], versions=[message], text=text, reason=reason)


def of_gateway(
    fields: list[str], reason: str = "INVALID_FIELD", code: grpc.StatusCode = INVALID, text: str = "", **values: Any
) -> Case:
    """Return the case of a new gateway that is invalid."""
    message = gateway_pb2.Gateway(**{"name": "new", "port": 1234, **values})
    at = [f"gateway.{f}" for f in fields]
    return Case(
        f"gateway: {at} {text}",
        lambda a: a.gateways.CreateGateway(gpb.CreateGatewayRequest(gateway=message)),
        code,
        reason,
        at,
        text,
    )


def switch(
    fields: list[str],
    reason: str,
    *switches: mpb.TrafficSwitch,
    code: grpc.StatusCode = INVALID,
    text: str = "",
    force: bool = True,
) -> Case:
    """Return the case of a switch that is refused."""
    request = mpb.SwitchTrafficRequest(switches=switches, force=force)
    return Case(f"switch: {reason} {fields} {text}", lambda a: a.models.SwitchTraffic(request), code, reason, fields, text)


def apply(
    fields: list[str], reason: str, *objects: Any, code: grpc.StatusCode = INVALID, text: str = "", **values: Any
) -> Case:
    """Return the case of a manifest that is refused."""
    return Case(f"apply: {reason} {fields} {text}", lambda a: a.apply(*objects, **values), code, reason, fields, text)


def to(name: str, version: str = "", etag: str = "", **shares: int) -> mpb.TrafficSwitch:
    target: dict[str, Any] = {"version": version} if version else {"split": mpb.Split(shares=shares)} if shares else {}
    return mpb.TrafficSwitch(model=name, etag=etag, **target)


def mask(*paths: str) -> FieldMask:
    return FieldMask(paths=paths)


def update(request: mpb.UpdateModelRequest, code: grpc.StatusCode, reason: str, fields: list[str], text: str = "") -> Case:
    return Case(f"update: {reason} {fields} {text}", lambda a: a.models.UpdateModel(request), code, reason, fields, text)


def revert(code: grpc.StatusCode, reason: str, fields: list[str], text: str = "", **values: Any) -> Case:
    return Case(f"revert: {values}", lambda a: a.revisions.RevertTo(rpb.RevertToRequest(**values)), code, reason, fields, text)


def deletion(code: grpc.StatusCode, reason: str, fields: list[str], text: str = "", **values: Any) -> Case:
    return Case(
        f"delete: {values}", lambda a: a.models.DeleteModel(mpb.DeleteModelRequest(**values)), code, reason, fields, text
    )


LONG = "x" * 64
CASES = [
    # names
    create(["name"], name="", text="required"),
    create(["name"], name="Iris", text="DNS label"),
    create(["name"], name=LONG),
    create(["name"], name="gateways/new", text="models/NAME"),
    create(["name"], name="models/a/b"),
    create(["gateways[0]"], gateways=["models/edge"], text="gateways/NAME"),
    create(["gateways"], gateways=[], text="at least one"),
    create(["gateways[1]"], gateways=["edge", "gateways/edge"], text="twice", reason="DUPLICATE"),
    create(["gateways[0]"], gateways=["nowhere"], reason="UNKNOWN_GATEWAY", code=FAILED, text="there are: edge"),
    # versions
    create(["versions"], versions=[], text="at least one"),
    create(["versions[1]"], versions=[BLUE, BLUE], split={"blue": 10_000}, reason="DUPLICATE"),
    of_version(["name"], name="Blue"),
    of_version(["endpoints[0].port"], endpoints=[model_pb2.Endpoint(host="10.0.0.1", port=70_000)], text="1 to 65535"),
    of_version(["endpoints[0].port"], endpoints=[model_pb2.Endpoint(host="10.0.0.1")]),
    of_version(["endpoints[0].host"], endpoints=[model_pb2.Endpoint(host="not a host", port=1)]),
    of_version(
        ["endpoints[0].host", "endpoints[1].port"],
        endpoints=[model_pb2.Endpoint(port=1), model_pb2.Endpoint(host="10.0.0.1", port=0)],
    ),
    of_version(["endpoints[0].weight"], endpoints=[model_pb2.Endpoint(host="10.0.0.1", port=1, weight=10_001)]),
    of_version(
        ["endpoints[1].host"], endpoints=[model_pb2.Endpoint(host="10.0.0.1", port=1), model_pb2.Endpoint(host="a.b", port=1)]
    ),
    of_version(["connect_timeout"], connect_timeout=Duration(seconds=61)),
    of_version(["connect_timeout"], connect_timeout=Duration(seconds=-1)),
    of_version(["health_check.interval"], health_check=model_pb2.HealthCheck(interval=Duration(nanos=1))),
    of_version(
        ["outlier_detection.max_ejection_percent"], outlier_detection=model_pb2.OutlierDetection(max_ejection_percent=101)
    ),
    of_version(["tls.server_name"], tls=model_pb2.UpstreamTls()),
    of_version(["limits.max_requests"], limits=model_pb2.Limits(max_requests=2**32 - 1), text="4,294,967,295 is out of range"),
    of_version(["protocol"], protocol=9),
    of_version(
        ["tls.ca_certificates_pem"],
        tls=model_pb2.UpstreamTls(
            server_name="a.b", ca_certificates_pem="-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
        ),
        text="can't be read",
    ),
    # 0 is a value, and does not mean the default
    of_version(["endpoints[0].weight"], endpoints=[model_pb2.Endpoint(host="10.0.0.1", port=1, weight=0)], text="1 to 10,000"),
    *(
        of_version([f"limits.{f}"], limits=model_pb2.Limits(**{f: 0}), text="0 is out of range: 1 to 2,147,483,647")
        for f in ("max_connections", "max_pending_requests", "max_requests")
    ),
    of_version(["health_check.healthy_threshold"], health_check=model_pb2.HealthCheck(healthy_threshold=0), text="1 to 100"),
    of_version(["health_check.unhealthy_threshold"], health_check=model_pb2.HealthCheck(unhealthy_threshold=0), text="1 to"),
    of_version(
        ["outlier_detection.consecutive_failures"], outlier_detection=model_pb2.OutlierDetection(consecutive_failures=0)
    ),
    of_version(
        ["outlier_detection.max_ejection_percent"], outlier_detection=model_pb2.OutlierDetection(max_ejection_percent=0)
    ),
    create(["mirror.basis_points"], mirror=model_pb2.Mirror(version="blue", basis_points=0), text="1 to 10,000"),
    of_gateway(["path.segment"], path=gateway_pb2.PathRouting(segment=0), text="1 to 16"),
    # splits
    create(["split"], split={"blue": 9_999}, text="sum to 9,999"),
    create(["split.green"], split={"green": 10_000}, reason="UNKNOWN_VERSION", text="there are: blue"),
    create(["split.blue"], versions=[version("blue")], reason="NO_ENDPOINTS"),
    # other fields of a model
    create(["keys[0]"], keys=["a b"]),
    create(["keys[2]", "keys[0]", "keys[3]"], keys=["a b", "c", "c", "d e"], reason="DUPLICATE"),
    create(["etag"], etag="1", text="must be unset"),
    of_gateway(["etag"], etag="1", text="must be unset"),
    create(["keys[0]"], keys=["a/b"], reason="IMPOSSIBLE_KEY", code=FAILED, text="gateways/edge"),
    create(["keys"], keys=["wine"], reason="AMBIGUOUS_KEY", code=FAILED, text="models/wine"),
    create(["sticky"], sticky=model_pb2.Sticky()),
    create(["sticky.header"], sticky=model_pb2.Sticky(header="X-User"), text="lower case"),
    create(["preview_header"], preview_header="host"),
    create(["mirror.version"], mirror=model_pb2.Mirror(version="pink"), reason="UNKNOWN_VERSION"),
    create(["mirror.basis_points"], mirror=model_pb2.Mirror(version="blue", basis_points=10_001)),
    create(["timeouts.idle"], timeouts=model_pb2.Timeouts(idle=Duration(seconds=-1))),
    create(["retries.attempts"], retries=model_pb2.Retries(attempts=11)),
    create(["rewrite.prefix"], rewrite=model_pb2.PathRewrite(replacement="/")),
    create(
        ["rewrite.prefix", "name", "keys[0]", "split"],
        name="A",
        split={"blue": 1},
        keys=["?"],
        rewrite=model_pb2.PathRewrite(prefix="a"),
    ),
    # gateways
    of_gateway(["name"], name="a.b"),
    of_gateway(["port"], port=0),
    of_gateway(["port"], port=65_536),
    of_gateway(["address"], address="everywhere"),
    of_gateway(["path.segment"], path=gateway_pb2.PathRouting(segment=17)),
    of_gateway(["header.name"], header=gateway_pb2.HeaderRouting()),
    of_gateway(["header.name", "name", "port"], name="_", port=0, header=gateway_pb2.HeaderRouting(name="A")),
    of_gateway(["port"], port=8080, reason="ADDRESS_TAKEN", code=FAILED, text="gateways/edge"),
    Case(
        "gateway in use",
        lambda a: a.gateways.DeleteGateway(gpb.DeleteGatewayRequest(name="gateways/edge")),
        FAILED,
        "GATEWAY_IN_USE",
        ["name"],
        "models/iris, models/wine",
    ),
    Case(
        "unknown gateway",
        lambda a: a.gateways.DeleteGateway(gpb.DeleteGatewayRequest(name="gateways/no")),
        MISSING,
        "NOT_FOUND",
        [],
        "there are: edge",
    ),
    Case(
        "stale etag of a gateway",
        lambda a: a.gateways.UpdateGateway(gpb.UpdateGatewayRequest(gateway=gateway(port=81, etag=etag(7)))),
        ABORTED,
        "STALE_ETAG",
    ),
    *(
        Case(
            f"reason with {control!r}",
            lambda a, r=f"so {control}": a.models.CreateModel(
                mpb.CreateModelRequest(model=model("new", split={"blue": 10_000}), reason=r)
            ),  # type: ignore[misc]
            INVALID,
            "INVALID_FIELD",
            ["reason"],
            "control character, U+",
        )
        for control in ("\x1b[2J", "\n", "\x00", "\x9b", "\u2028")
    ),
    # switches
    switch(["switches"], "INVALID_FIELD"),
    switch(["switches[0].model"], "NOT_FOUND", to("rose", "green"), code=MISSING, text="there are: iris, wine"),
    switch(["switches[1].model"], "NOT_FOUND", to("iris", "green"), to("rose", "green"), code=MISSING),
    switch(["switches[0].model"], "INVALID_FIELD", to("gateways/iris", "green")),
    switch(["switches[0].model"], "INVALID_FIELD", to("", "green")),
    switch(["switches[0].version"], "UNKNOWN_VERSION", to("iris", "pink"), text="blue, green, red"),
    switch(["switches[0].split.shares.pink"], "UNKNOWN_VERSION", to("iris", blue=1, pink=9_999)),
    switch(["switches[0].version"], "TARGET_REQUIRED", to("iris")),
    switch(["switches[0].version"], "NO_ENDPOINTS", to("iris", "red"), code=FAILED, text="red"),
    switch(["switches[0].split.shares.red"], "NO_ENDPOINTS", to("iris", blue=5_000, red=5_000), code=FAILED),
    switch(["switches[0].split.shares"], "INVALID_FIELD", to("iris", blue=5_000, green=4_000), text="9,000"),
    switch(["switches[0].split.shares.blue"], "INVALID_FIELD", to("iris", blue=20_000)),
    switch(["switches[1].model"], "DUPLICATE", to("iris", "green"), to("models/iris", "blue")),
    switch(["switches[0].version", "switches[1].version"], "UNKNOWN_VERSION", to("iris", "pink"), to("wine", "pink")),
    switch(["switches[1].version"], "UNKNOWN_VERSION", to("iris", "green"), to("wine", "pink")),
    switch(["switches[0].etag"], "MOVES_TRAFFIC", to("iris", "green"), code=FAILED, force=False, text="etag"),
    switch(["switches[1].etag"], "MOVES_TRAFFIC", to("iris", "green", etag(1)), to("wine", "green"), code=FAILED, force=False),
    switch([], "STALE_ETAG", to("iris", "green", etag(7)), code=ABORTED, force=False),
    switch(
        ["switches[0].etag"], "INVALID_ETAG", to("iris", "green", "1"), force=False, text=f"like {etag(1)}: read models/iris"
    ),
    switch([], "OTHER_HISTORY", to("iris", "green", "ffffffff-1"), code=ABORTED, force=False, text="restored from a backup"),
    switch(["switches[0].etag"], "INVALID_ETAG", to("iris", "green", "garbage"), force=False),
    switch(["switches[0].etag"], "INVALID_ETAG", to("iris", "green", f"{etag(0)[:-1]}１"), force=False),
    # updates
    update(mpb.UpdateModelRequest(model=model("rose")), MISSING, "NOT_FOUND", []),
    update(mpb.UpdateModelRequest(), INVALID, "INVALID_FIELD", ["model.name"]),
    update(
        mpb.UpdateModelRequest(model=model(), update_mask=mask("split", "colour")),
        INVALID,
        "UNKNOWN_FIELD",
        ["update_mask.paths[1]"],
        "these can be: gateways, keys, versions, split",
    ),
    update(
        mpb.UpdateModelRequest(model=model(), update_mask=mask("versions.blue")),
        INVALID,
        "UNKNOWN_FIELD",
        ["update_mask.paths[0]"],
    ),
    update(
        mpb.UpdateModelRequest(model=model(), update_mask=mask("name")), INVALID, "UNKNOWN_FIELD", ["update_mask.paths[0]"]
    ),
    update(mpb.UpdateModelRequest(model=model(split={"green": 10_000})), FAILED, "MOVES_TRAFFIC", ["model.etag"]),
    update(mpb.UpdateModelRequest(model=model(etag=etag(99))), ABORTED, "STALE_ETAG", []),
    update(mpb.UpdateModelRequest(model=model(etag="-1")), INVALID, "INVALID_ETAG", ["model.etag"]),
    update(
        mpb.UpdateModelRequest(model=model(versions=[version("green", "10.0.0.2:80")])),
        FAILED,
        "VERSION_HAS_SHARE",
        ["model.versions"],
        "switch it away first",
    ),
    update(
        mpb.UpdateModelRequest(model=model(versions=[version("green", "10.0.0.2:80")]), update_mask=mask("versions")),
        FAILED,
        "VERSION_HAS_SHARE",
        ["model.versions"],
    ),
    update(
        mpb.UpdateModelRequest(model=model(versions=[version("green", "10.0.0.2:80"), version("blue")])),
        FAILED,
        "NO_ENDPOINTS",
        ["model.versions[1].endpoints"],
        "switch it away first",
    ),
    # deletions
    deletion(FAILED, "MOVES_TRAFFIC", ["etag"], name="models/iris"),
    deletion(ABORTED, "STALE_ETAG", [], name="models/iris", etag=etag(12)),
    deletion(INVALID, "INVALID_ETAG", ["etag"], name="models/iris", etag="1.0"),
    deletion(MISSING, "NOT_FOUND", [], name="models/rose", force=True),
    deletion(INVALID, "INVALID_FIELD", ["name"], name=""),
    # manifests
    apply(
        ["manifest.models[1].name"],
        "DUPLICATE",
        model("a", split={"blue": 10_000}),
        model("models/a"),
        text="manifest.models[0]",
    ),
    apply(["manifest.gateways[1].name"], "DUPLICATE", gateway("a", 1), gateway("a", 2)),
    apply(
        ["manifest.gateways[0].port", "manifest.models[0].keys[0]", "manifest.models[1].name"],
        "INVALID_FIELD",
        gateway("a", 0),
        model("b", split={"blue": 10_000}, keys=["?"]),
        model("C", split={"blue": 10_000}),
    ),
    apply(["manifest.models[0].gateways[0]"], "UNKNOWN_GATEWAY", model("a", {"blue": 10_000}, gateways=["x"]), code=FAILED),
    apply(
        ["manifest.gateways[0].port", "manifest.gateways[1].port"],
        "ADDRESS_TAKEN",
        gateway("a", 1),
        gateway("b", 1),
        code=FAILED,
    ),
    apply(["manifest.models[0].split"], "MOVES_TRAFFIC", model(split={"green": 10_000}), code=FAILED),
    apply([], "STALE_ETAG", model(etag=etag(5)), code=ABORTED),
    apply([], "STALE_ETAG", model("new", {"blue": 10_000}, etag=etag(1)), code=ABORTED, text="none is live"),
    apply(["manifest.models[0].versions"], "VERSION_HAS_SHARE", model(versions=[version("green", "1.2.3.4:5")]), code=FAILED),
    apply(["delete_names[0]"], "INVALID_FIELD", delete_names=["iris"]),
    apply(["delete_names[0]"], "INVALID_FIELD", delete_names=["revisions/1"]),
    apply(["delete_names[1]"], "DUPLICATE", delete_names=["models/iris", "models/iris"], force=True),
    apply(["delete_names[0]"], "DUPLICATE", model(), delete_names=["models/iris"], force=True),
    apply(["delete_names[0]"], "MOVES_TRAFFIC", delete_names=["models/iris"], code=FAILED),
    apply(["delete_names[0]"], "GATEWAY_IN_USE", delete_names=["gateways/edge"], code=FAILED, text="models/iris, models/wine"),
    apply(
        ["delete_names[0]"],
        "GATEWAY_IN_USE",
        delete_names=["gateways/edge", "models/iris"],
        code=FAILED,
        force=True,
        text="models/wine",
    ),
    apply([], "NOT_FOUND", delete_names=["models/rose"], force=True, code=MISSING),
    apply(["include_bootstraps"], "INVALID_FIELD", include_bootstraps=True),
    apply(["request_id"], "INVALID_REQUEST_ID", request_id="again"),
    apply(["request_id"], "INVALID_REQUEST_ID", request_id="00000000-0000-1000-8000-000000000000"),
    Case("reason", lambda a: a.apply(reason="x" * 1_001), INVALID, "INVALID_FIELD", ["reason"], "at most 1,000"),
    # revisions
    revert(FAILED, "MOVES_TRAFFIC", ["etag"], name="revisions/0"),
    revert(ABORTED, "STALE_ETAG", [], name="revisions/0", etag=etag(0)),
    revert(INVALID, "INVALID_ETAG", ["etag"], name="revisions/0", etag="x"),
    revert(MISSING, "NOT_FOUND", [], name="revisions/9", force=True, text="revisions/1"),
    revert(INVALID, "INVALID_FIELD", ["name"], name="revisions/x", force=True),
    revert(INVALID, "INVALID_FIELD", ["name"], name="revisions/-1", force=True),
    revert(INVALID, "INVALID_FIELD", ["name"], name="revisions/01", force=True),
    revert(INVALID, "INVALID_FIELD", ["name"], name="revisions/99999999999999999999", force=True),
    revert(INVALID, "INVALID_FIELD", ["name"], name="", force=True),
    Case("get 0", lambda a: a.revisions.GetRevision(rpb.GetRevisionRequest(name="revisions/0")), MISSING, "NOT_FOUND"),
    Case(
        "get x",
        lambda a: a.revisions.GetRevision(rpb.GetRevisionRequest(name="revisions/x")),
        INVALID,
        "INVALID_FIELD",
        ["name"],
    ),
    Case(
        "diff", lambda a: a.revisions.DiffRevisions(rpb.DiffRevisionsRequest(to="latest")), INVALID, "INVALID_FIELD", ["from"]
    ),
    Case(
        "revision page token",
        lambda a: a.revisions.ListRevisions(rpb.ListRevisionsRequest(page_token="zzz")),
        INVALID,
        "INVALID_PAGE_TOKEN",
        ["page_token"],
    ),
    Case(
        "page of what is no object",
        lambda a: a.revisions.ListRevisions(rpb.ListRevisionsRequest(object_name="iris")),
        INVALID,
        "INVALID_FIELD",
        ["object_name"],
    ),
    Case(
        "page token",
        lambda a: a.models.ListModels(mpb.ListModelsRequest(page_token="é")),
        INVALID,
        "INVALID_PAGE_TOKEN",
        ["page_token"],
    ),
    Case(
        "page size",
        lambda a: a.models.ListModels(mpb.ListModelsRequest(page_size=-1)),
        INVALID,
        "INVALID_FIELD",
        ["page_size"],
    ),
    Case(
        "get model",
        lambda a: a.models.GetModel(mpb.GetModelRequest(name="models/rose")),
        MISSING,
        "NOT_FOUND",
        [],
        "iris, wine",
    ),
    Case(
        "get gateway",
        lambda a: a.gateways.GetGateway(gpb.GetGatewayRequest(name="models/edge")),
        INVALID,
        "INVALID_FIELD",
        ["name"],
    ),
    Case(
        "create what is there",
        lambda a: a.models.CreateModel(mpb.CreateModelRequest(model=model(split={"blue": 10_000}))),
        grpc.StatusCode.ALREADY_EXISTS,
        "ALREADY_EXISTS",
    ),
    Case(
        "create a gateway that exists",
        lambda a: a.gateways.CreateGateway(gpb.CreateGatewayRequest(gateway=gateway(port=99))),
        grpc.StatusCode.ALREADY_EXISTS,
        "ALREADY_EXISTS",
    ),
]


async def test_bad_input(api: Api) -> None:
    """Try all cases on one server, because starting a server takes longest, and report all failures together."""
    head = api.store.head.value
    wrong = []
    for case in CASES:
        refusal = await refused(case.call(api))
        actual = (refusal.code, refusal.reason, refusal.fields)
        if actual != (case.code, case.reason, case.fields):
            wrong.append(f"{case.name}: {actual}: {refusal.message}")
        if case.text not in refusal.message and not any(case.text in str(d) for d in refusal.details.values()):
            wrong.append(f"{case.name}: lacks {case.text!r}: {refusal.message}")
        if api.store.head.value != head:
            wrong.append(f"{case.name}: it changed the state")
            head = api.store.head.value
    assert not wrong, "\n".join(wrong)

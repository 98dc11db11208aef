"""The interceptors of the audit log, with a fake log: which calls have which entries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from controlplane.access.caller import Caller, Credential
from controlplane.api.audit_interceptor import AuditAttempt, AuditOutcome, is_change, names_in, outcome_of
from controlplane.api.authorization import Authorization, authorize
from controlplane.api.methods import METHODS, OPEN, VIEW
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1 import (
    gateway_pb2,
    model_pb2,
    model_service_pb2,
    node_service_pb2,
    revision_pb2,
    revision_service_pb2,
    secret_service_pb2,
)

SWITCH = "/turnout.v1.ModelService/SwitchTraffic"
GET = "/turnout.v1.ModelService/GetModel"
WATCH = "/turnout.v1.NodeService/WatchNodes"
REQUEST = model_service_pb2.SwitchTrafficRequest(
    switches=[model_service_pb2.TrafficSwitch(model="models/iris", version="green")], reason="why"
)
ANNA = Authorization(Caller(Credential.USER, "anna", address="10.0.0.1:5"))
DENIED = Error(Code.PERMISSION_DENIED, "NEEDS_ROLE", "needs switcher")


@dataclass
class FakeLog:
    """Keeps entries. `error` is raised by `require`."""

    entries: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    strangers: int = 0
    error: Error | None = None

    async def require(self, event: str, fields: Mapping[str, Any]) -> None:
        if self.error is not None:
            raise self.error
        self.entries.append((event, fields))

    async def note(self, event: str, fields: Mapping[str, Any]) -> None:
        self.entries.append((event, fields))

    async def note_stranger(self, fields: Mapping[str, Any]) -> None:
        self.strangers += 1

    @property
    def events(self) -> list[tuple[str, str]]:
        return [(event, str(fields.get("code", ""))) for event, fields in self.entries]


def context() -> Any:
    return SimpleNamespace(invocation_metadata=lambda: (("x-turnout-author", "ada\n"),), peer=lambda: "ipv4:10.0.0.9:1")


async def call(log: FakeLog, method: str, request: Any, handle: Any, who: Authorization | None = ANNA) -> Any:
    """Call a handler through the three interceptors; `who` None: the credential is refused."""

    async def access(request: Any, context: Any) -> Any:
        if who is None:
            raise Error(Code.UNAUTHENTICATED, "NO_CREDENTIAL", "send a token")
        authorize(who)
        return await inner.unary_unary(request, context)

    async def found(handler: Any) -> Any:
        return handler

    details: Any = SimpleNamespace(method=method)
    inner = await AuditAttempt(log).intercept_service(lambda _: found(grpc.unary_unary_rpc_method_handler(handle)), details)
    outer = await AuditOutcome(log).intercept_service(lambda _: found(grpc.unary_unary_rpc_method_handler(access)), details)
    return await asyncio.create_task(outer.unary_unary(request, context()))


async def done(request: Any, context: Any) -> Any:
    return model_service_pb2.SwitchTrafficResponse(revision=revision_pb2.Revision(name="revisions/ab-7"))


async def test_a_change_has_an_entry_before_it_and_one_with_its_outcome() -> None:
    log = FakeLog()
    await call(log, SWITCH, REQUEST, done)
    (attempt, before), (event, after) = log.entries
    assert (attempt, event) == ("attempt", "call")
    assert before == {
        "call": "ModelService/SwitchTraffic",
        "identity": "user:anna",
        "from": "10.0.0.1:5",
        "author_note": "ada",
        "objects": ["models/iris"],
        "more_objects": 0,
        "reason": "why",
        "allow_cut": None,
        "request_id": "",
    }
    assert after == {**before, "code": "OK", "revision": "ab-7", "unchanged": None}


async def test_reads_and_dry_runs_have_none() -> None:
    log = FakeLog()
    dry = model_service_pb2.SwitchTrafficRequest(validate_only=True)
    await call(log, GET, model_service_pb2.GetModelRequest(name="models/iris"), done)
    await call(log, SWITCH, dry, done)
    assert log.entries == []


async def test_refusals_have_entries_and_those_of_strangers_are_sampled() -> None:
    async def refuse(request: Any, context: Any) -> Any:
        raise DENIED

    log = FakeLog()
    for method, request in ((SWITCH, REQUEST), (GET, model_service_pb2.GetModelRequest())):
        with pytest.raises(Error, match="needs switcher"):
            await call(log, method, request, refuse)
    assert log.events == [("attempt", ""), ("call", "PERMISSION_DENIED"), ("call", "PERMISSION_DENIED")]
    for method in (SWITCH, GET):
        with pytest.raises(Error, match="send a token"):
            await call(log, method, REQUEST, done, who=None)
    assert (log.strangers, len(log.entries)) == (2, 3)


async def test_a_read_that_finds_nothing_has_no_entry() -> None:
    async def missing(request: Any, context: Any) -> Any:
        raise Error(Code.NOT_FOUND, "NOT_FOUND", "no such model")

    log = FakeLog()
    with pytest.raises(Error):
        await call(log, GET, model_service_pb2.GetModelRequest(), missing)
    assert log.entries == []


async def test_a_change_whose_attempt_can_not_be_written_is_not_made() -> None:
    made: list[Any] = []

    async def make(request: Any, context: Any) -> Any:
        made.append(request)

    log = FakeLog(error=Error(Code.RESOURCE_EXHAUSTED, "AUDIT_FULL", "no space"))
    with pytest.raises(Error, match="no space"):
        await call(log, SWITCH, REQUEST, make)
    assert (made, log.events) == ([], [("call", "RESOURCE_EXHAUSTED")])


async def test_a_cancelled_change_has_an_outcome() -> None:
    async def cancelled(request: Any, context: Any) -> Any:
        raise asyncio.CancelledError

    log = FakeLog()
    with pytest.raises(asyncio.CancelledError):
        await call(log, SWITCH, REQUEST, cancelled)
    assert log.events == [("attempt", ""), ("call", "CANCELLED")]


async def test_a_stream_that_is_refused_has_an_entry() -> None:
    async def stream(request: Any, context: Any) -> AsyncIterator[int]:
        authorize(ANNA)
        yield 1
        raise DENIED

    async def found(handler: Any) -> Any:
        return handler

    log = FakeLog()
    details: Any = SimpleNamespace(method=WATCH)
    outer = await AuditOutcome(log).intercept_service(lambda _: found(grpc.unary_stream_rpc_method_handler(stream)), details)
    items = outer.unary_stream(node_service_pb2.WatchNodesRequest(), context())
    assert await anext(items) == 1
    with pytest.raises(Error):
        await anext(items)
    assert log.events == [("call", "PERMISSION_DENIED")]


def test_every_method_that_is_no_read_is_a_change() -> None:
    changes = {method for method in METHODS if is_change(method, object())}
    assert changes == {method for method, row in METHODS.items() if row not in (VIEW, OPEN)}
    assert "/turnout.v1.SecretService/PurgeKeys" in changes
    assert not is_change("/unknown.Service/Method", object())


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        (REQUEST, ["models/iris"]),
        (secret_service_pb2.PurgeKeysRequest(name="secrets/edge"), ["secrets/edge"]),
        (node_service_pb2.ForgetNodesRequest(names=["nodes/a", "nodes/b"]), ["nodes/a", "nodes/b"]),
        (
            revision_service_pb2.ApplyRequest(
                manifest=revision_service_pb2.Manifest(
                    gateways=[gateway_pb2.Gateway(name="edge")],
                    models=[model_pb2.Model(name="models/iris", versions=[model_pb2.Version(name="blue")])],
                ),
                delete_names=["models/old"],
            ),
            ["gateways/edge", "models/iris", "models/old"],
        ),
    ],
)
def test_names_in_requests(request_: Any, names: list[str]) -> None:
    assert sorted(names_in(request_)) == names


def test_an_outcome_without_a_revision() -> None:
    assert outcome_of(node_service_pb2.ForgetNodesResponse()) == {"code": "OK", "revision": "", "unchanged": None}

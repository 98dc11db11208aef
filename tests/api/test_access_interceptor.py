"""Calls with and without a credential, and with and without a role."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from controlplane.access.rules import Rules
from controlplane.api.access_interceptor import AccessInterceptor
from controlplane.api.authorization import authorization
from controlplane.api.methods import OPEN, VIEW
from controlplane.api.status import StatusInterceptor
from controlplane.generated.turnout.v1 import model_service_pb2 as mpb
from controlplane.generated.turnout.v1 import revision_service_pb2 as rpb
from tests.api.api import Api, gateway, model, refused, serving
from tests.fakes.gate import FakeGate, acting

RULES = """
rules:
- {who: ["user:root"], role: admin}
- {who: ["user:vera"], role: viewer}
- {who: ["user:ed"], role: editor, on: [models/*]}
"""
LIST = mpb.ListModelsRequest()


@pytest.fixture
def gate() -> FakeGate:
    return FakeGate(RULES)


@pytest.fixture
async def api(tmp_path: Path, gate: FakeGate) -> AsyncIterator[Api]:
    async with serving(tmp_path, gate=gate) as api:
        manifest = rpb.Manifest(gateways=[gateway()], models=[model(split={"blue": 10_000})])
        await api.revisions.Apply(rpb.ApplyRequest(manifest=manifest), metadata=acting("user:root"))
        yield api


async def test_a_call_without_a_credential_is_refused(api: Api) -> None:
    refusal = await refused(api.models.ListModels(LIST))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "NO_CREDENTIAL")


async def test_a_call_needs_a_role(api: Api) -> None:
    assert len((await api.models.ListModels(LIST, metadata=acting("user:vera"))).models) == 1
    refusal = await refused(api.models.ListModels(LIST, metadata=acting("user:nobody")))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NEEDS_ROLE")
    assert refusal.message == "needs viewer; user:nobody has no role"
    refusal = await refused(api.models.DeleteModel(mpb.DeleteModelRequest(name="models/iris"), metadata=acting("user:vera")))
    assert refusal.message == "needs editor on models/iris; user:vera is viewer"


async def test_other_rules_hold_from_the_next_call(api: Api, gate: FakeGate) -> None:
    gate.rules = Rules()
    refusal = await refused(api.models.ListModels(LIST, metadata=acting("user:vera")))
    assert refusal.reason == "NEEDS_ROLE"
    gate.rules = None
    assert len((await api.models.ListModels(LIST)).models) == 1


@asynccontextmanager
async def raw_server(gate: FakeGate, clock: float = 0.0) -> AsyncIterator[Any]:
    """Run a server with unary methods and a streaming one, which are in a table of their own."""

    async def who(request: bytes, context: object) -> bytes:
        return authorization().caller.identity.encode()

    async def ticks(request: bytes, context: object) -> AsyncIterator[bytes]:
        while True:
            yield authorization().caller.identity.encode()
            await asyncio.sleep(0.01)

    methods: dict[str, Any] = {name: grpc.unary_unary_rpc_method_handler(who) for name in ("Who", "Forgotten", "Open")}
    methods["Ticks"] = grpc.unary_stream_rpc_method_handler(ticks)
    table = {"/x/Who": VIEW, "/x/Ticks": VIEW, "/x/Open": OPEN}
    access = AccessInterceptor(gate, table, (lambda: clock) if clock else time.time)
    server = grpc.aio.server(interceptors=[StatusInterceptor(), access])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("x", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


async def read_to_the_end(stream: Any) -> None:
    async with asyncio.timeout(10):
        while await stream.read():
            pass


async def test_the_handler_knows_its_caller_and_a_method_without_a_row_is_refused() -> None:
    async with raw_server(FakeGate(RULES)) as channel:

        async def call(method: str, identity: str) -> bytes:
            answer: bytes = await channel.unary_unary(f"/x/{method}")(b"", metadata=acting(identity) if identity else ())
            return answer

        answers = await asyncio.gather(*(call("Who", f"user:{name}") for name in ("vera", "root", "ed") * 5))
        assert answers == [b"user:vera", b"user:root", b"user:ed"] * 5
        assert await call("Open", "") == b""
        refusal = await refused(call("Forgotten", "user:root"))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_IN_TABLE")


async def test_a_stream_ends_when_the_credential_expires() -> None:
    async with raw_server(FakeGate(RULES, expires=1_000.2), clock=1_000.0) as channel:
        stream = channel.unary_stream("/x/Ticks")(b"", metadata=acting("user:vera"))
        assert await stream.read() == b"user:vera"
        refusal = await refused(read_to_the_end(stream))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_EXPIRED")


async def test_a_stream_ends_when_the_role_is_withdrawn() -> None:
    gate = FakeGate(RULES)
    async with raw_server(gate) as channel:
        stream = channel.unary_stream("/x/Ticks")(b"", metadata=acting("user:vera"))
        assert await stream.read() == b"user:vera"
        gate.rules = FakeGate(RULES.replace("user:vera", "user:victor")).rules
        assert (await refused(read_to_the_end(stream))).reason == "NEEDS_ROLE"


async def test_a_server_stops_although_a_stream_is_open() -> None:
    async with raw_server(FakeGate(RULES, expires=time.time() + 100)) as channel:
        stream = channel.unary_stream("/x/Ticks")(b"", metadata=acting("user:vera"))
        assert await stream.read() == b"user:vera"

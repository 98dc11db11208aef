"""The services of objects and revisions on a loopback port, with a real store, and helpers to call them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from controlplane.aio.latest import Latest
from controlplane.api.access_interceptor import AccessInterceptor, Gate
from controlplane.api.gateway_service import GatewayService
from controlplane.api.model_service import ModelService
from controlplane.api.refused_changes import RefusedChanges
from controlplane.api.revision_service import RevisionService
from controlplane.api.secret_service import SecretService
from controlplane.api.status import StatusInterceptor
from controlplane.compiler import Compiler
from controlplane.fleet import Fleet
from controlplane.generated.turnout.v1 import (
    gateway_pb2,
    gateway_service_pb2_grpc,
    model_pb2,
    model_service_pb2_grpc,
    revision_service_pb2_grpc,
    secret_pb2,
    secret_service_pb2_grpc,
)
from controlplane.generated.turnout.v1 import revision_service_pb2 as rpb
from controlplane.probe import Prober
from controlplane.store.sqlite import SqliteStore
from controlplane.writer import CachingCompiler, ConnectedNodes, Writer
from tests.store.opening import open_store, with_fixed_id

DETAILS: dict[str, type[Message]] = {
    cls.DESCRIPTOR.full_name: cls
    for cls in (
        error_details_pb2.ErrorInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.PreconditionFailure,
        error_details_pb2.ResourceInfo,
        error_details_pb2.RetryInfo,
    )
}


@dataclass
class Api:
    """A running server. `gateways`, `models`, `revisions` and `secrets` are stubs over one channel."""

    store: SqliteStore
    writer: Writer
    gateways: Any
    models: Any
    revisions: Any
    secrets: Any
    channel: grpc.aio.Channel
    # The time of the services' clock. Each reading of the clock advances it by a second.
    now: list[float]

    @property
    def number(self) -> int:
        return self.store.head.value.number

    async def apply(self, *objects: Message, **fields: Any) -> rpb.ApplyResponse:
        """Apply gateways, models and secrets as one manifest."""
        manifest = rpb.Manifest(
            gateways=[o for o in objects if isinstance(o, gateway_pb2.Gateway)],
            models=[o for o in objects if isinstance(o, model_pb2.Model)],
            secrets=[o for o in objects if isinstance(o, secret_pb2.Secret)],
        )
        response: rpb.ApplyResponse = await self.revisions.Apply(rpb.ApplyRequest(manifest=manifest, **fields))
        return response


@asynccontextmanager
async def serving(
    directory: Path,
    nodes: ConnectedNodes | None = None,
    fleet: Latest[Fleet | None] | None = None,
    prober: Prober | None = None,
    refused_changes: RefusedChanges | None = None,
    gate: Gate | None = None,
) -> AsyncIterator[Api]:
    """Run the services until the block ends."""
    store = await open_store(directory, with_fixed_id)
    now = [1_700_000_000.0]

    def clock() -> float:
        now[0] += 1
        return now[0]

    writer = Writer(store, CachingCompiler(Compiler()), nodes, clock, prober=prober)
    refused_changes = refused_changes or RefusedChanges()
    access = [AccessInterceptor(gate)] if gate is not None else []
    server = grpc.aio.server(interceptors=[StatusInterceptor(refused_changes.refused), *access])
    gateway_service_pb2_grpc.add_GatewayServiceServicer_to_server(GatewayService(writer, store), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(writer, store), server)
    secret_service_pb2_grpc.add_SecretServiceServicer_to_server(SecretService(writer, store), server)
    changed = fleet or Latest(Fleet())
    revisions = RevisionService(writer, store, changed, clock)
    revision_service_pb2_grpc.add_RevisionServiceServicer_to_server(revisions, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Api(
                store,
                writer,
                gateway_service_pb2_grpc.GatewayServiceStub(channel),
                model_service_pb2_grpc.ModelServiceStub(channel),
                revision_service_pb2_grpc.RevisionServiceStub(channel),
                secret_service_pb2_grpc.SecretServiceStub(channel),
                channel,
                now,
            )
    finally:
        await server.stop(None)
        refused_changes.close()
        await store.close()


def gateway(name: str = "edge", port: int = 8080, **fields: Any) -> gateway_pb2.Gateway:
    """Return a gateway on all nodes."""
    return gateway_pb2.Gateway(name=name, port=port, **fields)


def version(name: str, *addresses: str, **fields: Any) -> model_pb2.Version:
    """Return a version with endpoints at addresses like `10.0.0.1:80`."""
    endpoints = [model_pb2.Endpoint(host=a.rpartition(":")[0], port=int(a.rpartition(":")[2])) for a in addresses]
    return model_pb2.Version(name=name, endpoints=endpoints, **fields)


def model(name: str = "iris", split: dict[str, int] | None = None, **fields: Any) -> model_pb2.Model:
    """Return a model on gateway `edge`: blue and green have one endpoint each, red has none."""
    versions = [version("blue", "10.0.0.1:80"), version("green", "10.0.0.2:80"), version("red")]
    return model_pb2.Model(**{"name": name, "gateways": ["edge"], "versions": versions, "split": split, **fields})


@dataclass
class Refusal:
    """An error as a client gets it."""

    code: grpc.StatusCode
    message: str
    details: dict[str, Any]

    @property
    def reason(self) -> str:
        return str(self.details["ErrorInfo"].reason)

    @property
    def fields(self) -> list[str]:
        if "BadRequest" in self.details:
            return [v.field for v in self.details["BadRequest"].field_violations]
        if "PreconditionFailure" in self.details:
            return [v.subject for v in self.details["PreconditionFailure"].violations]
        return []


def read_refusal(error: grpc.aio.AioRpcError) -> Refusal:
    """Return the error of a call with its details, each kind once."""
    status = rpc_status.from_call(cast(grpc.Call, error))
    assert isinstance(status, status_pb2.Status), f"no details: {error}"
    details: dict[str, Any] = {}
    for packed in status.details:
        detail = DETAILS[packed.type_url.rpartition("/")[2]]()
        assert packed.Unpack(detail)
        name = detail.DESCRIPTOR.name
        assert name not in details, f"{name} is there twice"
        details[name] = detail
    assert details["ErrorInfo"].domain == "turnout"
    assert details["ErrorInfo"].reason
    assert status.message == error.details()
    assert "Traceback" not in status.message
    return Refusal(error.code(), status.message, details)


async def refused(call: Any) -> Refusal:
    """Return the error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return read_refusal(caught.value)


def kinds(changes: Sequence[Any]) -> list[tuple[str, int]]:
    """(name, kind) of each change."""
    return [(c.name, c.kind) for c in changes]

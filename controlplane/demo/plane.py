"""The control plane as a child process (`turnout serve`), and calls of its gRPC API."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import grpc

from controlplane.compiler.bootstrap import node_bootstrap
from controlplane.demo.envoy import Envoy
from controlplane.demo.ports import free_port
from controlplane.demo.process import Process, Startable
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1.model_service_pb2 import Split, SwitchTrafficRequest, TrafficSwitch
from controlplane.generated.turnout.v1.model_service_pb2_grpc import ModelServiceStub
from controlplane.generated.turnout.v1.node_service_pb2_grpc import NodeServiceStub
from controlplane.generated.turnout.v1.revision_pb2 import NodeRequirement, RevisionProgress
from controlplane.generated.turnout.v1.revision_service_pb2 import (
    ApplyRequest,
    ListRevisionsRequest,
    Manifest,
    WatchRevisionRequest,
    WatchRevisionResponse,
)
from controlplane.generated.turnout.v1.revision_service_pb2_grpc import RevisionServiceStub
from controlplane.generated.turnout.v1.status_service_pb2_grpc import StatusServiceStub
from controlplane.generated.turnout.v1.traffic_service_pb2_grpc import TrafficServiceStub

__all__ = ["ControlPlane", "free_port"]

# The author of changes that the demo makes without the command line.
_AUTHOR = (("x-turnout-author", "demo"),)


class ControlPlane(Startable):
    """`turnout serve` with an embedded store. Ports and store survive a restart. `async with` starts and ends it."""

    def __init__(self, *, log_level: str = "info", workers: int = 0, options: Sequence[str] = ()) -> None:
        """Prepare a control plane; `options` are further options of `turnout serve`."""
        self._temporary = tempfile.TemporaryDirectory(prefix="turnout-plane-")
        self.directory = Path(self._temporary.name)
        self.data = self.directory / "data"
        self.api = f"127.0.0.1:{free_port()}"
        self.xds_port = free_port()
        self.command = [sys.executable, "-m", "controlplane.cli.main"]
        serve = [
            "serve",
            "--data",
            str(self.data),
            "--api",
            self.api,
            "--xds",
            f"127.0.0.1:{self.xds_port}",
            "--metrics",
            "off",
            "--workers",
            str(workers),
            *options,
        ]
        log = self.directory / "serve.log"
        self.process = Process("turnout serve", [*self.command, *serve, "--log-format", "json", "--log-level", log_level], log)
        self._channel: grpc.aio.Channel | None = None

    async def start(self, seconds: float = 30.0) -> None:
        """Start it, and return when it answers. Errors: UNAVAILABLE with the log if it ends or after `seconds`."""
        if self._channel is None:
            backoff = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.min_reconnect_backoff_ms", 50)]
            backoff += [("grpc.max_reconnect_backoff_ms", 200), ("grpc.enable_http_proxy", 0)]
            self._channel = grpc.aio.insecure_channel(self.api, options=backoff)
            self.models = ModelServiceStub(self._channel)
            self.nodes = NodeServiceStub(self._channel)
            self.revisions = RevisionServiceStub(self._channel)
            self.status = StatusServiceStub(self._channel)
            self.traffic = TrafficServiceStub(self._channel)
        await self.process.start()
        deadline = time.monotonic() + seconds
        while True:
            self.process.check()
            try:
                await self.revisions.ListRevisions(ListRevisionsRequest(page_size=1), timeout=5)
                return
            except grpc.aio.AioRpcError as error:
                if time.monotonic() > deadline:
                    message = (
                        f"turnout serve did not answer within {seconds:g} s: {error.details()}\n{self.process.log_tail()}"
                    )
                    raise Error(Code.UNAVAILABLE, "NOT_READY", message) from None
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """End it; `start` may follow."""
        await self.process.stop()

    async def kill(self) -> None:
        """Kill it; `start` may follow."""
        await self.process.kill()

    async def close(self) -> None:
        """End it, and remove its store."""
        await self.process.stop()
        if self._channel is not None:
            await self._channel.close(None)
        self._temporary.cleanup()

    def envoy(self, node_id: str, variant: Literal["delta", "sotw"] = "delta", cluster: str = "demo") -> Envoy:
        """Return an Envoy that connects to this control plane; it is not started yet."""
        return Envoy(node_bootstrap(node_id, cluster, xds_port=self.xds_port, variant=variant, admin_port=0))

    # ---------------------------------------------------------------------------------------------------- operator

    async def apply(self, manifest: Manifest, reason: str = "") -> int:
        """Apply objects, and return the revision. Errors: grpc's."""
        request = ApplyRequest(manifest=manifest, reason=reason, force=True)
        answer = await self.revisions.Apply(request, timeout=30, metadata=_AUTHOR)
        return answer.revision.number

    async def split(self, model: str, shares: Mapping[str, int]) -> int:
        """Move a model's traffic without an etag, and return the revision. Errors: grpc's."""
        switch = TrafficSwitch(model=f"models/{model}", split=Split(shares=shares))
        request = SwitchTrafficRequest(switches=[switch], force=True)
        answer = await self.models.SwitchTraffic(request, timeout=30, metadata=_AUTHOR)
        return answer.revision.number

    async def held(self, revision: int, nodes: int, seconds: float = 30.0) -> RevisionProgress:
        """Wait until all connected nodes, and at least `nodes`, hold a revision. Errors: UNAVAILABLE after `seconds`."""
        connected = NodeRequirement.NODE_REQUIREMENT_CONNECTED
        request = WatchRevisionRequest(name=f"revisions/{revision}", require=connected)
        deadline, progress = time.monotonic() + seconds, RevisionProgress()
        while (remaining := deadline - time.monotonic()) > 0:
            try:
                answers: AsyncIterable[WatchRevisionResponse] = self.revisions.WatchRevision(request, timeout=remaining)
                async for answer in answers:
                    progress = answer.progress
                    if progress.complete and progress.holding >= nodes:
                        return progress
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
                    raise
            await asyncio.sleep(0.05)
        state = f"{progress.holding} of {max(nodes, progress.total)} nodes hold revision {revision} after {seconds:g} s"
        raise Error(Code.UNAVAILABLE, "NOT_HELD", f"{state}\n{self.process.log_tail()}".rstrip())

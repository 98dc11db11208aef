"""A real Envoy refuses one cluster: the routes of other models wait for seconds at most."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pytest

from controlplane.aio.latest import Latest
from controlplane.compiler import Compiler
from controlplane.compiler.bootstrap import node_bootstrap
from controlplane.compiler.decode import decoded
from controlplane.demo.envoy import Envoy
from controlplane.demo.ports import free_port
from controlplane.domain import Endpoint, Gateway, Model, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import State
from controlplane.envoy_types import CLUSTER
from controlplane.published import PublishedRevision
from controlplane.snapshot import Audience, Resource, Snapshot
from controlplane.xds.events import Refused, StreamEvent, StreamId
from controlplane.xds_server.discovery import Discovery
from controlplane.xds_server.limits import StreamLimits
from controlplane.xds_server.transports import serve

pytestmark = pytest.mark.envoy

MODELS = [f"m{n}" for n in range(8)]
BAD = "m3"


def one_bad_cluster(port: int) -> Snapshot:
    """Return a snapshot of the models. Envoy refuses the cluster of BAD: its connect timeout is negative."""
    version = Version("blue", (Endpoint("127.0.0.1", free_port()),))
    models = {name: Model(name, ("edge",), (version,), {"blue": 10_000}) for name in MODELS}
    state = State({"edge": Gateway("edge", port, address="127.0.0.1")}, models)
    snapshot = Compiler().compile(state, NO_LIVE_ENDPOINTS, Audience(("edge",)), 1)
    good = snapshot.resources[CLUSTER][f"{BAD}/blue"]
    message = decoded(good)
    message.connect_timeout.FromSeconds(-1)
    bad = Resource.of(CLUSTER, good.name, message.SerializeToString(deterministic=True), good.refs)
    others = (r for resources in snapshot.resources.values() for r in resources.values() if r is not good)
    return Snapshot.of(1, snapshot.audience, [bad, *others])


@dataclass
class OneSnapshot:
    """A published revision in which every node has the same snapshot."""

    served: Snapshot
    gateways: Mapping[str, Gateway]

    def audience(self, node: object) -> Audience:
        return self.served.audience

    def snapshot(self, audience: Audience) -> Snapshot:
        return self.served

    def note(self, audience: Audience) -> str:
        return ""


@pytest.mark.parametrize("variant", ["delta", "sotw"])
async def test_the_routes_of_other_models_come_within_seconds(variant: Literal["delta", "sotw"]) -> None:
    refused = asyncio.Event()

    def report(stream: StreamId, event: StreamEvent) -> None:
        if isinstance(event, Refused):
            refused.set()

    published: Latest[PublishedRevision | None] = Latest(OneSnapshot(one_bad_cluster(free_port()), {}))
    discovery = Discovery(published, report, StreamLimits())
    server = await serve(discovery, "127.0.0.1", 0, StreamLimits())
    envoy = Envoy(node_bootstrap("edge-1", "test", xds_port=server.port, variant=variant, admin_port=0))
    try:
        await envoy.start()
        async with asyncio.timeout(20):
            await refused.wait()
            began = time.monotonic()
            while await models_with_routes(envoy) < set(MODELS) - {BAD}:  # noqa: ASYNC110  an Envoy notifies nobody
                await asyncio.sleep(0.02)
        assert time.monotonic() - began < 5
    finally:
        await envoy.close()
        await server.stop(0)


async def models_with_routes(envoy: Envoy) -> set[str]:
    """Return the models whose RouteConfiguration the Envoy has accepted."""
    counts = await envoy.stats("rds.*update_success$")
    return {model for model in MODELS if any(count for name, count in counts.items() if f".rds.{model}." in name)}

"""A long scenario with Envoys of three versions, in both xDS variants, over ADS and over separate streams.

Separate streams means: clusters and listeners come over their own services. Endpoints, scopes and routes still come over ADS,
because the clusters and listeners that refer to them name `ads {}` as their source. Envoy accepts no source that means "the
service that sent this resource".
"""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from controlplane.compiler.bootstrap import node_bootstrap
from controlplane.demo.envoy import Envoy, envoy_binary
from controlplane.generated.turnout.v1 import (
    gateway_pb2,
    gateway_service_pb2,
    model_pb2,
    model_service_pb2,
    node_pb2,
    revision_pb2,
    revision_service_pb2,
)
from tests.envoy.test_sync import BYTES, HOST, Plane, model_server

pytestmark = pytest.mark.envoy

# The newest version is a dependency of the project. `make setup` installs the older ones, only for this test.
OLDER = [line.partition("==")[2] for line in (Path(__file__).parent / "versions.txt").read_text().split()]

# A restarted control plane sends an up-to-date Envoy at most this many bytes: the start of a connection, and nothing else.
QUIET_BYTES = 700


def binary(version: str) -> str:
    """Return the path of the Envoy of a version; "newest" is the one that the project installs."""
    if version == "newest":
        return envoy_binary()
    path = Path(sys.prefix) / "envoys" / version / "envoy" / "_bin" / "envoy"
    if not path.exists():
        pytest.fail(f"{path} does not exist; install it with `make setup`")
    return str(path)


def bootstrap(xds_port: int, variant: Any, *, separate: bool) -> dict[str, Any]:
    """Return the bootstrap of the node edge-1. `separate`: clusters and listeners come over their own services."""
    config: dict[str, Any] = node_bootstrap("edge-1", "edge", xds_port=xds_port, variant=variant, admin_port=0)
    if separate:
        dynamic = config["dynamic_resources"]
        for source in ("cds_config", "lds_config"):
            dynamic[source] = {"resource_api_version": "V3", "api_config_source": dict(dynamic["ads_config"])}
    return config


class Matrix(Plane):
    """A control plane with two more model servers: `violet`, and `moved` for a change of endpoints."""

    async def __aenter__(self) -> "Matrix":
        await super().__aenter__()
        self.upstreams["violet"] = await self._stack.enter_async_context(model_server("violet"))
        self.moved = await self._stack.enter_async_context(model_server("moved"))
        return self

    async def put(self, name: str, **ports: int) -> int:
        """Apply a model with these versions, all traffic on the first. Return the revision."""
        versions = [
            model_pb2.Version(name=v, endpoints=[model_pb2.Endpoint(host="127.0.0.1", port=p)]) for v, p in ports.items()
        ]
        model = model_pb2.Model(name=name, gateways=["gateways/public"], versions=versions, split={versions[0].name: 10_000})
        manifest = revision_service_pb2.Manifest(models=[model])
        response = await self.revisions.Apply(revision_service_pb2.ApplyRequest(manifest=manifest, force=True))
        return int(response.revision.number)

    async def connected(self, streams: int) -> None:
        """Wait until the node has this many open streams. Each stream reconnects on its own."""
        changed = self.app.events.changed
        async with asyncio.timeout(20):
            while (node := self.app.fleet.nodes.get("edge-1")) is None or len(node.streams) != streams:
                await changed.newer(changed.serial)

    async def remove(self, name: str) -> int:
        """Delete a model. Return the revision."""
        response = await self.models.DeleteModel(
            model_service_pb2.DeleteModelRequest(name=f"models/{name}", force=True, allow_cut=True)
        )
        return int(response.revision)


@asynccontextmanager
async def callers(port: int) -> AsyncIterator[Counter[str]]:
    """Send requests to iris without a pause. Yield the counts of the answers: the version that answered, or the error."""
    answers: Counter[str] = Counter()

    async def call(session: aiohttp.ClientSession) -> None:
        while True:
            try:
                async with session.get(f"http://{HOST}:{port}/v2/models/iris/infer") as response:
                    text = await response.text()
                    answers[text if response.status == 200 else f"{response.status} {text[:60]}"] += 1
            except aiohttp.ClientError as error:
                answers[f"failed: {error!r}"] += 1
            await asyncio.sleep(0.002)

    async with aiohttp.ClientSession() as session:
        tasks = [asyncio.create_task(call(session)) for _ in range(4)]
        try:
            yield answers
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def counts(envoy: Envoy, pattern: str) -> dict[str, int]:
    """Return the statistics of an Envoy that match a pattern and are not 0."""
    return {name: n for name, n in (await envoy.stats(pattern)).items() if n}


@pytest.mark.parametrize("separate", [False, True], ids=["ads", "separate"])
@pytest.mark.parametrize("variant", ["delta", "sotw"])
@pytest.mark.parametrize("version", [*OLDER, "newest"])
async def test_an_envoy_follows_every_kind_of_change(tmp_path: Path, version: str, variant: str, separate: bool) -> None:
    async with Matrix(tmp_path) as plane:
        await plane.apply()
        blue, green, violet = (plane.upstreams[v] for v in ("blue", "green", "violet"))
        async with Envoy(bootstrap(plane.xds_port, variant, separate=separate), binary=binary(version)) as envoy:
            await plane.held(1)
            node = await plane.node("edge-1")
            assert (version in node.user_agent or version == "newest", list(node.variants)) == (True, [variant])
            streams = 3 if separate else 1
            assert node.streams == streams
            assert await plane.ask() == "blue"
            async with callers(plane.port) as answers:
                await plane.held(await plane.switch("green"))
                assert await plane.ask() == "green"
                # One revision adds a cluster, changes the route to it, and removes the old cluster.
                await plane.held(await plane.put("iris", violet=violet, green=green))
                assert await plane.ask() == "violet"
                await plane.held(await plane.put("iris", blue=blue, violet=violet))
                assert await plane.ask() == "blue"
                # A model is created and deleted.
                clusters = await counts(envoy, "cluster_manager.active_clusters$")
                await plane.held(await plane.put("wine", violet=violet))
                assert await counts(envoy, "cluster_manager.active_clusters$") != clusters
                await plane.held(await plane.remove("wine"))
                assert await counts(envoy, "cluster_manager.active_clusters$") == clusters
                # Only endpoints change.
                before = await counts(envoy, "(lds|cds|rds.*)\\.update_success$")
                await plane.held(await plane.put("iris", blue=plane.moved, violet=violet))
                await plane.answers("moved")
                assert await counts(envoy, "(lds|cds|rds.*)\\.update_success$") == before
                # The Envoy refuses a listener, because the port is its own admin port.
                taken = gateway_pb2.Gateway(name="taken", address="127.0.0.1", port=int(envoy.admin.rpartition(":")[2]))
                await plane.gateways.CreateGateway(gateway_service_pb2.CreateGatewayRequest(gateway=taken))
                revision = plane.app.fleet.revision
                (refused,) = (await plane.progress(revision, lambda p: p.refused)).nodes
                assert (refused.refused_type, refused.refused_revision) == ("Listener", revision)
                assert f"{taken.address}:{taken.port}" in refused.refused_resources
                # While the refusal lasts, the Envoy holds later revisions except for that listener.
                progress = await plane.held(await plane.switch("violet"))
                (held,) = progress.nodes
                assert (held.state, progress.refused) == (revision_pb2.NODE_PROGRESS_STATE_HOLDING, 0)
                assert (held.refused_type, held.refused_revision, held.error) == ("Listener", revision, refused.error)
                assert (await plane.node("edge-1")).state == node_pb2.NODE_STATE_REFUSING
                assert await plane.ask() == "violet"
                response = await plane.gateways.DeleteGateway(gateway_service_pb2.DeleteGatewayRequest(name="gateways/taken"))
                (held,) = (await plane.held(response.revision)).nodes
                assert (held.refused_type, held.refused_revision) == ("", 0)
                assert (await plane.node("edge-1")).state == node_pb2.NODE_STATE_SYNCED
                # The control plane restarts.
                before, received = await counts(envoy, "update_success$"), (await envoy.stats(BYTES))[BYTES]
                await plane.stop()
                await plane.start()
                await plane.connected(streams)
                await plane.held(response.revision)
                received = (await envoy.stats(BYTES))[BYTES] - received
                if variant == "delta":
                    assert await counts(envoy, "update_success$") == before
                    assert received < QUIET_BYTES
                await plane.held(await plane.switch("blue"))
                assert await plane.ask() == "moved"
            assert answers.keys() == {"blue", "green", "violet", "moved"}, answers
            # The Envoy restarts.
            await envoy.restart()
            await plane.connected(streams)
            await plane.held(plane.app.fleet.revision)
            assert await plane.ask() == "moved"
            assert not await counts(envoy, "update_rejected$")

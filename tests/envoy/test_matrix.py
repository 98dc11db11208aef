"""What Envoys of three versions make of it, in both variants, over ADS and over separate streams: one life of each.

Separate means: clusters and listeners over services of their own. What follows from them (endpoints, scopes, routes) says
`ads {}` as its source, so it comes over ADS all the same; Envoy has no word for "the service that named it" that it takes.
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

# The newest is a dependency of the project; the others stand beside it, for this test alone (`make setup`).
OLDER = [line.partition("==")[2] for line in (Path(__file__).parent / "versions.txt").read_text().split()]

# What a control plane that comes back may say to an Envoy that is up to date: the start of a connection, and nothing else.
QUIET_BYTES = 700


def binary(version: str) -> str:
    """The Envoy of a version; "newest" is the one that the project installs."""
    if version == "newest":
        return envoy_binary()
    found = Path(sys.prefix) / "envoys" / version / "envoy" / "_bin" / "envoy"
    if not found.exists():
        pytest.fail(f"{found} is not there: `make setup` installs it")
    return str(found)


def bootstrap(xds_port: int, variant: Any, *, separate: bool) -> dict[str, Any]:
    made: dict[str, Any] = node_bootstrap("edge-1", "edge", xds_port=xds_port, variant=variant, admin_port=0)
    if separate:
        dynamic = made["dynamic_resources"]
        for source in ("cds_config", "lds_config"):
            dynamic[source] = {"resource_api_version": "V3", "api_config_source": dict(dynamic["ads_config"])}
    return made


class Matrix(Plane):
    """A control plane, and a third model server to move to."""

    async def __aenter__(self) -> "Matrix":
        await super().__aenter__()
        self.upstreams["violet"] = await self._stack.enter_async_context(model_server("violet"))
        self.others = {v: await self._stack.enter_async_context(model_server(v)) for v in ("moved",)}
        return self

    async def put(self, name: str, **ports: int) -> int:
        """A model with these versions, all traffic on the first."""
        versions = [
            model_pb2.Version(name=v, endpoints=[model_pb2.Endpoint(host="127.0.0.1", port=p)]) for v, p in ports.items()
        ]
        model = model_pb2.Model(name=name, gateways=["gateways/public"], versions=versions, split={versions[0].name: 10_000})
        manifest = revision_service_pb2.Manifest(models=[model])
        response = await self.revisions.Apply(revision_service_pb2.ApplyRequest(manifest=manifest, force=True))
        return int(response.revision.number)

    async def connected(self, streams: int) -> None:
        """Waits until the node has this many streams open: each comes back by itself."""
        changed = self.app.events.changed
        async with asyncio.timeout(20):
            while (node := self.app.fleet.nodes.get("edge-1")) is None or len(node.streams) != streams:
                await changed.newer(changed.serial)

    async def remove(self, name: str) -> int:
        response = await self.models.DeleteModel(model_service_pb2.DeleteModelRequest(name=f"models/{name}", force=True))
        return int(response.revision)


@asynccontextmanager
async def callers(port: int) -> AsyncIterator[Counter[str]]:
    """Requests to iris without a pause, and what came of them: who answered, or what went wrong."""
    came: Counter[str] = Counter()

    async def call(session: aiohttp.ClientSession) -> None:
        while True:
            try:
                async with session.get(f"http://{HOST}:{port}/v2/models/iris/infer") as answer:
                    text = await answer.text()
                    came[text if answer.status == 200 else f"{answer.status} {text[:60]}"] += 1
            except aiohttp.ClientError as error:
                came[f"failed: {error!r}"] += 1
            await asyncio.sleep(0.002)

    async with aiohttp.ClientSession() as session:
        tasks = [asyncio.create_task(call(session)) for _ in range(4)]
        try:
            yield came
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def counts(envoy: Envoy, pattern: str) -> dict[str, int]:
    return {name: n for name, n in (await envoy.stats(pattern)).items() if n}


@pytest.mark.parametrize("separate", [False, True], ids=["ads", "separate"])
@pytest.mark.parametrize("variant", ["delta", "sotw"])
@pytest.mark.parametrize("version", [*OLDER, "newest"])
async def test_a_life(tmp_path: Path, version: str, variant: str, separate: bool) -> None:
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
            async with callers(plane.port) as came:
                await plane.held(await plane.switch("green"))
                assert await plane.ask() == "green"
                # A new cluster, the route to it and the end of the old one in one revision.
                await plane.held(await plane.put("iris", violet=violet, green=green))
                assert await plane.ask() == "violet"
                await plane.held(await plane.put("iris", blue=blue, violet=violet))
                assert await plane.ask() == "blue"
                # A model comes and goes.
                clusters = await counts(envoy, "cluster_manager.active_clusters$")
                await plane.held(await plane.put("wine", violet=violet))
                assert await counts(envoy, "cluster_manager.active_clusters$") != clusters
                await plane.held(await plane.remove("wine"))
                assert await counts(envoy, "cluster_manager.active_clusters$") == clusters
                # Endpoints move; nothing else does.
                before = await counts(envoy, "(lds|cds|rds.*)\\.update_success$")
                await plane.held(await plane.put("iris", blue=plane.others["moved"], violet=violet))
                await plane.answers("moved")
                assert await counts(envoy, "(lds|cds|rds.*)\\.update_success$") == before
                # A refusal, and its end.
                taken = gateway_pb2.Gateway(name="taken", address=HOST, port=int(envoy.admin.rpartition(":")[2]))
                taken.address = "127.0.0.1"
                await plane.gateways.CreateGateway(gateway_service_pb2.CreateGatewayRequest(gateway=taken))
                revision = plane.app.fleet.revision
                (refused,) = (await plane.progress(revision, lambda p: p.refused)).nodes
                assert (refused.refused_type, refused.refused_revision) == ("Listener", revision)
                assert f"{taken.address}:{taken.port}" in refused.refused_resources
                # What comes after is held but for it, while it stands.
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
            assert came.keys() == {"blue", "green", "violet", "moved"}, came
            # The Envoy restarts.
            await envoy.restart()
            await plane.connected(streams)
            await plane.held(plane.app.fleet.revision)
            assert await plane.ask() == "moved"
            assert not await counts(envoy, "update_rejected$")

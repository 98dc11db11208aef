"""Real Envoys that receive a part of all resources: selected by their zone, and by the models in their metadata."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack

import aiohttp
import pytest

from controlplane.compiler.bootstrap import node_bootstrap
from controlplane.demo.envoy import Envoy
from controlplane.demo.lean import LeanServer
from controlplane.demo.plane import ControlPlane
from controlplane.demo.ports import free_port
from controlplane.domain import Locality
from controlplane.generated.turnout.v1.gateway_pb2 import Gateway, NodeSelector
from controlplane.generated.turnout.v1.model_pb2 import Endpoint, Model, Version
from controlplane.generated.turnout.v1.node_pb2 import NODE_STATE_SYNCED
from controlplane.generated.turnout.v1.node_service_pb2 import ListNodesRequest
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest

pytestmark = pytest.mark.envoy

ZONES = ("near", "far")


async def clusters(envoy: Envoy) -> set[str]:
    """Return the names of the clusters that an Envoy has from the control plane."""
    statuses = json.loads(await envoy.get("/clusters?format=json"))["cluster_statuses"]
    return {status["name"] for status in statuses} - {"turnout"}


async def test_an_envoy_receives_the_gateways_of_its_zone_and_the_models_in_its_metadata(
    control_plane: ControlPlane, lean: LeanServer
) -> None:
    ports = {zone: free_port() for zone in ZONES}
    versions = [Version(name=v, endpoints=[Endpoint(host="127.0.0.1", port=p)]) for v, p in lean.ports.items()]

    def manifest(*models: str) -> Manifest:
        return Manifest(
            gateways=[Gateway(name=z, address="127.0.0.1", port=p, nodes=NodeSelector(zones=[z])) for z, p in ports.items()],
            models=[Model(name=m, gateways=ZONES, versions=versions, split={"blue": 10_000}) for m in models],
        )

    await control_plane.apply(manifest("iris", "rose", "wine"))
    async with AsyncExitStack() as stack:

        async def start(node: str, zone: str, metadata: dict[str, object]) -> Envoy:
            bootstrap = node_bootstrap(
                node, xds_port=control_plane.xds_port, admin_port=0, locality=Locality("eu", zone), metadata=metadata
            )
            return await stack.enter_async_context(Envoy(bootstrap))

        sidecar = await start("sidecar", "near", {"turnout.models": ["iris", "wine", "nosuch"]})
        edge = await start("edge", "far", {})
        unselected = await start("unselected", "nowhere", {})
        for envoy in (sidecar, edge, unselected):
            await envoy.ready()
        await sidecar.listens(ports["near"])
        await edge.listens(ports["far"])
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def status(zone: str, model: str) -> int:
            async with session.get(f"http://127.0.0.1:{ports[zone]}/v2/models/{model}/infer") as response:
                return response.status

        assert [await status("near", m) for m in ("iris", "rose", "wine")] == [200, 404, 200]
        assert [await status("far", m) for m in ("iris", "rose", "wine")] == [200, 200, 200]
        assert await clusters(sidecar) == {f"{m}/{v}" for m in ("iris", "wine") for v in ("blue", "green")}
        assert await clusters(unselected) == set()

        # The new model `tulip` goes to the edge only. All three Envoys hold the revision.
        updates = "cluster_manager.cds.update_success"
        before = [(await e.stats(updates))[updates] for e in (sidecar, edge)]
        await control_plane.held(await control_plane.apply(manifest("iris", "rose", "tulip", "wine")), nodes=3)
        after = [(await e.stats(updates))[updates] for e in (sidecar, edge)]
        assert [b - a for a, b in zip(before, after, strict=True)] == [0, 1]
        nodes = {n.id: n for n in (await control_plane.nodes.ListNodes(ListNodesRequest())).nodes}
        assert {n: (nodes[n].state, list(nodes[n].gateways), nodes[n].note) for n in nodes} == {
            "sidecar": (NODE_STATE_SYNCED, ["gateways/near"], "it names models that its gateways don't have: nosuch"),
            "edge": (NODE_STATE_SYNCED, ["gateways/far"], ""),
            "unselected": (
                NODE_STATE_SYNCED,
                [],
                "no gateway selects it: far wants zone in [far]; near wants zone in [near]",
            ),
        }

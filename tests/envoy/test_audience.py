"""Real Envoys that are given less than all there is: by where they are, and by the models that they name."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack

import aiohttp
import pytest

from controlplane.compiler.bootstrap import node_bootstrap
from controlplane.demo.envoy import Envoy
from controlplane.demo.lean import LeanServer
from controlplane.demo.plane import ControlPlane, free_port
from controlplane.domain import Locality
from controlplane.generated.turnout.v1.gateway_pb2 import Gateway, NodeSelector
from controlplane.generated.turnout.v1.model_pb2 import Endpoint, Model, Version
from controlplane.generated.turnout.v1.node_pb2 import NODE_STATE_SYNCED
from controlplane.generated.turnout.v1.node_service_pb2 import ListNodesRequest
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest

pytestmark = pytest.mark.envoy

ZONES = ("near", "far")


async def clusters(envoy: Envoy) -> set[str]:
    """The clusters that it has from the control plane."""
    found = json.loads(await envoy.get("/clusters?format=json"))["cluster_statuses"]
    return {c["name"] for c in found} - {"turnout"}


async def test_an_envoy_is_given_its_zones_gateways_and_the_models_that_it_names(
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

        async def started(node: str, zone: str, metadata: dict[str, object]) -> Envoy:
            bootstrap = node_bootstrap(
                node, xds_port=control_plane.xds_port, admin_port=0, locality=Locality("eu", zone), metadata=metadata
            )
            return await stack.enter_async_context(Envoy(bootstrap))

        sidecar = await started("sidecar", "near", {"turnout.models": ["iris", "wine", "nosuch"]})
        edge = await started("edge", "far", {})
        lost = await started("lost", "nowhere", {})
        for envoy in (sidecar, edge, lost):
            await envoy.ready()
        await sidecar.listens(ports["near"])
        await edge.listens(ports["far"])
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def status(zone: str, model: str) -> int:
            async with session.get(f"http://127.0.0.1:{ports[zone]}/v2/models/{model}/infer") as answer:
                return answer.status

        assert [await status("near", m) for m in ("iris", "rose", "wine")] == [200, 404, 200]
        assert [await status("far", m) for m in ("iris", "rose", "wine")] == [200, 200, 200]
        assert await clusters(sidecar) == {f"{m}/{v}" for m in ("iris", "wine") for v in ("blue", "green")}
        assert await clusters(lost) == set()

        # What one is not given is no news to it; and all three hold the revision.
        counted = "cluster_manager.cds.update_success"
        before = [(await e.stats(counted))[counted] for e in (sidecar, edge)]
        await control_plane.held(await control_plane.apply(manifest("iris", "rose", "tulip", "wine")), nodes=3)
        after = [(await e.stats(counted))[counted] for e in (sidecar, edge)]
        assert [b - a for a, b in zip(before, after, strict=True)] == [0, 1]
        nodes = {n.id: n for n in (await control_plane.nodes.ListNodes(ListNodesRequest())).nodes}
        assert {n: (nodes[n].state, list(nodes[n].gateways), nodes[n].note) for n in nodes} == {
            "sidecar": (NODE_STATE_SYNCED, ["gateways/near"], "it names models that its gateways don't have: nosuch"),
            "edge": (NODE_STATE_SYNCED, ["gateways/far"], ""),
            "lost": (
                NODE_STATE_SYNCED,
                [],
                "no gateway selects it: far wants zone in [far]; near wants zone in [near]",
            ),
        }

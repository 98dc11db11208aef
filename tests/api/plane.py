"""A real control plane with gateway `edge`, which has a certificate, and model `iris`, whose traffic goes to blue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from envoy.service.status.v3 import csds_pb2, csds_pb2_grpc
from envoy.type.matcher.v3 import node_pb2, string_pb2

from controlplane.app import App
from controlplane.config import Address, Config
from controlplane.generated.turnout.v1 import gateway_pb2, model_pb2, secret_pb2
from controlplane.generated.turnout.v1 import model_service_pb2 as mpb
from controlplane.generated.turnout.v1 import model_service_pb2_grpc as mpb_grpc
from controlplane.generated.turnout.v1 import node_service_pb2 as npb
from controlplane.generated.turnout.v1 import node_service_pb2_grpc as npb_grpc
from controlplane.generated.turnout.v1 import revision_service_pb2 as rpb
from controlplane.generated.turnout.v1 import revision_service_pb2_grpc as rpb_grpc
from tests import pki
from tests.fakes.xds_client import XdsClient, client

EDGE = pki.pair("edge.test")


@dataclass
class Plane:
    """A control plane, and the stubs of its services."""

    app: App
    models: Any
    revisions: Any
    nodes: Any
    status: Any

    async def fetch(self, **request: Any) -> Any:
        return await self.status.FetchClientStatus(csds_pb2.ClientStatusRequest(**request))

    async def of(self, node: str, **request: Any) -> dict[tuple[str, str], Any]:
        """Return the resources of a node by type and name, as CSDS reports them; none if it is not connected."""
        matcher = node_pb2.NodeMatcher(node_id=string_pb2.StringMatcher(exact=node))
        configs = (await self.fetch(node_matchers=[matcher], **request)).config
        assert [config.node.id for config in configs] in ([node], [])
        resources = [c for config in configs for c in config.generic_xds_configs]
        by_name = {(c.type_url, c.name): c for c in resources}
        assert len(by_name) == len(resources)
        return by_name

    async def until(self, node: str, condition: Callable[[dict[tuple[str, str], Any]], bool]) -> dict[tuple[str, str], Any]:
        """Return the resources of a node once a condition holds of them, because an ACK takes some time."""
        async with asyncio.timeout(20):
            while not condition(resources := await self.of(node)):  # noqa: ASYNC110  there is no event to wait for
                await asyncio.sleep(0.01)
        return resources

    async def node_status(self, node: str, **request: Any) -> Any:
        """Return the NodeStatus of a node."""
        return (await self.nodes.GetNodeStatus(npb.GetNodeStatusRequest(name=f"nodes/{node}", **request))).status

    async def switch(self, version: str) -> None:
        switch = mpb.TrafficSwitch(model="models/iris", version=version)
        await self.models.SwitchTraffic(mpb.SwitchTrafficRequest(switches=[switch], force=True))

    @asynccontextmanager
    async def client(self, node: str, variant: str = "delta", **more: Any) -> AsyncIterator[XdsClient]:
        async with client(self.app.xds_port, node, variant, **more) as c:
            yield c


@asynccontextmanager
async def serving(directory: Path, workers: int = 0) -> AsyncIterator[Plane]:
    """Run a control plane until the block ends."""
    local = Address("127.0.0.1", 0)
    app = App(Config(data=directory, api=local, xds=local, metrics=None, grace=0.1, workers=workers))
    await app.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{app.api_port}") as channel:
            versions = [
                model_pb2.Version(name=v, endpoints=[model_pb2.Endpoint(host="127.0.0.1", port=p)])
                for v, p in (("blue", 9001), ("green", 9002))
            ]
            manifest = rpb.Manifest(
                gateways=[gateway_pb2.Gateway(name="edge", port=10000, tls=gateway_pb2.GatewayTls(certificate="edge"))],
                models=[model_pb2.Model(name="iris", gateways=["edge"], versions=versions, split={"blue": 10_000})],
                secrets=[
                    secret_pb2.Secret(
                        name="edge",
                        tls_certificate=secret_pb2.TlsCertificate(
                            certificate_chain_pem=EDGE.certificate, private_key_pem=EDGE.key
                        ),
                    )
                ],
            )
            stubs: Any = (
                mpb_grpc.ModelServiceStub,
                rpb_grpc.RevisionServiceStub,
                npb_grpc.NodeServiceStub,
                csds_pb2_grpc.ClientStatusDiscoveryServiceStub,
            )
            plane = Plane(app, *(stub(channel) for stub in stubs))
            await plane.revisions.Apply(rpb.ApplyRequest(manifest=manifest))
            yield plane
    finally:
        await app.stop(0)

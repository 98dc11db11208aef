"""The resources that a real Envoy holds: the control plane's status agrees with the Envoy's configuration dump."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.admin.v3 import config_dump_shared_pb2
from envoy.service.status.v3 import csds_pb2, csds_pb2_grpc

from controlplane.demo.envoy import Envoy
from controlplane.envoy_types import CLUSTER, LISTENER, ROUTES, SCOPED_ROUTES
from controlplane.generated.turnout.v1 import gateway_pb2, gateway_service_pb2, node_pb2, node_service_pb2
from tests.envoy.test_sync import HOST, Plane, taken_port

pytestmark = pytest.mark.envoy

CONFIG, CLIENT = csds_pb2.ConfigStatus, config_dump_shared_pb2.ClientResourceStatus


async def status(plane: Plane) -> dict[tuple[str, str], Any]:
    """Return the status of each resource of the only node, by type and name, from the control plane."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{plane.app.api_port}") as channel:
        stub: Any = csds_pb2_grpc.ClientStatusDiscoveryServiceStub(channel)
        (config,) = (await stub.FetchClientStatus(csds_pb2.ClientStatusRequest())).config
    return {(c.type_url, c.name): c for c in config.generic_xds_configs}


def dynamic_resources(dump: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield type, name and version of each resource that came over xDS."""
    for section in dump["configs"]:
        for cluster in section.get("dynamic_active_clusters", ()):
            yield CLUSTER, cluster["cluster"]["name"], cluster["version_info"]
        for listener in section.get("dynamic_listeners", ()):
            if "active_state" in listener:
                yield LISTENER, listener["name"], listener["active_state"]["version_info"]
        for routes in section.get("dynamic_route_configs", ()):
            yield ROUTES, routes["route_config"]["name"], routes["version_info"]
        for scopes in section.get("dynamic_scoped_route_configs", ()):
            for scope in scopes["scoped_route_configs"]:
                yield SCOPED_ROUTES, scope["name"], scopes.get("version_info", "")


async def compared(plane: Plane, envoy: Envoy) -> set[tuple[str, str]]:
    """Check that both sides name the same resources, and the same versions of clusters and listeners. Return the resources."""
    dumped = list(dynamic_resources(await envoy.config_dump()))
    types = {type_url for type_url, *_ in dumped}
    held = {key: config for key, config in (await status(plane)).items() if config.version_info and key[0] in types}
    assert {(type_url, name) for type_url, name, _ in dumped} == held.keys()
    assert {(t, n): version for t, n, version in dumped if t in (CLUSTER, LISTENER)} == {
        key: config.version_info for key, config in held.items() if key[0] in (CLUSTER, LISTENER)
    }
    return set(held)


async def test_the_status_of_an_envoy_agrees_with_its_config_dump(tmp_path: Path) -> None:
    async with Plane(tmp_path) as plane:
        await plane.apply()
        async with plane.envoy("edge-1", "delta") as envoy:
            await plane.held(1)
            await plane.answers("blue")
            listener = f"{HOST}:{plane.port}"
            assert {(CLUSTER, "iris/blue"), (LISTENER, listener), (ROUTES, "iris")} <= await compared(plane, envoy)
            assert {c.config_status for c in (await status(plane)).values()} == {CONFIG.SYNCED}

            with taken_port() as other:
                taken = f"{HOST}:{other.getsockname()[1]}"
                gateway = gateway_pb2.Gateway(name="second", address=HOST, port=other.getsockname()[1])
                await plane.gateways.CreateGateway(gateway_service_pb2.CreateGatewayRequest(gateway=gateway))
                await plane.progress(2, lambda p: p.refused)
                refused = (await status(plane))[LISTENER, taken]
                assert (refused.config_status, refused.client_status) == (CONFIG.ERROR, CLIENT.NACKED)
                assert "in use" in refused.error_state.details
                assert refused.error_state.failed_configuration.type_url == LISTENER
                response = await plane.nodes.GetNodeStatus(node_service_pb2.GetNodeStatusRequest(name="nodes/edge-1"))
                first = response.status.resources[0]
                assert (first.name, first.state) == (taken, node_pb2.RESOURCE_STATE_REFUSED)
                assert first.refusal.message == refused.error_state.details
                assert any(str(gateway.port) in line for line in first.diff)
                assert (LISTENER, taken) not in await compared(plane, envoy)

                switched = await plane.switch("green")
                await plane.held(switched)
                routes = (await status(plane))[ROUTES, "iris"]
                assert (routes.config_status, b"iris/green" in routes.xds_config.value) == (CONFIG.SYNCED, True)

            deleted = await plane.gateways.DeleteGateway(gateway_service_pb2.DeleteGatewayRequest(name="gateways/second"))
            await plane.held(deleted.revision)
            async with asyncio.timeout(20):
                while {c.config_status for c in (await status(plane)).values()} != {CONFIG.SYNCED}:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            assert (LISTENER, taken) not in await compared(plane, envoy)

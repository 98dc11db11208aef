"""Real Envoys with mutual TLS to the control plane: certificate files, SPIFFE, names, and rotation under load."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from controlplane.demo.lean import LeanServer
from controlplane.demo.plane import ControlPlane
from controlplane.demo.ports import free_port
from controlplane.generated.turnout.v1.node_service_pb2 import ListNodesRequest
from tests.envoy.conftest import Fleet
from tests.envoy.test_matrix import OLDER, binary
from tests.envoy.tls_rig import SecureNodes, spire_agent, until_at_least

pytestmark = pytest.mark.envoy


async def test_envoys_connect_with_files_and_with_spiffe_and_check_the_servers_name(tmp_path: Path, lean: LeanServer) -> None:
    nodes = SecureNodes(tmp_path)
    socket = Path(tempfile.mkdtemp(dir="/tmp")) / "agent.sock"  # the path of a socket may have 107 bytes
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(ControlPlane(options=nodes.options))
        await stack.enter_async_context(spire_agent(socket, nodes, "spiffe://td/workload"))
        oldest = binary(OLDER[0])
        envoys = {
            "new-delta": nodes.envoy(plane, "new-delta", "delta"),
            "new-sotw": nodes.envoy(plane, "new-sotw", "sotw"),
            "old-delta": nodes.envoy(plane, "old-delta", "delta", binary=oldest),
            "old-sotw": nodes.envoy(plane, "old-sotw", "sotw", binary=oldest),
            "workload": nodes.envoy(plane, "workload", "delta", server_name="spiffe://td/turnout", agent=socket),
        }
        # Its server has a certificate of the right authority, but of another name.
        deceived = nodes.envoy(plane, "deceived", "delta", server_name="turnout.internal")
        for envoy in (*envoys.values(), deceived):
            stack.push_async_callback(envoy.close)
        fleet = Fleet(plane, envoys, {node: free_port() for node in envoys})
        await plane.apply(fleet.manifest(lean.ports))
        await asyncio.gather(fleet.start(), deceived.start())
        await plane.held(1, nodes=len(envoys))
        await deceived.answers()
        await until_at_least(deceived, "ssl.fail_verify_san", 1)
        response = await plane.nodes.ListNodes(ListNodesRequest())
        assert {node.id for node in response.nodes} == set(envoys)

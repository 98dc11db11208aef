"""Real Envoys with mutual TLS to the control plane: certificate files, SPIFFE, names, and rotation under load."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.demo.lean import LeanServer
from controlplane.demo.plane import ControlPlane
from controlplane.demo.ports import free_port
from controlplane.generated.turnout.v1.node_service_pb2 import ListNodesRequest
from tests.envoy.conftest import Fleet, MakeLoad, Report
from tests.envoy.test_matrix import OLDER, binary
from tests.envoy.tls_rig import SecureNodes, spire_agent, stat, until_at_least
from tests.pki import Authority

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


async def _renew(nodes: SecureNodes, *names: str) -> None:
    """Give the nodes new certificates every 2 s, which are valid for 6 s, until cancelled."""
    while True:
        for name in names:
            nodes.renew(name, timedelta(seconds=6))
        await asyncio.sleep(2)


@pytest.mark.slow
async def test_certificates_and_authorities_rotate_during_switches_without_a_lost_request(
    tmp_path: Path, lean: LeanServer, make_load: MakeLoad, report: Report
) -> None:
    nodes = SecureNodes(tmp_path)
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(ControlPlane(options=nodes.options))
        oldest = binary(OLDER[0])
        renewing = asyncio.create_task(_renew(nodes, "new-delta", "old-sotw"))
        stack.callback(renewing.cancel)
        await asyncio.sleep(0)  # the first certificates are there
        envoys = {
            "new-delta": nodes.envoy(plane, "new-delta", "delta"),
            "old-sotw": nodes.envoy(plane, "old-sotw", "sotw", binary=oldest),
        }
        for envoy in envoys.values():
            stack.push_async_callback(envoy.close)
        fleet = Fleet(plane, envoys, {node: free_port() for node in envoys})
        await plane.apply(fleet.manifest(lean.ports))
        await fleet.start()
        await plane.held(1, nodes=2)
        load = make_load(fleet.groups(name="http1", connections=16, rate=300))
        await load.start()
        switch = 0

        async def switches(seconds: float) -> None:
            nonlocal switch
            end = asyncio.get_running_loop().time() + seconds
            while asyncio.get_running_loop().time() < end:
                switch += 1
                revision = await plane.split("digits", {("blue", "green")[switch % 2]: 10_000})
                await plane.held(revision, nodes=2, seconds=10)
                await asyncio.sleep(0.2)

        handshakes = [await stat(envoy, "ssl.handshake") for envoy in envoys.values()]
        await switches(14)
        old, new = nodes.authority, Authority("second")
        both = old.certificate + new.certificate
        nodes.server.put(ca_crt=both, ca_crl=(old.crl() + new.crl()).decode())
        for files in nodes.nodes.values():
            files.put(ca_crt=both)
        await switches(3)
        nodes.authority = new
        nodes.renew_server()
        await switches(8)  # until each node has a certificate of the new authority
        nodes.server.put(ca_crt=new.certificate, ca_crl=new.crl().decode())
        for files in nodes.nodes.values():
            files.put(ca_crt=new.certificate)
        await switches(8)
        while switch < 50:
            await switches(1)
        records = await load.stop()
        assert records.failed == 0, records.failures
        new_handshakes = [
            await stat(envoy, "ssl.handshake") - before for envoy, before in zip(envoys.values(), handshakes, strict=True)
        ]
        assert min(new_handshakes) >= 4
        assert switch >= 50
        report(f"{switch} switches, {len(records.requests)} requests, 0 lost, handshakes of each node: {new_handshakes}")

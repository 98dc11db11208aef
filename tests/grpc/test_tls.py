"""gRPC's own xDS client with mutual TLS to the control plane: the C core. grpc-js 1.14 knows no channel credentials `tls`."""

from __future__ import annotations

from pathlib import Path

from tests.envoy.tls_rig import SecureNodes
from tests.grpc.rig import serving


async def test_a_client_uses_certificates_of_files_and_checks_the_servers_name(tmp_path: Path) -> None:
    nodes = SecureNodes(tmp_path)
    async with serving(tmp_path, nodes.options) as rig:
        await rig.plane.apply(rig.manifest())
        app = await rig.caller("python", cluster="demo", xds_host="localhost", tls=nodes.certificates("app-1"))
        assert (await app.call(times=20)).counts == {"blue": 20}
        # The certificate is not for this address.
        by_address = await rig.caller("python", "app-2", cluster="demo", xds_host="127.0.0.1", tls=nodes.certificates("app-2"))
        # This identity may not be app-3.
        liar = await rig.caller("python", "app-3", cluster="demo", xds_host="localhost", tls=nodes.certificates("app-4"))
        for caller in (by_address, liar):
            assert "blue" not in (await caller.call()).counts
        assert set(await rig.nodes()) == {"app-1"}

"""The table of claims: what a client with one identity gets for claims of others, on every xDS service, with worker processes.

`tests/xds_server/test_access.py` has the same table without workers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2

from controlplane.app import App
from controlplane.config import XDS_TRANSPORTS
from controlplane.envoy_types import CLUSTER, LISTENER, SECRET
from controlplane.generated.turnout.v1 import gateway_pb2, node_service_pb2, revision_service_pb2
from controlplane.generated.turnout.v1 import secret_pb2 as ours
from tests.pki import Authority
from tests.test_app import Operator, config
from tests.xds_server.test_access import CLAIMS, METHODS, RULES, Secure, first_request, outcome
from tests.xds_server.test_tls_files import write

EXIST, MISSING = "edge", "nope"

# A service, its variant, and how many of its streams serve secrets.
SECRET_METHODS = [
    (f"/envoy.service.{service}/{variant}{stem}", variant)
    for service, stem in (
        ("discovery.v3.AggregatedDiscoveryService", "AggregatedResources"),
        ("secret.v3.SecretDiscoveryService", "Secrets"),
    )
    for variant in ("Delta", "Stream")
]


class Plane(Secure):
    """A control plane with TLS and worker processes, and calls of its API."""

    operator: Operator


@asynccontextmanager
async def serving(directory: Path, transport: str, workers: int) -> AsyncIterator[Plane]:
    """Run a control plane whose gateway `edge` is for the node `web`, and has a secret."""
    authority = Authority()
    paths = write(directory, authority.pair("localhost"), authority, rules=RULES, crl=authority.crl())
    files = dict(zip(("xds_tls_cert", "xds_tls_key", "xds_client_ca", "xds_identities", "xds_crl"), paths.paths, strict=True))
    app = App(config(directory / "data", workers=workers, xds_transport=transport, **files))
    await app.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{app.api_port}") as channel:
            plane = Plane(directory, authority, None, app.xds_port, None)  # type: ignore[arg-type]
            plane.operator = Operator(channel)
            pair = authority.pair("iris.example")
            secret = ours.Secret(
                name=EXIST,
                tls_certificate=ours.TlsCertificate(certificate_chain_pem=pair.certificate, private_key_pem=pair.key),
            )
            tls = gateway_pb2.GatewayTls(certificate=f"secrets/{EXIST}")
            gateway = gateway_pb2.Gateway(name="edge", port=10000, tls=tls, nodes=gateway_pb2.NodeSelector(ids=["web"]))
            manifest = revision_service_pb2.Manifest(gateways=[gateway], secrets=[secret])
            await plane.operator.revisions.Apply(revision_service_pb2.ApplyRequest(manifest=manifest, reason="test"))
            yield plane
    finally:
        await app.stop()


async def answers(channel: Any, method: str, node_id: str, name: str) -> list[tuple[Any, ...]]:
    """Subscribe to a secret. Return what comes within a moment, with the secret's name replaced."""
    delta = "/Delta" in method
    kind: Any = discovery_pb2.DeltaDiscoveryResponse if delta else discovery_pb2.DiscoveryResponse
    call = channel.stream_stream(method, response_deserializer=kind.FromString)()
    if delta:
        request: Any = discovery_pb2.DeltaDiscoveryRequest(type_url=SECRET, resource_names_subscribe=[name])
    else:
        request = discovery_pb2.DiscoveryRequest(type_url=SECRET, resource_names=[name])
    request.node.id = node_id
    await call.write(request.SerializeToString())
    found: list[tuple[Any, ...]] = []
    try:
        async with asyncio.timeout(0.4):
            while response := await call.read():
                if delta:
                    secrets, rest = (
                        [r.resource for r in response.resources],
                        [n.replace(name, "NAME") for n in response.removed_resources],
                    )
                else:
                    secrets, rest = list(response.resources), [response.version_info]
                found.append(
                    (
                        [secret_pb2.Secret.FromString(s.value).name for s in secrets],
                        rest,
                        response.ByteSize() - len("".join(rest)),
                    )
                )
    except TimeoutError:
        pass
    call.cancel()
    return found


@pytest.mark.parametrize("transport", XDS_TRANSPORTS)
async def test_no_worker_accepts_the_claims_of_another_identity_or_shows_its_secret(tmp_path: Path, transport: str) -> None:
    async with serving(tmp_path, transport, 2) as plane:
        async with plane.channel(plane.authority.pair("spiffe://td/web")) as channel:
            for method, type_url in METHODS:
                for claim, problem in CLAIMS:
                    code, text = await outcome(channel, method, type_url, **claim)
                    assert (code, problem in text) == ("PERMISSION_DENIED", True), (method, claim, text)
            code, _ = await outcome(
                channel, "/envoy.service.status.v3.ClientStatusDiscoveryService/StreamClientStatus", "", id="web"
            )
            assert code == "UNIMPLEMENTED"  # no xDS port serves CSDS, which would show what others hold
            # A later request can't claim anything: its node is ignored.
            for method, _ in METHODS[:2]:
                call = channel.stream_stream(method)()
                for node_id, type_url in (("web", CLUSTER), ("other", LISTENER)):
                    await call.write(first_request(method, type_url, {"id": node_id}))
                    async with asyncio.timeout(5):
                        await call.read()
                call.cancel()
            listed = await plane.operator.list()
            assert {(node.id, node.identity) for node in listed.nodes} == {("web", "spiffe://td/web")}
            for method, variant in SECRET_METHODS:
                assert [secrets for secrets, *_ in await answers(channel, method, "web", EXIST)] == [[EXIST]], (
                    method,
                    variant,
                )
        async with plane.channel(plane.authority.pair("spiffe://td/other")) as channel:
            for method, variant in SECRET_METHODS:
                existing, missing = await asyncio.gather(
                    *(answers(channel, method, "other", name) for name in (EXIST, MISSING))
                )
                assert existing == missing, method
                assert all(not secrets for secrets, *_ in existing)
                assert bool(existing) == (variant == "Delta"), "SotW has no answer for a name that does not exist"


@pytest.mark.parametrize(("transport", "workers"), [("http2", 0), ("http2", 2), ("grpc", 2)])
async def test_streams_of_a_blocked_client_end_and_it_gets_no_new_ones(tmp_path: Path, transport: str, workers: int) -> None:
    async with serving(tmp_path, transport, workers) as plane:
        nodes = plane.operator.nodes
        method, type_url = METHODS[0]
        for client, unblock in (("spiffe://td/web", True), ("web", False)):
            async with plane.channel(plane.authority.pair("spiffe://td/web")) as channel:
                for stream_method, _ in (METHODS[0], METHODS[-1]):
                    assert (await outcome(channel, stream_method, "", id="web"))[0] == "served"
                call = channel.stream_stream(method)()
                await call.write(first_request(method, type_url, {"id": "web"}))
                await call.read()
                response = await nodes.BlockNode(node_service_pb2.BlockNodeRequest(client=client, reason="stolen"), timeout=5)
                assert set(response.disconnected) <= {"nodes/web"}
                async with asyncio.timeout(5):
                    assert (await call.code()).name == "PERMISSION_DENIED"
                assert "blocked by an operator" in await call.details()
                for stream_method, url in METHODS:
                    code, text = await outcome(channel, stream_method, url, id="web")
                    assert (code, "is blocked" in text) == ("PERMISSION_DENIED", True), (stream_method, text)
                if unblock:
                    await nodes.UnblockNode(node_service_pb2.UnblockNodeRequest(client=client))
                    async with asyncio.timeout(5):
                        while (await outcome(channel, method, type_url, id="web"))[0] != "served":
                            pass
        # The same for a certificate in the list of revoked ones.
        other = plane.authority.pair("spiffe://td/other")
        async with plane.channel(other) as channel:
            call = channel.stream_stream(method)()
            await call.write(first_request(method, type_url, {"id": "other"}))
            await call.read()
            write(tmp_path, plane.authority.pair("localhost"), plane.authority, rules=RULES, crl=plane.authority.crl(other))
            async with asyncio.timeout(5):
                assert (await call.code()).name == "PERMISSION_DENIED"
            assert "is revoked" in await call.details()
        # Other clients are served, and a block outlives a restart of a worker and of the control plane.
        async with plane.channel(plane.authority.pair("spiffe://td/other")) as channel:
            assert (await outcome(channel, method, type_url, id="other"))[0] == "served"
    app = App(replace(config(tmp_path / "data"), workers=workers))
    await app.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{app.xds_port}") as channel:
            for _ in range(4):
                assert (await outcome(channel, method, type_url, id="web"))[0] == "PERMISSION_DENIED"
    finally:
        await app.stop()

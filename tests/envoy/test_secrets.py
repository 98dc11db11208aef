"""TLS with secrets and real Envoys: certificates are presented, rotated and refused, and keys are in no file."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from aiohttp import web
from cryptography import x509

from controlplane.demo.plane import ControlPlane
from controlplane.demo.ports import free_port
from controlplane.generated.turnout.v1.gateway_pb2 import Gateway, GatewayTls
from controlplane.generated.turnout.v1.model_pb2 import Endpoint, Model, UpstreamTls, Version
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest, WatchRevisionRequest
from controlplane.generated.turnout.v1.secret_pb2 import CaCertificates, Secret, TlsCertificate
from tests.pki import Authority, Pair, marks

pytestmark = pytest.mark.envoy

VARIANTS = pytest.mark.parametrize("variant", ["delta", "sotw"])

LISTENERS = r"listener_manager\.(lds\.update_success|listener_modified|listener_in_place_updated|listener_added)$"


def certificate_secret(pair: Pair, name: str = "edge") -> Secret:
    return Secret(name=name, tls_certificate=TlsCertificate(certificate_chain_pem=pair.certificate, private_key_pem=pair.key))


def ca_secret(authority: Authority, name: str) -> Secret:
    return Secret(name=name, ca_certificates=CaCertificates(ca_certificates_pem=authority.certificate))


class Client:
    """A TLS connection to an Envoy. `serial` is the serial number of the certificate that the Envoy presented."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        tls: Any = writer.get_extra_info("ssl_object")
        self.serial = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True)).serial_number

    @classmethod
    async def connect(cls, port: int, context: ssl.SSLContext) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="iris.example"))

    async def ask(self) -> str:
        """Send a request. Return the body of the answer, or the status if that is not 200."""
        self._writer.write(b"GET /v2/models/iris/infer HTTP/1.1\r\nhost: iris.example\r\n\r\n")
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 10)
        status = head.split()[1].decode()
        fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:] if b": " in line)
        body = await self._reader.readexactly(int(fields.get(b"content-length", b"0")))
        return body.decode() if status == "200" else status

    async def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def upstream(context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Run a model server that answers with the name in the client's certificate, or `nobody`. Yield its port."""

    async def handle(request: web.Request) -> web.Response:
        assert request.transport is not None
        certificate = request.transport.get_extra_info("peercert") or {}
        subject = dict(pair[0] for pair in certificate.get("subject", ()))
        response = web.Response(text=subject.get("commonName", "nobody"))
        response.force_close()  # so that each request has a new handshake
        return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def manifest(port: int, upstream_port: int, *secrets: Secret, tls: UpstreamTls | None = None, client_ca: str = "") -> Manifest:
    version = Version(name="blue", endpoints=[Endpoint(host="127.0.0.1", port=upstream_port)], tls=tls)
    gateway_tls = GatewayTls(certificate="secrets/edge", client_ca=client_ca)
    gateway = Gateway(name="edge", address="127.0.0.1", port=port, tls=gateway_tls)
    return Manifest(gateways=[gateway], models=[Model(name="iris", gateways=["edge"], versions=[version])], secrets=secrets)


async def connect_with_certificate(port: int, context: ssl.SSLContext, serial: int) -> Client:
    """Connect until the Envoy presents the certificate with this serial number. Return that connection."""
    async with asyncio.timeout(10):
        while True:
            client = await Client.connect(port, context)
            if client.serial == serial:
                return client
            await client.close()
            await asyncio.sleep(0.02)


def files_with_key(directory: Path, key: str) -> list[str]:
    """Return the files below a directory that contain a part of a private key."""
    parts = [mark.encode() for mark in marks(key)]
    assert parts
    return [str(p) for p in directory.rglob("*") if p.is_file() and any(part in p.read_bytes() for part in parts)]


@VARIANTS
async def test_a_rotation_changes_new_connections_and_no_listener(
    control_plane: ControlPlane, variant: Literal["delta", "sotw"]
) -> None:
    authority = Authority()
    old, new = authority.pair("iris.example"), authority.pair("iris.example")
    port = free_port()
    async with upstream() as server, control_plane.envoy("edge-1", variant) as envoy:
        revision = await control_plane.apply(manifest(port, server, certificate_secret(old)))
        await control_plane.held(revision, 1)
        await envoy.listens(port)
        first = await Client.connect(port, authority.context())
        assert first.serial == old.serial
        assert await first.ask() == "nobody"
        before = await envoy.stats(LISTENERS)

        rotated = await control_plane.apply(Manifest(secrets=[certificate_secret(new)]))
        await control_plane.held(rotated, 1)
        second = await connect_with_certificate(port, authority.context(), new.serial)
        assert await second.ask() == "nobody"
        assert await first.ask() == "nobody"  # on the connection that was open before
        assert await envoy.stats(LISTENERS) == before
        assert before

        # Restart the control plane, which decrypts the key in its store. Then go back to the old certificate.
        await control_plane.stop()
        await control_plane.start()
        back = await control_plane.apply(Manifest(secrets=[certificate_secret(old)]))
        await control_plane.held(back, 1)
        await (await connect_with_certificate(port, authority.context(), old.serial)).close()
        for client in (first, second):
            await client.close()
        for pair in (old, new):
            assert files_with_key(control_plane.directory, pair.key) == []
            assert files_with_key(envoy.directory, pair.key) == []


@VARIANTS
async def test_mutual_tls_with_clients_and_with_upstreams(
    control_plane: ControlPlane, variant: Literal["delta", "sotw"], tmp_path: Path
) -> None:
    inside, outside, stranger = Authority("inside"), Authority("outside"), Authority("stranger")
    port = free_port()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=inside.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(*inside.pair("models.internal").files(tmp_path, "server"))
    tls = UpstreamTls(server_name="models.internal", ca_certificates="secrets/inside", client_certificate="secrets/envoy")
    secrets = [
        certificate_secret(outside.pair("iris.example")),
        certificate_secret(inside.pair("an envoy"), "envoy"),
        ca_secret(inside, "inside"),
        ca_secret(outside, "clients"),
    ]
    async with upstream(context) as server, control_plane.envoy("edge-1", variant) as envoy:
        revision = await control_plane.apply(manifest(port, server, *secrets, tls=tls, client_ca="secrets/clients"))
        await control_plane.held(revision, 1)
        await envoy.listens(port)

        client = await Client.connect(port, outside.context(outside.pair("a client"), tmp_path))
        assert await client.ask() == "an envoy"
        await client.close()
        for client_pair in (None, stranger.pair("a client")):
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                await (await Client.connect(port, outside.context(client_pair, tmp_path))).ask()

        # Replace the authorities of the upstream: the cluster stays, and no longer accepts the upstream's certificate.
        updated = await envoy.stats(r"cluster_manager\.cluster_(modified|added)$")
        rotated = await control_plane.apply(Manifest(secrets=[ca_secret(stranger, "inside")]))
        await control_plane.held(rotated, 1)
        async with asyncio.timeout(10):
            while True:
                client = await Client.connect(port, outside.context(outside.pair("a client"), tmp_path))
                answer = await client.ask()
                await client.close()
                if answer == "503":
                    break
                await asyncio.sleep(0.05)
        assert await envoy.stats(r"cluster_manager\.cluster_(modified|added)$") == updated


@VARIANTS
async def test_a_refused_certificate_is_reported_and_the_old_one_stays_in_use(
    control_plane: ControlPlane, variant: Literal["delta", "sotw"]
) -> None:
    authority = Authority()
    old, bad, new = (authority.pair("iris.example", must_staple=staple) for staple in (False, True, False))
    port = free_port()
    async with upstream() as server, control_plane.envoy("edge-1", variant) as envoy:
        await control_plane.held(await control_plane.apply(manifest(port, server, certificate_secret(old))), 1)
        await envoy.listens(port)
        refused = await control_plane.apply(Manifest(secrets=[certificate_secret(bad)]))
        async with asyncio.timeout(10):
            async for response in control_plane.revisions.WatchRevision(WatchRevisionRequest(name=f"revisions/{refused}")):
                if response.progress.refused:
                    break
        (node,) = response.progress.nodes
        assert (node.refused_type, list(node.refused_resources)) == ("Secret", ["edge"])
        assert "OCSP response is required for must-staple certificate" in node.error
        client = await Client.connect(port, authority.context())
        assert (client.serial, await client.ask()) == (old.serial, "nobody")
        await client.close()
        await control_plane.held(await control_plane.apply(Manifest(secrets=[certificate_secret(new)])), 1)
        await (await connect_with_certificate(port, authority.context(), new.serial)).close()
        dump = await envoy.get("/config_dump?include_eds")
        for pair in (old, bad, new):
            assert files_with_key(control_plane.directory, pair.key) == []
            assert files_with_key(envoy.directory, pair.key) == []
            assert not any(mark in dump + node.error for mark in marks(pair.key))

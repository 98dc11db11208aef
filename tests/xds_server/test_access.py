"""Mutual TLS on both transports: who may open which stream as which node."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.load_stats.v3 import lrs_pb2

from controlplane.config import XDS_TRANSPORTS
from controlplane.store import Store
from controlplane.xds_server import tls_files
from controlplane.xds_server.access import Access
from controlplane.xds_server.discovery import SERVICES, Discovery
from controlplane.xds_server.limits import StreamLimits
from controlplane.xds_server.lrs_pump import LOAD_REPORTS
from controlplane.xds_server.tls_files import TlsFiles
from controlplane.xds_server.transports import serve
from tests.pki import Authority, Pair
from tests.xds_server.rig import BLUE, GATEWAY, running
from tests.xds_server.rig import store as _store
from tests.xds_server.test_tls_files import write

store = _store

RULES = """
identities:
- {match: "spiffe://td/{name}", ids: "{name}", clusters: [edge], metadata: {tenant: "{name}"}}
"""


class Secure:
    """A server with TLS, and its authority."""

    def __init__(self, directory: Path, authority: Authority, tls: TlsFiles, port: int, discovery: Discovery) -> None:
        self.directory, self.authority, self.tls, self.port, self.discovery = directory, authority, tls, port, discovery

    def channel(self, client: Pair | None) -> Any:
        pair = (None, None) if client is None else (client.key.encode(), client.certificate.encode())
        credentials = grpc.ssl_channel_credentials(self.authority.certificate.encode(), *pair)
        return grpc.aio.secure_channel(f"localhost:{self.port}", credentials)


@asynccontextmanager
async def secure(store: Store, directory: Path, transport: str) -> AsyncIterator[Secure]:
    authority = Authority()
    files = write(directory, authority.pair("localhost"), authority, rules=RULES, crl=authority.crl())
    async with running(store) as rig:
        await rig.commit_and_publish(GATEWAY, BLUE)
        tls = TlsFiles(files)
        discovery = Discovery(rig.publisher.published, lambda *event: None, access=Access(tls))
        server = await serve(discovery, "127.0.0.1", 0, StreamLimits(), transport=transport, tls=tls)
        watching = asyncio.create_task(tls.watch(discovery.access_changed))
        try:
            yield Secure(directory, authority, tls, server.port, discovery)
        finally:
            watching.cancel()
            discovery.close()
            await server.stop(1)


def first_request(method: str, type_url: str, node: dict[str, Any]) -> bytes:
    kind: Any = discovery_pb2.DeltaDiscoveryRequest if "/Delta" in method else discovery_pb2.DiscoveryRequest
    if method == LOAD_REPORTS:
        message: Any = lrs_pb2.LoadStatsRequest()
    else:
        message = kind(type_url=type_url or "type.googleapis.com/envoy.config.cluster.v3.Cluster")
    metadata = node.pop("metadata", {})
    for key, value in node.items():
        setattr(message.node, key, value)
    message.node.metadata.update(metadata)
    return bytes(message.SerializeToString())


async def outcome(channel: Any, method: str, type_url: str, **node: Any) -> tuple[str, str]:
    """Return the status and the text of a stream; ("served", "") if the server answers or keeps it open."""
    while True:
        call = channel.stream_stream(method)()
        try:
            await call.write(first_request(method, type_url, dict(node)))
            async with asyncio.timeout(0.15):
                await call.read()
        except (TimeoutError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass
        if not call.done():
            call.cancel()
            return "served", ""
        code, text = await call.code(), await call.details()
        # gRPC's client says so, too, if the server ends a stream while its first message is written.
        if text != "Internal error from Core":
            return code.name, text


METHODS = [
    *((f"/envoy.service.{service}/{v}{stem}", url) for service, stem, url in SERVICES for v in ("Delta", "Stream")),
    (LOAD_REPORTS, ""),
]

CLAIMS: list[tuple[dict[str, Any], str]] = [
    ({"id": "other"}, "node id 'other'"),
    ({"id": "web", "cluster": "other"}, "cluster 'other'"),
    ({"id": "web", "metadata": {"tenant": "other"}}, "metadata tenant: 'other'"),
]


@pytest.mark.parametrize("transport", XDS_TRANSPORTS)
async def test_no_service_accepts_the_claims_of_another_identity(store: Store, tmp_path: Path, transport: str) -> None:
    async with secure(store, tmp_path, transport) as s, s.channel(s.authority.pair("spiffe://td/web")) as channel:
        for method, type_url in METHODS:
            for claim, problem in CLAIMS:
                code, text = await outcome(channel, method, type_url, **claim)
                assert (code, problem in text) == ("PERMISSION_DENIED", True), (method, claim, text)
        for method, type_url in (METHODS[0], METHODS[1], METHODS[-1]):
            own = {"id": "web", "cluster": "edge", "metadata": {"tenant": "web"}}
            assert await outcome(channel, method, type_url, **own) == ("served", ""), method


@pytest.mark.parametrize("transport", XDS_TRANSPORTS)
async def test_only_clients_of_the_authority_get_in(store: Store, tmp_path: Path, transport: str) -> None:
    async with secure(store, tmp_path, transport) as s:
        expired = s.authority.pair("spiffe://td/web", lifetime=timedelta(seconds=-1))
        for client in (None, Authority().pair("spiffe://td/web"), expired):
            async with s.channel(client) as channel:
                assert (await outcome(channel, *METHODS[0], id="web"))[0] == "UNAVAILABLE"


@pytest.mark.parametrize("transport", XDS_TRANSPORTS)
async def test_streams_end_with_their_certificate_and_when_it_is_revoked(
    store: Store, tmp_path: Path, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_files, "INTERVAL", 0.05)
    async with secure(store, tmp_path, transport) as s:
        revoked, short = s.authority.pair("spiffe://td/a"), s.authority.pair("spiffe://td/b", lifetime=timedelta(seconds=4))
        ends = []
        for pair, node_id in ((revoked, "a"), (short, "b")):
            channel = s.channel(pair)
            call = channel.stream_stream(METHODS[0][0])()
            await call.write(first_request(*METHODS[0], {"id": node_id}))
            await call.read()
            ends.append((channel, call))
        write(s.directory, s.authority.pair("localhost"), s.authority, rules=RULES, crl=s.authority.crl(revoked))
        for (channel, call), text in zip(ends, ("is revoked", "has expired"), strict=True):
            async with asyncio.timeout(5):
                assert (await call.code()).name == "PERMISSION_DENIED"
            assert text in await call.details()
            await channel.close()


@pytest.mark.parametrize("transport", XDS_TRANSPORTS)
async def test_the_servers_certificate_and_the_authority_are_replaced(store: Store, tmp_path: Path, transport: str) -> None:
    async with secure(store, tmp_path, transport) as s:
        old = s.authority.pair("spiffe://td/web")
        async with s.channel(old) as channel:
            assert (await outcome(channel, *METHODS[0], id="web"))[0] == "served"
        s.authority = Authority("new")
        write(tmp_path, s.authority.pair("localhost"), s.authority, rules=RULES, crl=s.authority.crl())
        assert s.tls.refresh()
        async with s.channel(s.authority.pair("spiffe://td/web")) as channel:
            assert (await outcome(channel, *METHODS[0], id="web"))[0] == "served"
        async with s.channel(old) as channel:
            assert (await outcome(channel, *METHODS[0], id="web"))[0] == "UNAVAILABLE"


async def test_a_client_without_http2_is_disconnected(store: Store, tmp_path: Path) -> None:
    async with secure(store, tmp_path, "http2") as s:
        context = s.authority.context(s.authority.pair("spiffe://td/web"), tmp_path)
        reader, writer = await asyncio.open_connection("localhost", s.port, ssl=context)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()

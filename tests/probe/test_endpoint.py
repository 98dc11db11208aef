"""Probes of one address: TCP, health checks over HTTP/1.1, HTTP/2 and gRPC, and TLS."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from controlplane.domain import Protocol, RequestHeaders, UpstreamTls
from controlplane.http2 import frames
from controlplane.http2.headers import encoded
from controlplane.probe.endpoint import probe_address
from controlplane.probe.tls import client_context
from tests import pki
from tests.probe.servers import answer, closed_port, server, silent, target

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def test_tcp_connect() -> None:
    async with server(silent) as port:
        assert await probe_address("127.0.0.1", port, target(port), None) == ""
    port = closed_port()
    assert await probe_address("127.0.0.1", port, target(port), None) == "connection refused"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (OK, ""),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\nsecret words", "health check answered 503"),
        # A redirect is not followed: it would reach an address that was not checked.
        (b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\n\r\n", "health check answered 302"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "health check: the answer is not http1"),
        (b"HTTP/1.1 " + b"9" * 100_000, "health check: the answer is not http1"),
    ],
)
async def test_health_check_over_http1(text: bytes, reason: str) -> None:
    async with server(answer(text)) as port:
        assert await probe_address("127.0.0.1", port, target(port, path="/ready"), None) == reason


async def test_health_check_without_an_answer() -> None:
    async with server(silent) as port:
        probed = target(port, path="/ready", timeout=0.05)
        assert await probe_address("127.0.0.1", port, probed, None) == "health check: no answer within 0.05 s"


async def test_health_check_on_a_connection_that_is_closed() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with server(close) as port:
        reason = await probe_address("127.0.0.1", port, target(port, path="/ready"), None)
    assert reason in ("health check: the connection was closed", "health check: the answer is not http1")


async def test_the_request_of_a_health_check() -> None:
    heads: list[bytes] = []

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        await reader.read()
        writer.close()

    async with server(record) as port:
        assert await probe_address("127.0.0.1", port, target(port, path="/v2/health/ready"), None) == ""
        own = target(port, path="/v2/health/ready")
        headers = RequestHeaders({"x-team": "ml", "user-agent": "not this"})
        own = replace(own, version=replace(own.version, host="iris.example", request_headers=headers))
        assert await probe_address("127.0.0.1", port, own, None) == ""
    assert heads[0].split(b"\r\n")[:2] == [b"GET /v2/health/ready HTTP/1.1", b"host: iris"]
    assert heads[1].split(b"\r\n")[1:4] == [b"host: iris.example", b"user-agent: turnout-probe", b"x-team: ml"]


@pytest.mark.parametrize(("status", "reason"), [("200", ""), ("503", "health check answered 503")])
async def test_health_check_over_http2(status: str, reason: str) -> None:
    text = frames.settings({}) + frames.headers(1, encoded(((":status", status), ("x", "y"))))
    async with server(answer(text)) as port:
        probed = target(port, path="/ready", protocol=Protocol.HTTP2)
        assert await probe_address("127.0.0.1", port, probed, None) == reason


async def test_http1_server_for_an_http2_version() -> None:
    async with server(answer(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        probed = target(port, path="/ready", protocol=Protocol.HTTP2)
        assert await probe_address("127.0.0.1", port, probed, None) == "health check: the answer is not http2"


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    def __init__(self, status: int) -> None:
        self.status = status

    async def Check(self, request: object, context: object) -> object:
        return health_pb2.HealthCheckResponse(status=self.status)


@pytest.mark.parametrize(
    ("status", "reason"), [(1, ""), (2, "health check answered NOT_SERVING"), (None, "health check answered UNIMPLEMENTED")]
)
async def test_health_check_over_grpc(status: int | None, reason: str) -> None:
    running = grpc.aio.server()
    if status is not None:
        health_pb2_grpc.add_HealthServicer_to_server(Health(status), running)
    port = running.add_insecure_port("127.0.0.1:0")
    await running.start()
    try:
        probed = target(port, path="/unused", protocol=Protocol.GRPC)
        assert await probe_address("127.0.0.1", port, probed, None) == reason
    finally:
        await running.stop(None)


async def test_tls(tmp_path: Path) -> None:
    authority, stranger = pki.Authority(), pki.Authority("stranger")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(*authority.pair("green.test").files(tmp_path, "green"))
    async with server(answer(OK), serving) as port:

        async def reason(authorities: str, name: str = "green.test") -> str:
            tls = UpstreamTls(name)
            context = client_context(tls, Protocol.HTTP1, authorities)
            return await probe_address("127.0.0.1", port, target(port, path="/ready", tls=tls), context)

        assert await reason(authority.certificate) == ""
        assert (await reason(stranger.certificate)).startswith("TLS: unable to get local issuer certificate")
        assert (await reason(authority.certificate, "blue.test")).startswith("TLS: Hostname mismatch")
        # Without a context only the connection counts.
        probed = target(port, path="/ready", tls=UpstreamTls("blue.test"))
        assert await probe_address("127.0.0.1", port, probed, None) == ""
    async with server(silent) as port:
        assert await asyncio.wait_for(reason_of_plain(port), 5) != ""


async def reason_of_plain(port: int) -> str:
    """Return the result of TLS to a server that closes the connection at the first bytes."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"not TLS at all\r\n")
        await reader.read(1)
        writer.close()

    async with server(plain) as other:
        tls = UpstreamTls(insecure_skip_verify=True)
        context = client_context(tls, Protocol.HTTP1, "")
        return await probe_address("127.0.0.1", other, target(other, path="/ready", tls=tls), context)


@pytest.mark.parametrize(
    ("text", "protocol", "reason"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", Protocol.HTTP1, ""),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Protocol.HTTP2, "it does not speak http2 without TLS"),
        (frames.settings({}), Protocol.GRPC, ""),
        (frames.settings({}) + b"\n", Protocol.HTTP1, "it does not speak http1 without TLS"),
    ],
)
async def test_a_handshake_shows_which_protocol_a_server_speaks(text: bytes, protocol: Protocol, reason: str) -> None:
    async with server(answer(text)) as port:
        assert await probe_address("127.0.0.1", port, target(port, protocol=protocol), None) == ""
        speaking = replace(target(port, protocol=protocol), handshake=True)
        assert await probe_address("127.0.0.1", port, speaking, None) == reason

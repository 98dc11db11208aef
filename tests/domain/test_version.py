"""Versions: valid by construction, and every error names its field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from controlplane.domain import (
    ConnectionLimits,
    Credential,
    Endpoint,
    HealthCheck,
    PathRewrite,
    Protocol,
    RequestHeaders,
    UpstreamTls,
    Version,
)
from controlplane.errors import Code, Error

HERE = (Endpoint("127.0.0.1", 8001),)


def grpc_port(port: int, grpc: int) -> Endpoint:
    return Endpoint("10.0.0.1", port, grpc_port=grpc)


BAD: list[tuple[str, Callable[[], object], str]] = [
    ("endpoint without host", lambda: Endpoint("", 80), "host"),
    ("endpoint that is neither address nor name", lambda: Endpoint("not a host", 80), "host"),
    ("endpoint that is half an IP", lambda: Endpoint("10.0.0", 80), "host"),
    ("endpoint port", lambda: Endpoint("10.0.0.1", 70_000), "port"),
    ("endpoint weight", lambda: Endpoint("10.0.0.1", 80, 0), "weight"),
    ("endpoint twice", lambda: Version("blue", HERE * 2), "endpoints[1]"),
    ("IPs and names mixed", lambda: Version("blue", (*HERE, Endpoint("a.b", 1))), "endpoints[1].host"),
    ("connect timeout", lambda: Version("blue", connect_timeout=0), "connect_timeout"),
    ("TLS without a name", lambda: UpstreamTls(), "server_name"),
    ("CA that is no certificate", lambda: UpstreamTls("a.b", "hello"), "ca_certificates_pem"),
    (
        "CA that can't be read",
        lambda: UpstreamTls("a", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"),
        "ca_certificates_pem",
    ),
    ("private key as CA", lambda: UpstreamTls("a", "-----BEGIN CERTIFICATE-----\nPRIVATE KEY"), "ca_certificates_pem"),
    ("a host with a path", lambda: Version("blue", host="a.b/c"), "host"),
    ("a host with a port that is none", lambda: Version("blue", host="a.b:70000"), "host"),
    ("an upstream model with a line end", lambda: Version("blue", upstream_model="a\nb"), "upstream_model"),
    ("an upstream model that is too long", lambda: Version("blue", upstream_model="a" * 257), "upstream_model"),
    ("a gRPC port", lambda: Endpoint("10.0.0.1", 80, grpc_port=70_000), "grpc_port"),
    ("a gRPC port twice", lambda: Version("b", (grpc_port(80, 9), grpc_port(81, 9))), "endpoints[1].grpc_port"),
    ("an endpoint without gRPC port", lambda: Version("b", (grpc_port(80, 0), grpc_port(81, 9))), "endpoints[1].grpc_port"),
    ("a gRPC port of gRPC", lambda: Version("b", (grpc_port(80, 9),), Protocol.GRPC), "endpoints[0].grpc_port"),
    ("an upstream model with a gRPC port", lambda: Version("b", (grpc_port(80, 9),), upstream_model="a"), "upstream_model"),
    ("an upstream model with gRPC", lambda: Version("b", protocol=Protocol.GRPC, upstream_model="a"), "upstream_model"),
    (
        "the header of the credential is set, too",
        lambda: Version("b", request_headers=RequestHeaders({"x-key": "a"}), credential=Credential("key", "x-key")),
        "request_headers.set.x-key",
    ),
    (
        "the header of the credential is removed, too",
        lambda: Version("b", request_headers=RequestHeaders({}, ("authorization",)), credential=Credential("key")),
        "request_headers.remove",
    ),
    ("health path", lambda: HealthCheck("health"), "path"),
    ("health timeout", lambda: HealthCheck(timeout=61), "timeout"),
    ("health interval", lambda: HealthCheck(interval=0), "interval"),
    ("limit 0", lambda: ConnectionLimits(max_requests=0), "max_requests"),
]


@pytest.mark.parametrize(("build", "field"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_an_error_names_its_field(build: Callable[[], object], field: str) -> None:
    with pytest.raises(Error) as caught:
        build()
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.violations[0].field == field
    assert caught.value.violations[0].description


def test_only_endpoints_with_names_need_dns() -> None:
    assert not Version("idle").has_dns_endpoints
    assert not Version("blue", (Endpoint("10.0.0.1", 80), Endpoint("::1", 80))).has_dns_endpoints
    assert Version("blue", (Endpoint("blue.svc", 80),)).has_dns_endpoints


def test_a_server_may_have_both_protocols_at_one_port() -> None:
    assert Version("blue", (grpc_port(80, 80), grpc_port(81, 81))).has_grpc_ports
    assert not Version("blue", HERE).has_grpc_ports


def test_an_ipv6_address_is_in_brackets_before_its_port() -> None:
    assert [Endpoint(host, 80).host_port for host in ("10.0.0.1", "blue.svc", "::1")] == [
        "10.0.0.1:80",
        "blue.svc:80",
        "[::1]:80",
    ]


@pytest.mark.parametrize(
    "host", ["a", "model.example", "model.example:8080", "10.0.0.1:80", "[::1]:8080", "[::1]", "10.0.0.1"]
)
def test_a_host_header_may_have_a_port(host: str) -> None:
    assert Version("blue", host=host).host == host


def test_secrets_are_named_with_their_kind() -> None:
    version = Version("blue", tls=UpstreamTls("a.b", ca_certificates="ca"), credential=Credential("key"))
    assert version.secrets == (("tls.ca_certificates", "ca", "ca_certificates"), ("credential.secret", "key", "opaque"))
    assert Version("blue").secrets == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "a.b"},
        {"rewrite": PathRewrite("/a", "/b")},
        {"request_headers": RequestHeaders({"x-a": "b"})},
        {"credential": Credential("key")},
        {"upstream_model": "llama"},
    ],
)
def test_a_version_says_whether_it_changes_requests(changes: dict[str, Any]) -> None:
    assert Version("blue", **changes).changes_requests
    assert not Version("blue", HERE).changes_requests

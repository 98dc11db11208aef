"""Clusters, and those for mirrored copies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from controlplane.compiler import Compiler
from controlplane.compiler.clusters import SYSTEM_AUTHORITIES, cluster_name, compile_cluster, compile_mirror, mirror_name
from controlplane.compiler.decode import decoded, owner, unpack
from controlplane.domain import (
    Endpoint,
    Gateway,
    HealthCheck,
    Mirror,
    Model,
    OutlierDetection,
    Protocol,
    Timeouts,
    UpstreamTls,
    Version,
)
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import State
from controlplane.envoy_types import CLUSTER, ENDPOINTS, ROUTES, SECRET
from controlplane.snapshot import Resource
from tests.compiler.cases import check
from tests.compiler.strategies import models
from tests.compiler.values import EDGE, a_model, a_state, a_version, everything, with_model
from tests.nouns import some

IP, NAME = (Endpoint("10.0.0.1", 80),), (Endpoint("a.svc", 80),)


def test_a_mirror_adds_a_cluster_and_removes_it() -> None:
    compiler, state = Compiler(), a_state(2)
    plain = a_model("model-1")
    mirrored = replace(plain, mirror=Mirror("green"))
    steps = (
        mirrored,
        replace(mirrored, timeouts=Timeouts(request=5)),
        replace(plain, mirror=Mirror("blue", 10, timeout=7), split={"green": 10_000}),
        plain,
    )
    first = last = compiler.compile(state, NO_LIVE_ENDPOINTS, EDGE, 1)
    clusters = []
    for i, model in enumerate(steps, 2):
        last = compiler.compile(with_model(state, model), NO_LIVE_ENDPOINTS, EDGE, i, last)
        check(everything(last), last)
        added = last.resources[CLUSTER].keys() - first.resources[CLUSTER].keys()
        assert added == last.resources[ENDPOINTS].keys() - first.resources[ENDPOINTS].keys()
        assert {(CLUSTER, n) for n in added} <= last.resources[ROUTES]["model-1"].refs
        clusters.append([(n, timeout(last.resources[CLUSTER][n])) for n in added])
    assert clusters == [[("model-1/green/mirror", 60)], [("model-1/green/mirror", 5)], [("model-1/blue/mirror", 7)], []]
    assert last.versions == first.versions


def timeout(resource: Resource) -> float:
    """The limit of a request to a cluster, in seconds."""
    (packed,) = decoded(resource).typed_extension_protocol_options.values()
    limit: float = unpack(packed).common_http_protocol_options.max_stream_duration.ToTimedelta().total_seconds()
    return limit


def test_a_mirror_differs_from_its_version_in_limits_and_health_checks() -> None:
    tls, outlier = UpstreamTls("iris.example"), OutlierDetection()
    green = Version("green", (Endpoint("m.example", 1),), Protocol.GRPC, tls, HealthCheck(), outlier)
    model = Model("iris", ("edge",), (a_version("blue"), green), {"blue": 10_000}, mirror=Mirror("green"))
    snapshot = Compiler().compile(State({"edge": Gateway("edge", 8080)}, {"iris": model}), NO_LIVE_ENDPOINTS, EDGE, 1)
    resources = [snapshot.resources[CLUSTER][n] for n in ("iris/green", "iris/green/mirror")]
    assert {owner(r) for r in resources} == {"models/iris"}
    own, copies = (decoded(r) for r in resources)
    assert [
        (t.max_connections.value, t.max_pending_requests.value, t.max_requests.value, t.max_retries.value)
        for t in copies.circuit_breakers.thresholds
    ] == [(128, 128, 128, 1)]
    assert copies.transport_socket == own.transport_socket
    assert copies.outlier_detection == own.outlier_detection
    assert copies.load_assignment.endpoints == own.load_assignment.endpoints
    assert own.health_checks
    assert not copies.health_checks


def cluster(version: Version) -> Any:
    (resource,) = compile_cluster("iris", version)
    check([resource])
    return decoded(resource)


def options(message: Any) -> Any:
    (packed,) = message.typed_extension_protocol_options.values()
    return unpack(packed)


def test_names_are_unique() -> None:
    assert cluster_name("iris", "blue") == "iris/blue"
    assert mirror_name("iris", "blue") == "iris/blue/mirror"


def test_a_version_without_endpoints_has_no_cluster() -> None:
    assert compile_cluster("iris", Version("blue")) == []
    assert compile_mirror(a_model()) == []


def test_addresses_come_over_eds_and_names_are_in_the_cluster() -> None:
    (by_address,) = compile_cluster("iris", Version("blue", IP))
    assert by_address.refs == {(ENDPOINTS, "iris/blue")}
    assert decoded(by_address).type == decoded(by_address).EDS
    (by_name,) = compile_cluster("iris", Version("blue", NAME))
    assert by_name.refs == frozenset()
    assert decoded(by_name).type == decoded(by_name).STRICT_DNS


@pytest.mark.parametrize(("timeout", "idle"), [(None, 4), (2.0, 4), (3.0, 4), (10.0, 11)])
def test_idle_http1_connections_close_before_the_server_closes_them(timeout: float | None, idle: float) -> None:
    check_ = None if timeout is None else HealthCheck(timeout=timeout)
    common = options(cluster(Version("blue", IP, health_check=check_))).common_http_protocol_options
    assert common.idle_timeout.ToTimedelta().total_seconds() == idle


@pytest.mark.parametrize(
    ("protocol", "field", "alpn"),
    [
        (Protocol.HTTP1, "http_protocol_options", "http/1.1"),
        (Protocol.HTTP2, "http2_protocol_options", "h2"),
        (Protocol.GRPC, "http2_protocol_options", "h2"),
    ],
)
def test_the_protocol_is_explicit(protocol: Protocol, field: str, alpn: str) -> None:
    message = cluster(Version("blue", IP, protocol, UpstreamTls("a.svc")))
    assert options(message).explicit_http_config.HasField(field)
    assert list(unpack(message.transport_socket.typed_config).common_tls_context.alpn_protocols) == [alpn]


def test_authorities_come_from_a_secret_the_file_or_the_system() -> None:
    def validation(tls: UpstreamTls) -> Any:
        return unpack(cluster(Version("blue", IP, tls=tls)).transport_socket.typed_config).common_tls_context

    assert validation(UpstreamTls("a.svc")).validation_context.trusted_ca.filename == SYSTEM_AUTHORITIES
    combined = validation(UpstreamTls("a.svc", ca_certificates="ca")).combined_validation_context
    assert combined.validation_context_sds_secret_config.name == "ca"
    (san,) = combined.default_validation_context.match_typed_subject_alt_names
    assert (san.san_type, san.matcher.exact) == (san.DNS, "a.svc")
    unverified = validation(UpstreamTls(insecure_skip_verify=True, client_certificate="mine"))
    assert not unverified.HasField("validation_context")
    assert unverified.tls_certificate_sds_secret_configs[0].name == "mine"


def test_a_cluster_refers_to_the_secrets_that_it_names() -> None:
    tls = UpstreamTls("a.svc", ca_certificates="ca", client_certificate="mine")
    (resource,) = compile_cluster("iris", Version("blue", NAME, tls=tls))
    assert resource.refs == {(SECRET, "ca"), (SECRET, "mine")}


def test_sni_is_sent_for_names_only() -> None:
    by_name, by_address = (
        unpack(cluster(Version("blue", IP, tls=UpstreamTls(server))).transport_socket.typed_config)
        for server in ("a.svc", "10.0.0.1")
    )
    assert (by_name.sni, by_address.sni) == ("a.svc", "")
    (san,) = by_address.common_tls_context.validation_context.match_typed_subject_alt_names
    assert san.san_type == san.IP_ADDRESS


@some
@given(models("iris"))
def test_envoy_accepts_every_cluster(model: Model) -> None:
    resources = [r for v in model.versions for r in compile_cluster("iris", v)] + compile_mirror(model)
    check(resources)
    assert {r.name for r in resources} >= {f"iris/{v.name}" for v in model.versions if v.endpoints}
    assert all(r.type_url == CLUSTER for r in resources)

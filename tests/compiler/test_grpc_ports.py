"""gRPC ports, as compiled: a second cluster for each, and a second route before each, with the same weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from envoy.extensions.clusters.aggregate.v3.cluster_pb2 import ClusterConfig
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions

from controlplane.compiler import Compiler
from controlplane.compiler.decode import decoded
from controlplane.compiler.grpc_ports import grpc_name, has_grpc_name, without_grpc
from controlplane.compiler.routes import compile_routes
from controlplane.domain import (
    Affinity,
    Endpoint,
    Gateway,
    HealthCheck,
    Locality,
    Mirror,
    Model,
    PathRewrite,
    Protocol,
    Sticky,
    UpstreamTls,
    Version,
)
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS, Endpoints, LiveEndpoint
from controlplane.domain.state import State
from controlplane.envoy_types import CLUSTER, ENDPOINTS, ROUTES
from controlplane.snapshot import Audience, Snapshot
from tests.compiler.cases import check

HERE = (Endpoint("10.0.0.1", 8000, grpc_port=8001),)
BLUE, GREEN, NEXT = (Version(n, HERE, health_check=HealthCheck()) for n in ("blue", "green", "next"))
IRIS = Model("iris", ("edge",), (BLUE, GREEN, NEXT), {"blue": 4_000, "green": 6_000})
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def compiled(model: Model, live: Endpoints = NO_LIVE_ENDPOINTS) -> Snapshot:
    snapshot = Compiler().compile(State({"edge": Gateway("edge", 80)}, {"iris": model}), live, Audience(("edge",)), 1)
    check([r for resources in snapshot.resources.values() for r in resources.values()])
    return snapshot


def routes(model: Model) -> list[Any]:
    return list(decoded(compile_routes(model)).virtual_hosts[0].routes)


def targets(route: Any) -> list[str]:
    action = route.route
    return [action.cluster] if action.cluster else [f"{c.name} {c.weight.value}" for c in action.weighted_clusters.clusters]


@pytest.mark.parametrize(
    ("name", "grpc"),
    [
        ("iris/blue", "iris/blue/grpc"),
        ("iris/grpc", "iris/grpc/grpc"),
        ("grpc/mirror/mirror", "grpc/mirror/grpc/mirror"),
        ("iris/blue/fallback/grpc", "iris/blue/grpc/fallback/grpc"),
    ],
)
def test_names_are_distinct_whatever_models_and_versions_are_called(name: str, grpc: str) -> None:
    assert (grpc_name(name), without_grpc(grpc), without_grpc(name)) == (grpc, name, name)
    assert has_grpc_name(grpc)
    assert not has_grpc_name(name)


def test_grpc_calls_have_routes_of_their_own_with_the_same_weights() -> None:
    found = routes(replace(IRIS, preview_header="x-version", sticky=Sticky(header="x-user")))
    grpc, http = found[:5], found[5:]
    for one, other in zip(grpc, http, strict=True):
        assert [t.replace("/grpc", "") for t in targets(one)] == targets(other)
        assert all(t.partition(" ")[0].endswith("/grpc") for t in targets(one))
        *matches, content_type = one.match.headers
        assert (content_type.name, content_type.string_match.contains) == ("content-type", "/grpc")
        assert matches == list(other.match.headers)
        assert one.route.hash_policy == other.route.hash_policy
    assert targets(http[-1]) == ["iris/green 6000", "iris/blue 4000"]


def test_without_grpc_ports_nothing_changes() -> None:
    versions = tuple(replace(v, endpoints=(Endpoint("10.0.0.1", 8000),)) for v in IRIS.versions)
    model = replace(IRIS, versions=versions)
    assert len(routes(model)) == 1
    assert not any(has_grpc_name(name) for t in (CLUSTER, ENDPOINTS) for name in compiled(model).resources[t])


def test_the_second_cluster_speaks_http2_and_is_checked_at_the_main_port() -> None:
    snapshot = compiled(IRIS)
    cluster = decoded(snapshot.resources[CLUSTER]["iris/blue/grpc"])
    options = HttpProtocolOptions.FromString(cluster.typed_extension_protocol_options[HTTP_OPTIONS].value)
    assert options.explicit_http_config.HasField("http2_protocol_options")
    assert cluster.health_checks[0].http_health_check.path == "/v2/health/ready"
    (endpoint,) = decoded(snapshot.resources[ENDPOINTS]["iris/blue/grpc"]).endpoints[0].lb_endpoints
    assert endpoint.endpoint.address.socket_address.port_value == 8001
    assert endpoint.endpoint.health_check_config.port_value == 8000
    (main,) = decoded(snapshot.resources[ENDPOINTS]["iris/blue"]).endpoints[0].lb_endpoints
    assert main.endpoint.address.socket_address.port_value == 8000
    assert not main.endpoint.HasField("health_check_config")


@pytest.mark.parametrize(("protocol", "alpn"), [(Protocol.HTTP1, ["http/1.1"]), (Protocol.HTTP2, [])])
def test_a_health_check_over_tls_speaks_the_protocol_of_the_main_port(protocol: Protocol, alpn: list[str]) -> None:
    versions = tuple(replace(v, protocol=protocol, tls=UpstreamTls(insecure_skip_verify=True)) for v in IRIS.versions)
    clusters = compiled(replace(IRIS, versions=versions)).resources[CLUSTER]
    assert list(decoded(clusters["iris/blue/grpc"]).health_checks[0].tls_options.alpn_protocols) == alpn
    assert not decoded(clusters["iris/blue"]).health_checks[0].HasField("tls_options")


def test_copies_and_fallbacks_go_to_grpc_ports() -> None:
    versions = (BLUE, replace(GREEN, fallback=("blue",)), NEXT)
    snapshot = compiled(replace(IRIS, versions=versions, mirror=Mirror("next"), affinity=Affinity(header="x-chat")))
    clusters = snapshot.resources[CLUSTER]
    names = {n for n in clusters if not has_grpc_name(n)}
    assert {n for n in clusters if has_grpc_name(n)} == {grpc_name(n) for n in names}
    aggregate = ClusterConfig.FromString(decoded(clusters["iris/green/grpc/fallback"]).cluster_type.typed_config.value)
    assert list(aggregate.clusters) == ["iris/green/grpc", "iris/green/grpc/fallback/blue"]
    assert decoded(clusters["iris/blue/grpc"]).load_balancing_policy.policies
    host = decoded(snapshot.resources[ROUTES]["iris"]).virtual_hosts[0]
    assert "unavailable" in host.retry_policy.retry_on
    grpc, http = host.routes
    assert [p.cluster for p in grpc.route.request_mirror_policies] == ["iris/next/grpc/mirror"]
    assert [p.cluster for p in host.request_mirror_policies] == ["iris/next/mirror"]
    assert not http.route.request_mirror_policies
    assert snapshot.resources[ROUTES]["iris"].refs == {
        (CLUSTER, n) for m in ("blue", "green/fallback", "next/mirror") for n in (f"iris/{m}", grpc_name(f"iris/{m}"))
    }


def test_paths_of_grpc_calls_are_not_rewritten() -> None:
    rewrite = PathRewrite("/", "/v1/")
    model = replace(IRIS, rewrite=rewrite, versions=(BLUE, replace(GREEN, rewrite=rewrite), NEXT))
    grpc, http = routes(model)
    assert http.route.HasField("regex_rewrite")
    assert not grpc.route.HasField("regex_rewrite")
    clusters = compiled(model).resources[CLUSTER]
    assert b"envoy.filters.http.lua" in clusters["iris/green"].body
    assert b"envoy.filters.http.lua" not in clusters["iris/green/grpc"].body


SETTINGS: dict[str, Any] = {"preview_header": "x-model-version", "sticky": Sticky(header="x-user")}


@pytest.mark.parametrize("settings", [{}, SETTINGS, {**SETTINGS, "mirror": Mirror("next")}])
def test_a_switch_is_one_route_whatever_else_the_model_has(settings: dict[str, Any]) -> None:
    model = replace(IRIS, **settings)
    before, after = compiled(model), compiled(replace(model, split={"green": 10_000}))
    changed = {t for t in before.versions if before.versions[t] != after.versions[t]}
    assert changed == {ROUTES}


@pytest.mark.parametrize(
    ("settings", "without", "with_grpc_ports"),
    [({}, 269, 360), (SETTINGS, 526, 999), ({**SETTINGS, "mirror": Mirror("green")}, 697, 1_610)],
)
def test_routes_are_as_large_as_the_documentation_says(settings: dict[str, Any], without: int, with_grpc_ports: int) -> None:
    plain = tuple(replace(v, endpoints=(Endpoint("10.0.0.1", 8000),)) for v in IRIS.versions)
    models = (replace(IRIS, versions=plain, **settings), replace(IRIS, **settings))
    assert [len(compile_routes(model).body) for model in models] == [without, with_grpc_ports]
    documented = (Path(__file__).parents[2] / "docs" / "routing.md").read_text()
    assert f"| {without:,} | {with_grpc_ports:,} |" in documented


def test_a_route_to_the_mirrored_version_alone_needs_no_policy_for_copies() -> None:
    """Its cluster asks for metadata that the endpoints of the copies don't have, over HTTP as over gRPC."""
    blue, green, _, split, *_ = routes(replace(IRIS, preview_header="x-model-version", mirror=Mirror("green")))
    assert [len(route.route.request_mirror_policies) for route in (blue, green, split)] == [1, 0, 1]


def test_live_endpoints_without_a_grpc_port_get_no_grpc_calls() -> None:
    here = Locality("eu")
    live = (LiveEndpoint("10.0.0.8", 8000, 1, here), LiveEndpoint("10.0.0.9", 8000, 1, here, grpc_port=8001))
    assignments = compiled(IRIS, Endpoints({("iris", "blue"): live})).resources[ENDPOINTS]
    (group,) = decoded(assignments["iris/blue/grpc"]).endpoints
    assert [e.endpoint.address.socket_address.address for e in group.lb_endpoints] == ["10.0.0.9"]
    assert (group.load_balancing_weight.value, group.lb_endpoints[0].endpoint.health_check_config.port_value) == (1, 8000)
    assert len(decoded(assignments["iris/blue"]).endpoints[0].lb_endpoints) == 2

"""Every kind of rule in Envoy's protos is read, and finds a message that breaks it."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import cluster_pb2, outlier_detection_pb2
from envoy.config.core.v3 import address_pb2, base_pb2, health_check_pb2, protocol_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2, scoped_route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from google.protobuf import any_pb2, duration_pb2, wrappers_pb2

from controlplane.compiler.constraints import Constraints
from controlplane.compiler.message import packed

problems = Constraints().problems

NAMED = cluster_pb2.Cluster(name="c")
ROUTE = route_components_pb2.Route
ACTION = route_components_pb2.RouteAction
MATCH = route_components_pb2.RouteMatch(prefix="/")

BROKEN: dict[str, tuple[Any, str]] = {
    "string.min_len": (cluster_pb2.Cluster(), "name"),
    "string.max_bytes and header value": (base_pb2.HeaderValue(key="a", value="x" * 16385), "value"),
    "header name": (route_components_pb2.HeaderMatcher(name="no\nlines", present_match=True), "name"),
    "header name, strict": (
        protocol_pb2.UpstreamHttpProtocolOptions(override_auto_sni_header="no spaces"),
        "override_auto_sni_header",
    ),
    "header value, strict": (health_check_pb2.HealthCheck.HttpHealthCheck(path="/\x01"), "path"),
    "header name, in a list": (
        route_pb2.RouteConfiguration(request_headers_to_remove=["a\nb"]),
        "request_headers_to_remove[0]",
    ),
    "string.pattern": (
        ROUTE(match=route_components_pb2.RouteMatch(path_separated_prefix="/a/"), route=ACTION(cluster="c")),
        "match.path_separated_prefix",
    ),
    "oneof.required": (ROUTE(match=MATCH), "action"),
    "message.required": (ROUTE(route=ACTION(cluster="c")), "match"),
    "repeated.min_items": (route_components_pb2.VirtualHost(name="*"), "domains"),
    "repeated.min_items, nested": (
        scoped_route_pb2.ScopedRouteConfiguration(name="n", key=scoped_route_pb2.ScopedRouteConfiguration.Key()),
        "key.fragments",
    ),
    "repeated.items": (
        route_components_pb2.RetryPolicy(retriable_headers=[route_components_pb2.HeaderMatcher()]),
        "retriable_headers[0].name",
    ),
    "uint32 in a wrapper": (
        endpoint_components_pb2.LbEndpoint(load_balancing_weight=wrappers_pb2.UInt32Value(value=0)),
        "load_balancing_weight",
    ),
    "uint32.lte": (address_pb2.SocketAddress(address="a", port_value=65536), "port_value"),
    "uint32.lte, in a wrapper": (
        outlier_detection_pb2.OutlierDetection(max_ejection_percent=wrappers_pb2.UInt32Value(value=101)),
        "max_ejection_percent",
    ),
    "duration.gt": (cluster_pb2.Cluster(name="c", connect_timeout=duration_pb2.Duration()), "connect_timeout"),
    "duration.required": (health_check_pb2.HealthCheck(), "timeout"),
    "enum.defined_only": (cluster_pb2.Cluster(name="c", lb_policy=77), "lb_policy"),
    "map.keys": (
        route_components_pb2.VirtualHost(name="*", domains=["*"], typed_per_filter_config={"": any_pb2.Any()}),
        "typed_per_filter_config[]",
    ),
    "bytes.max_len": (base_pb2.HeaderValue(key="a", raw_value=b"x" * 16385), "raw_value"),
    "inside an Any": (
        listener_pb2.Listener(
            filter_chains=[{"filters": [{"name": "x", "typed_config": packed(hcm_pb2.HttpConnectionManager())}]}]
        ),
        "filter_chains[0].filters[0].typed_config.stat_prefix",
    ),
    "an Any of an unknown type": (
        listener_pb2.Listener(
            filter_chains=[{"filters": [{"name": "x", "typed_config": any_pb2.Any(type_url="type.googleapis.com/no.Such")}]}]
        ),
        "filter_chains[0].filters[0].typed_config",
    ),
    "an Any of garbage": (
        listener_pb2.Listener(
            filter_chains=[
                {
                    "filters": [
                        {
                            "name": "x",
                            "typed_config": any_pb2.Any(
                                type_url="type.googleapis.com/envoy.config.cluster.v3.Cluster", value=b"\xff"
                            ),
                        }
                    ]
                }
            ]
        ),
        "filter_chains[0].filters[0].typed_config",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_constraint_is_found(kind: str) -> None:
    message, field = BROKEN[kind]
    assert field in {path for path, _ in problems(message)}


def test_a_message_that_breaks_nothing_has_no_problem() -> None:
    assert list(problems(NAMED)) == []
    assert list(problems(ROUTE(match=MATCH, route=ACTION(cluster="c")))) == []


def test_the_unset_fields_of_a_oneof_are_not_checked() -> None:
    weighted = route_components_pb2.WeightedCluster(clusters=[{"name": "c", "weight": {"value": 1}}])
    assert list(problems(ROUTE(match=MATCH, route=ACTION(weighted_clusters=weighted)))) == []


def test_a_problem_says_what_would_be_right() -> None:
    wrong_port = dict(problems(address_pb2.SocketAddress(address="a", port_value=65536)))
    assert wrong_port == {"port_value": "must be at most 65535"}
    no_time = dict(problems(cluster_pb2.Cluster(name="c", connect_timeout=duration_pb2.Duration())))
    assert no_time == {"connect_timeout": "must be above 0 s"}


@pytest.mark.parametrize(
    "message",
    [bootstrap_pb2.Bootstrap, hcm_pb2.HttpConnectionManager, tls_pb2.UpstreamTlsContext],
    ids=lambda m: m.DESCRIPTOR.name,
)
def test_every_rule_of_every_message_within_reach_can_be_read(message: Any) -> None:
    """A plan fails if a rule of it is of an unknown kind."""
    constraints, seen = Constraints(), set[str]()
    todo = [message.DESCRIPTOR]
    while todo:
        descriptor = todo.pop()
        if descriptor.full_name not in seen:
            seen.add(descriptor.full_name)
            constraints.plan(descriptor)
            todo += [f.message_type for f in descriptor.fields if f.message_type]
    assert len(seen) > 30

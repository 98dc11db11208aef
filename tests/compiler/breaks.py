"""Ways to break compiled resources so that Envoy refuses them. Both our checks and a real Envoy are tested with each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from controlplane.compiler import Compiler
from controlplane.compiler.decode import decoded, unpack
from controlplane.compiler.message import packed
from controlplane.domain import (
    Endpoint,
    Gateway,
    HealthCheck,
    Model,
    OutlierDetection,
    PathRewrite,
    Protocol,
    UpstreamTls,
    Version,
)
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import State
from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SCOPED_ROUTES
from controlplane.snapshot import Audience, Resource, Snapshot


@dataclass(frozen=True)
class Break:
    """One change that makes a resource invalid."""

    name: str
    type_url: str
    resource: str
    # Applies the change to the message.
    apply: Callable[[Any], None]
    # The field that `check` names.
    field: str


@cache
def base() -> Snapshot:
    """Return a valid snapshot of a model with every setting that a break changes."""
    blue = Version(
        "blue",
        (Endpoint("10.0.0.1", 8000), Endpoint("10.0.0.2", 8000)),
        Protocol.GRPC,
        tls=UpstreamTls("iris.example"),
        health_check=HealthCheck(),
        outlier_detection=OutlierDetection(),
    )
    green, named = Version("green", (Endpoint("10.0.0.3", 8000),)), Version("named", (Endpoint("localhost", 8000),))
    versions = (blue, green, named, Version("aside", (Endpoint("10.0.0.4", 8000),), fallback=("green",)))
    model = Model("iris", ("edge",), versions, {"blue": 9_000, "green": 1_000}, rewrite=PathRewrite("/v2", "/v1"))
    return Compiler().compile(
        State({"edge": Gateway("edge", 8080)}, {"iris": model}), NO_LIVE_ENDPOINTS, Audience(("edge",)), 1
    )


def broken(wrong: Break) -> Resource:
    """Return the resource with the change applied."""
    message = decoded(base().resources[wrong.type_url][wrong.resource])
    wrong.apply(message)
    return Resource.of(wrong.type_url, wrong.resource, message.SerializeToString(deterministic=True))


def _manager(change: Callable[[Any], None]) -> Callable[[Any], None]:
    def apply(listener: Any) -> None:
        network = listener.filter_chains[0].filters[0]
        manager = unpack(network.typed_config)
        change(manager)
        network.typed_config.CopyFrom(packed(manager))

    return apply


def _tls(change: Callable[[Any], None]) -> Callable[[Any], None]:
    def apply(cluster: Any) -> None:
        context = tls_pb2.UpstreamTlsContext.FromString(cluster.transport_socket.typed_config.value)
        change(context.common_tls_context.validation_context)
        cluster.transport_socket.typed_config.CopyFrom(packed(context))

    return apply


def _protocol(change: Callable[[Any], None]) -> Callable[[Any], None]:
    def apply(cluster: Any) -> None:
        for value in cluster.typed_extension_protocol_options.values():
            options = unpack(value)
            change(options)
            value.CopyFrom(packed(options))

    return apply


def _no_weights(config: Any) -> None:
    for c in _action(config).weighted_clusters.clusters:
        c.weight.value = 0


def _too_much_weight(config: Any) -> None:
    for c in _action(config).weighted_clusters.clusters:
        c.weight.value = 2**32 - 1


def _action(config: Any) -> Any:
    return config.virtual_hosts[0].routes[-1].route


def _set(path: str, value: Any) -> Callable[[Any], None]:
    """Set a field, like `virtual_hosts.0.name`."""
    *parents, name = path.split(".")

    def apply(message: Any) -> None:
        for step in parents:
            message = message[int(step)] if step.isdigit() else getattr(message, step)
        setattr(message, name, value)

    return apply


EDGE = "0.0.0.0:8080"  # the listener of the gateway `edge`
_TLS = "Cluster[iris/blue].transport_socket.typed_config.common_tls_context.validation_context"
_HOST = "RouteConfiguration[iris].virtual_hosts[0]"
_HCM = f"Listener[{EDGE}].filter_chains[0].filters[0].typed_config"
_PROTOCOL = "Cluster[iris/blue].typed_extension_protocol_options[envoy.extensions.upstreams.http.v3.HttpProtocolOptions]"

BREAKS = [
    Break("cluster without a name", CLUSTER, "iris/blue", lambda m: m.ClearField("name"), "Cluster[iris/blue].name"),
    Break(
        "no connect timeout",
        CLUSTER,
        "iris/blue",
        lambda m: m.connect_timeout.Clear(),
        "Cluster[iris/blue].connect_timeout",
    ),
    Break(
        "EDS without a source",
        CLUSTER,
        "iris/blue",
        lambda m: m.ClearField("eds_cluster_config"),
        "Cluster[iris/blue].eds_cluster_config",
    ),
    Break(
        "EDS configuration on a DNS cluster",
        CLUSTER,
        "iris/named",
        lambda m: m.eds_cluster_config.CopyFrom(decoded(base().resources[CLUSTER]["iris/green"]).eds_cluster_config),
        "Cluster[iris/named].eds_cluster_config",
    ),
    Break(
        "a load balancer of an aggregate",
        CLUSTER,
        "iris/aside/fallback",
        lambda m: m.ClearField("lb_policy"),
        "Cluster[iris/aside/fallback].lb_policy",
    ),
    Break(
        "no protocol",
        CLUSTER,
        "iris/blue",
        _protocol(lambda o: o.ClearField("explicit_http_config")),
        f"{_PROTOCOL}.upstream_protocol_options",
    ),
    Break(
        "gRPC checks over HTTP/1",
        CLUSTER,
        "iris/blue",
        _protocol(lambda o: o.explicit_http_config.http_protocol_options.SetInParent()),
        "Cluster[iris/blue].health_checks[0].grpc_health_check",
    ),
    Break(
        "ejection time above the maximum",
        CLUSTER,
        "iris/blue",
        lambda m: m.outlier_detection.base_ejection_time.FromSeconds(301),
        "Cluster[iris/blue].outlier_detection.base_ejection_time",
    ),
    Break(
        "ejection of more than 100 %",
        CLUSTER,
        "iris/blue",
        _set("outlier_detection.max_ejection_percent.value", 101),
        "Cluster[iris/blue].outlier_detection.max_ejection_percent",
    ),
    Break(
        "a name without an authority",
        CLUSTER,
        "iris/blue",
        _tls(lambda v: v.ClearField("trusted_ca")),
        f"{_TLS}.trusted_ca",
    ),
    Break(
        "an authority that can't be read",
        CLUSTER,
        "iris/blue",
        _tls(
            lambda v: setattr(
                v.trusted_ca, "inline_string", "-----BEGIN CERTIFICATE-----\nZ2FyYmFnZQ==\n-----END CERTIFICATE-----\n"
            )
        ),
        f"{_TLS}.trusted_ca",
    ),
    Break(
        "a weight of 0",
        ENDPOINTS,
        "iris/blue",
        lambda m: m.endpoints[0].lb_endpoints[0].load_balancing_weight.Clear(),
        "ClusterLoadAssignment[iris/blue].endpoints[0].lb_endpoints[0].load_balancing_weight",
    ),
    Break(
        "a DNS name over EDS",
        ENDPOINTS,
        "iris/blue",
        _set("endpoints.0.lb_endpoints.1.endpoint.address.socket_address.address", "localhost"),
        "ClusterLoadAssignment[iris/blue].endpoints[0].lb_endpoints[1].endpoint.address",
    ),
    Break("a listener without an address", LISTENER, EDGE, lambda m: m.ClearField("address"), f"Listener[{EDGE}].address"),
    Break(
        "a listener on a name",
        LISTENER,
        EDGE,
        _set("address.socket_address.address", "edge.example"),
        f"Listener[{EDGE}].address",
    ),
    Break("no filter chain", LISTENER, EDGE, lambda m: m.ClearField("filter_chains"), f"Listener[{EDGE}].filter_chains"),
    Break("no statistics prefix", LISTENER, EDGE, _manager(lambda m: m.ClearField("stat_prefix")), f"{_HCM}.stat_prefix"),
    Break("no router", LISTENER, EDGE, _manager(lambda m: m.ClearField("http_filters")), f"{_HCM}.http_filters"),
    Break(
        "no scope key",
        LISTENER,
        EDGE,
        _manager(lambda m: m.scoped_routes.ClearField("scope_key_builder")),
        f"{_HCM}.scoped_routes.scope_key_builder",
    ),
    Break(
        "a scope without a key",
        SCOPED_ROUTES,
        f"{EDGE}/iris",
        lambda m: m.key.ClearField("fragments"),
        f"ScopedRouteConfiguration[{EDGE}/iris].key.fragments",
    ),
    Break("a host without domains", ROUTES, "iris", lambda m: m.virtual_hosts[0].ClearField("domains"), f"{_HOST}.domains"),
    Break(
        "a domain twice",
        ROUTES,
        "iris",
        lambda m: m.virtual_hosts.add(name="2", domains=["*"]),
        "RouteConfiguration[iris].virtual_hosts",
    ),
    Break(
        "a route without an action",
        ROUTES,
        "iris",
        lambda m: m.virtual_hosts[0].routes[0].ClearField("route"),
        f"{_HOST}.routes[0].action",
    ),
    Break("no weight at all", ROUTES, "iris", _no_weights, f"{_HOST}.routes[0].route.weighted_clusters"),
    Break("too much weight", ROUTES, "iris", _too_much_weight, f"{_HOST}.routes[0].route.weighted_clusters"),
    Break(
        "two rewrites",
        ROUTES,
        "iris",
        lambda m: setattr(_action(m), "prefix_rewrite", "/x"),
        f"{_HOST}.routes[0].route.regex_rewrite",
    ),
    Break(
        "no regular expression",
        ROUTES,
        "iris",
        lambda m: setattr(_action(m).regex_rewrite.pattern, "regex", "("),
        f"{_HOST}.routes[0].route.regex_rewrite.pattern.regex",
    ),
    Break(
        "the path removed",
        ROUTES,
        "iris",
        lambda m: m.request_headers_to_remove.append(":path"),
        "RouteConfiguration[iris].request_headers_to_remove[1]",
    ),
]

"""The rules that Envoy keeps in its code, one function for each type. Those in its protos are in `constraints.py`.

Only rules that a compiled resource could break are here. For each of them, a test breaks the rule and a real Envoy refuses the
result (`tests/envoy/test_refused.py`). The router is an exception: without it Envoy starts, and then answers nothing.
"""

from __future__ import annotations

import re
import ssl
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from controlplane.compiler.constraints import Problem
from controlplane.compiler.decode import unpack
from controlplane.domain import is_ip
from controlplane.envoy_types import CLUSTER, ENDPOINTS, EXTENSIONS, LISTENER, ROUTES, SCOPED_ROUTES, SECRET

_MAX_U32 = 2**32 - 1
# Envoy's default for `max_direct_response_body_size_bytes`.
_MAX_DIRECT_RESPONSE = 4096
# Envoy's default for `max_ejection_time`, in seconds.
_MAX_EJECTION = 300


def _cluster(cluster: Any) -> Iterator[Problem]:
    yield from _cluster_endpoints(cluster)
    http2 = False
    for name, packed in cluster.typed_extension_protocol_options.items():
        options = unpack(packed)
        http2 = options.HasField("explicit_http_config") and options.explicit_http_config.HasField("http2_protocol_options")
        if options.WhichOneof("upstream_protocol_options") is None:
            yield f"typed_extension_protocol_options[{name}]", "must say which protocol is spoken"
    for i, health in enumerate(cluster.health_checks):
        if health.HasField("grpc_health_check") and not http2:
            yield f"health_checks[{i}].grpc_health_check", "needs a cluster that speaks HTTP/2"
    outlier = cluster.outlier_detection
    if outlier.HasField("base_ejection_time"):
        has_maximum = outlier.HasField("max_ejection_time")
        maximum = outlier.max_ejection_time.ToTimedelta().total_seconds() if has_maximum else _MAX_EJECTION
        if outlier.base_ejection_time.ToTimedelta().total_seconds() > maximum:
            yield "outlier_detection.base_ejection_time", "must be at most max_ejection_time"
    if cluster.HasField("transport_socket"):
        yield from _tls(unpack(cluster.transport_socket.typed_config))


def _cluster_endpoints(cluster: Any) -> Iterator[Problem]:
    if cluster.HasField("cluster_type"):
        if cluster.lb_policy != cluster.CLUSTER_PROVIDED:
            yield "lb_policy", "must be CLUSTER_PROVIDED on an aggregate cluster"
        return
    if cluster.type == cluster.EDS:
        if not cluster.HasField("eds_cluster_config"):
            yield "eds_cluster_config", "must be set on a cluster of type EDS"
    elif cluster.HasField("eds_cluster_config"):
        yield "eds_cluster_config", "must be set on a cluster of type EDS only"
    elif not any(group.lb_endpoints for group in cluster.load_assignment.endpoints):
        yield "load_assignment", "must name endpoints"
    else:
        yield from _assignment(cluster.load_assignment, "load_assignment.", names=cluster.type != cluster.STATIC)


def _tls(context: Any) -> Iterator[Problem]:
    path = "transport_socket.typed_config.common_tls_context.validation_context"
    if context.common_tls_context.HasField("combined_validation_context"):
        return  # the authorities are in a secret
    validation = context.common_tls_context.validation_context
    if validation.trusted_ca.inline_string:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=validation.trusted_ca.inline_string)
        except (ssl.SSLError, ValueError) as error:
            yield f"{path}.trusted_ca", f"holds a certificate that can't be read: {error}"
    elif validation.match_typed_subject_alt_names and not validation.HasField("trusted_ca"):
        yield f"{path}.trusted_ca", "must be set where names are matched"


def _load_assignment(assignment: Any) -> Iterator[Problem]:
    yield from _assignment(assignment, "", names=False)


def _assignment(assignment: Any, path: str, *, names: bool) -> Iterator[Problem]:
    """Yield a problem for each address that is not an IP address, unless DNS `names` are allowed."""
    for i, group in enumerate(assignment.endpoints):
        for j, e in enumerate(group.lb_endpoints):
            host = e.endpoint.address.socket_address.address
            if not names and not is_ip(host):
                yield f"{path}endpoints[{i}].lb_endpoints[{j}].endpoint.address", f"'{host}' must be an IP address"


def _listener(listener: Any) -> Iterator[Problem]:
    if listener.HasField("api_listener"):
        # A listener for gRPC clients. It listens on no socket, and Envoy would refuse it.
        if listener.HasField("address") or listener.filter_chains:
            yield "api_listener", "must not be set beside an address or filter chains"
        yield from _http(unpack(listener.api_listener.api_listener), "api_listener.api_listener")
        return
    if not listener.HasField("address"):
        yield "address", "must be set"
    elif not is_ip(listener.address.socket_address.address):
        yield "address", f"'{listener.address.socket_address.address}' must be an IP address"
    if not listener.filter_chains:
        yield "filter_chains", "must have at least one item"
    for i, chain in enumerate(listener.filter_chains):
        path = f"filter_chains[{i}].filters"
        if not chain.filters:
            yield path, "must have at least one item"
        for j, network in enumerate(chain.filters):
            if not network.HasField("typed_config"):
                yield f"{path}[{j}].typed_config", "must be set"
            else:
                yield from _http(unpack(network.typed_config), f"{path}[{j}].typed_config")


def _http(manager: Any, path: str) -> Iterator[Problem]:
    if not manager.http_filters or not manager.http_filters[-1].typed_config.type_url.endswith(".router.v3.Router"):
        yield f"{path}.http_filters", "the last one must be the router, with its typed_config: without it requests hang"


def _scope(scope: Any) -> Iterator[Problem]:
    if not scope.key.fragments:
        yield "key.fragments", "must have at least one item"
    if not scope.route_configuration_name and not scope.HasField("route_configuration"):
        yield "route_configuration_name", "must be set"


def _routes(config: Any) -> Iterator[Problem]:
    for domain, times in Counter(d.lower() for host in config.virtual_hosts for d in host.domains).items():
        if times > 1:
            yield "virtual_hosts", f"the domain '{domain}' is named {times} times, but may be named only once"
    for i, name in enumerate(config.request_headers_to_remove):
        if name.startswith(":") or name.lower() == "host":
            yield f"request_headers_to_remove[{i}]", f"'{name}' can't be removed from a request"
    names = Counter(host.name for host in config.virtual_hosts)
    for i, host in enumerate(config.virtual_hosts):
        if names[host.name] > 1:
            yield f"virtual_hosts[{i}].name", f"'{host.name}' is named {names[host.name]} times, but may be named only once"
        for j, route in enumerate(host.routes):
            limit = config.max_direct_response_body_size_bytes.value or _MAX_DIRECT_RESPONSE
            if len(route.direct_response.body.inline_string.encode()) > limit:
                yield f"virtual_hosts[{i}].routes[{j}].direct_response.body", f"must have at most {limit} bytes"
            if route.HasField("route"):
                yield from _route_action(route.route, f"virtual_hosts[{i}].routes[{j}].route")


def _route_action(action: Any, path: str) -> Iterator[Problem]:
    if action.HasField("weighted_clusters"):
        total = sum(c.weight.value for c in action.weighted_clusters.clusters)
        stated = action.weighted_clusters.total_weight.value
        if stated and stated != total:
            yield f"{path}.weighted_clusters", f"the weights sum to {total}, but total_weight is {stated}"
        if not 0 < total <= _MAX_U32:
            yield f"{path}.weighted_clusters", f"the weights sum to {total}, but must sum to 1 to {_MAX_U32}"
    if action.prefix_rewrite and action.HasField("regex_rewrite"):
        yield f"{path}.regex_rewrite", "must not be set together with prefix_rewrite"
    if action.HasField("regex_rewrite"):
        try:
            re.compile(action.regex_rewrite.pattern.regex)
        except re.error as error:
            yield f"{path}.regex_rewrite.pattern.regex", f"is not a regular expression: {error}"


def _secret(secret: Any) -> Iterator[Problem]:
    if secret.WhichOneof("type") is None:
        yield "type", "must be set"


def _extension(extension: Any) -> Iterator[Problem]:
    if not extension.HasField("typed_config"):
        yield "typed_config", "must be set"


# By type URL. Each function gets a message that breaks none of the rules in the protos.
RULES: Mapping[str, Callable[[Any], Iterator[Problem]]] = {
    CLUSTER: _cluster,
    ENDPOINTS: _load_assignment,
    LISTENER: _listener,
    EXTENSIONS: _extension,
    SCOPED_ROUTES: _scope,
    ROUTES: _routes,
    SECRET: _secret,
}

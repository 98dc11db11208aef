"""Would Envoy take it? Envoy's own rules, as far as Python can check them, before a revision is accepted.

Two kinds of rules. Those written into the protos are read from there (`constraints.py`). Others Envoy keeps in its code;
those that something compiled here could break stand below, one function a type, each seen to be refused by a real Envoy
(`tests/envoy/test_refused.py`; but the router, without which Envoy starts and then answers nothing). What neither covers,
`turnout apply --validate-with-envoy` asks a real Envoy.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from google.protobuf.message import DecodeError

from controlplane.compiler.constraints import Problem, problems, unpack
from controlplane.envoy_types import (
    CLUSTER,
    COMPILED,
    ENDPOINTS,
    LISTENER,
    ROUTES,
    SCOPED_ROUTES,
    SECRET,
    SENSITIVE,
    short_name,
)
from controlplane.errors import Code, Error, Violation
from controlplane.snapshot import Resource, Snapshot

_MAX_U32 = 2**32 - 1
_MAX_VIOLATIONS = 100
_MESSAGES: dict[str, Any] = {t.url: t.message_class() for t in COMPILED.values()}


def check(resources: Iterable[Resource], snapshot: Snapshot | None = None) -> None:
    """Raises when Envoy would refuse one of the resources, whatever else it holds.

    Where the snapshot that they are all of is given: also when two of them clash, or one names what is not in it. Cheap enough
    to ask only of what changed: about 0.1 ms a resource. Errors: INVALID_ARGUMENT / ENVOY_WOULD_REFUSE with each resource and
    field, as `Cluster[iris/blue].connect_timeout`; INTERNAL / ENVOY_WOULD_REFUSE for what is wrong only between resources,
    which a state that fits together can't be to blame for.
    """
    resources = list(resources)
    found = [(r, path, said) for r in resources for path, said in _problems(r)]
    code = Code.INVALID_ARGUMENT
    if not found and snapshot is not None:
        code = Code.INTERNAL
        found = [*_clashes(resources), *_dangling(resources, snapshot)]
    if not found:
        return
    violations = tuple(Violation(f"{_label(r)}{'.' if path else ''}{path}", said) for r, path, said in found[:_MAX_VIOLATIONS])
    objects = sorted({owner(r) for r, _, _ in found})
    message = "Envoy would refuse " + "; ".join(f"{v.field}: {v.description}" for v in violations[:3])
    if len(found) > 3:
        message += f"; and {len(found) - 3} more"
    metadata = {"objects": ",".join(objects[:20])}
    raise Error(code, "ENVOY_WOULD_REFUSE", message, violations=violations, metadata=metadata)


def by_owner(error: Error, resources: Iterable[Resource]) -> Error:
    """What `check` said of the resources, as said of the objects that a person can change: its fields are their names."""
    if error.code is not Code.INVALID_ARGUMENT:
        return error  # no object is to blame
    labels = {_label(r): r for r in resources}
    violations = []
    for violation in error.violations:
        resource = labels.get(violation.field[: violation.field.find("]") + 1])
        said = f"Envoy would refuse {violation.field}: {violation.description}"
        violations.append(Violation(owner(resource), said) if resource is not None else violation)
    return Error(error.code, error.reason, error.message, violations=tuple(violations), metadata=error.metadata)


def owner(resource: Resource) -> str:
    """The resource name of the object that a resource was compiled of: `models/iris` for its cluster `iris/blue`."""
    if resource.type_url == LISTENER:
        listener = decoded(resource)
        return f"models/{resource.name}" if listener.HasField("api_listener") else f"gateways/{_gateway(listener)}"
    if resource.type_url == SCOPED_ROUTES:
        return f"models/{decoded(resource).route_configuration_name}"
    if resource.type_url == SECRET:
        return f"secrets/{resource.name}"
    return f"models/{resource.name.partition('/')[0]}"


def _gateway(listener: Any) -> str:
    """The gateway that a listener is of: its statistics are named so. What is broken may not say, and goes by its own name."""
    try:
        stat_prefix = unpack(listener.filter_chains[0].filters[0].typed_config).stat_prefix
    except (IndexError, KeyError, DecodeError):
        stat_prefix = ""
    return str(stat_prefix or listener.name)


def _shown(resource: Resource, problem: Problem) -> Problem:
    """What may be said of a resource: of one that is sensitive, not what is wrong with a value, which could quote it."""
    return (problem[0], "is not as Envoy wants it") if resource.type_url in SENSITIVE else problem


def decoded(resource: Resource) -> Any:
    """The message that a resource is. DecodeError when it isn't one."""
    return _MESSAGES[resource.type_url].FromString(resource.body)


def _label(resource: Resource) -> str:
    return f"{short_name(resource.type_url)}[{resource.name}]"


def _problems(resource: Resource) -> Iterator[Problem]:
    try:
        message = decoded(resource)
    except DecodeError:
        yield "", "is not a message of its type"
        return
    broken = list(problems(message))
    # The rules in code may rely on those in the protos.
    yield from (_shown(resource, p) for p in broken or _RULES[resource.type_url](message))


def _dangling(resources: list[Resource], snapshot: Snapshot) -> Iterator[tuple[Resource, str, str]]:
    for resource in resources:
        for type_url, name in sorted(resource.refs):
            if name not in snapshot.resources[type_url]:
                yield resource, "", f"names {short_name(type_url)} '{name}', which is not there"


def _clashes(resources: list[Resource]) -> Iterator[tuple[Resource, str, str]]:
    """What one resource may not have in common with another. Listeners' addresses differ, as their names do."""
    keys: dict[tuple[str, ...], str] = {}
    for r in resources:
        if r.type_url == SCOPED_ROUTES:
            key = tuple(f.string_key for f in decoded(r).key.fragments)
            if (taken := keys.setdefault(key, r.name)) != r.name:
                yield r, "key", f"scope '{taken}' has the same key"


# ------------------------------------------------------------------------------------------ rules that are in Envoy's code


def _cluster(cluster: Any) -> Iterator[Problem]:
    types = cluster_pb2.Cluster
    if cluster.type == types.EDS:
        if not cluster.HasField("eds_cluster_config"):
            yield "eds_cluster_config", "must be set on a cluster of type EDS"
    elif cluster.HasField("eds_cluster_config"):
        yield "eds_cluster_config", "must be set on a cluster of type EDS only"
    elif not any(group.lb_endpoints for group in cluster.load_assignment.endpoints):
        yield "load_assignment", "must name endpoints"
    else:
        yield from _assignment(cluster.load_assignment, "load_assignment.", names=cluster.type != types.STATIC)
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
        longest = outlier.max_ejection_time.ToTimedelta().total_seconds() if outlier.HasField("max_ejection_time") else 300
        if outlier.base_ejection_time.ToTimedelta().total_seconds() > longest:
            yield "outlier_detection.base_ejection_time", "must be at most max_ejection_time"
    if cluster.HasField("transport_socket"):
        yield from _tls(unpack(cluster.transport_socket.typed_config))


def _secret(secret: Any) -> Iterator[Problem]:
    if secret.WhichOneof("type") is None:
        yield "type", "must be set"


def _tls(context: Any) -> Iterator[Problem]:
    at = "transport_socket.typed_config.common_tls_context.validation_context"
    if context.common_tls_context.HasField("combined_validation_context"):
        return  # the authorities are in a secret
    validation = context.common_tls_context.validation_context
    if validation.trusted_ca.inline_string:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=validation.trusted_ca.inline_string)
        except (ssl.SSLError, ValueError) as error:
            yield f"{at}.trusted_ca", f"holds a certificate that can't be read: {error}"
    elif validation.match_typed_subject_alt_names and not validation.HasField("trusted_ca"):
        yield f"{at}.trusted_ca", "must be set where names are matched"


def _load_assignment(assignment: Any) -> Iterator[Problem]:
    yield from _assignment(assignment, "", names=False)


def _assignment(assignment: Any, path: str, *, names: bool) -> Iterator[Problem]:
    for i, group in enumerate(assignment.endpoints):
        for j, e in enumerate(group.lb_endpoints):
            host = e.endpoint.address.socket_address.address
            if not names and not _is_ip(host):
                yield f"{path}endpoints[{i}].lb_endpoints[{j}].endpoint.address", f"'{host}' must be an IP address"


def _listener(listener: Any) -> Iterator[Problem]:
    if listener.HasField("api_listener"):
        # A gRPC client's: it listens on nothing, and an Envoy would not take it.
        if listener.HasField("address") or listener.filter_chains:
            yield "api_listener", "must not be set beside an address or filter chains"
        yield from _http(unpack(listener.api_listener.api_listener), "api_listener.api_listener")
        return
    if not listener.HasField("address"):
        yield "address", "must be set"
    elif not _is_ip(listener.address.socket_address.address):
        yield "address", f"'{listener.address.socket_address.address}' must be an IP address"
    if not listener.filter_chains:
        yield "filter_chains", "there must be one at least"
    for i, chain in enumerate(listener.filter_chains):
        at = f"filter_chains[{i}].filters"
        if not chain.filters:
            yield at, "there must be one at least"
        for j, network in enumerate(chain.filters):
            if not network.HasField("typed_config"):
                yield f"{at}[{j}].typed_config", "must be set"
            else:
                yield from _http(unpack(network.typed_config), f"{at}[{j}].typed_config")


def _http(manager: Any, path: str) -> Iterator[Problem]:
    if not manager.http_filters or not manager.http_filters[-1].typed_config.type_url.endswith(".router.v3.Router"):
        yield f"{path}.http_filters", "the last one must be the router, with its typed_config: without it requests hang"


def _scope(scope: Any) -> Iterator[Problem]:
    if not scope.key.fragments:
        yield "key.fragments", "there must be one at least"
    if not scope.route_configuration_name and not scope.HasField("route_configuration"):
        yield "route_configuration_name", "must be set"


def _routes(config: Any) -> Iterator[Problem]:
    for domain, times in Counter(d.lower() for host in config.virtual_hosts for d in host.domains).items():
        if times > 1:
            yield "virtual_hosts", f"the domain '{domain}' is named {times} times: once is the most"
    for i, name in enumerate(config.request_headers_to_remove):
        if name.startswith(":") or name.lower() == "host":
            yield f"request_headers_to_remove[{i}]", f"'{name}' can't be taken off a request"
    names = Counter(host.name for host in config.virtual_hosts)
    for i, host in enumerate(config.virtual_hosts):
        if names[host.name] > 1:
            yield f"virtual_hosts[{i}].name", f"'{host.name}' is named {names[host.name]} times: once is the most"
        for j, route in enumerate(host.routes):
            if route.HasField("route"):
                yield from _route_action(route.route, f"virtual_hosts[{i}].routes[{j}].route")


def _route_action(action: Any, path: str) -> Iterator[Problem]:
    if action.HasField("weighted_clusters"):
        total = sum(c.weight.value for c in action.weighted_clusters.clusters)
        stated = action.weighted_clusters.total_weight.value
        if stated and stated != total:
            yield f"{path}.weighted_clusters", f"the weights sum to {total}, and not to the total of {stated}"
        if not 0 < total <= _MAX_U32:
            yield f"{path}.weighted_clusters", f"the weights sum to {total}: 1 to {_MAX_U32}"
    if action.prefix_rewrite and action.HasField("regex_rewrite"):
        yield f"{path}.regex_rewrite", "must not be set together with prefix_rewrite"
    if action.HasField("regex_rewrite"):
        try:
            re.compile(action.regex_rewrite.pattern.regex)
        except re.error as error:
            yield f"{path}.regex_rewrite.pattern.regex", f"is no regular expression: {error}"


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


_RULES: dict[str, Callable[[Any], Iterator[Problem]]] = {
    CLUSTER: _cluster,
    ENDPOINTS: _load_assignment,
    LISTENER: _listener,
    SCOPED_ROUTES: _scope,
    ROUTES: _routes,
    SECRET: _secret,
}

"""The rules that a patch keeps. Each of them compares a resource before and after its patches.

| the resource keeps | because |
|---|---|
| its name and type | streams and other resources know it by its name |
| how it finds its endpoints, routes and scopes (EDS, RDS, SRDS) | the server sends these, in an order that loses no request |
| routes: their matches, clusters, weights and sticky keys | these are what a switch changes |
| HTTP filters: those of Turnout, in their order | they find the model of a request |
| clusters: only those that the resource named before, and those that the gateway's patches add | others may be removed |
| secrets: only those that the object uses anyway, or that its gateway allows | a node gets no other secret |
| sensitive values: none in the resource itself | dumps, diffs and the history would show them |

The rules hold for every change of a compiled resource, however it was made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError
from udpa.annotations import sensitive_pb2

from controlplane.compiler.decode import unpack
from controlplane.compiler.message import over_ads
from controlplane.compiler.who import NAMESPACE

_ANY = "google.protobuf.Any"
_CONFIG_SOURCE = "envoy.config.core.v3.ConfigSource"
_SDS = "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig"
_ASSIGNMENT = "envoy.config.endpoint.v3.ClusterLoadAssignment"
_DATA_SOURCE = "envoy.config.core.v3.DataSource"
_MANAGER = "HttpConnectionManager"
_CODEC = "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"
# Fields of any message that name a cluster.
_CLUSTER_REFERENCES = ("cluster", "cluster_name", "clusters", "cluster_names")
# Bytes of a model's routes with its patches, which a switch sends. A model with gRPC ports has a second route for each.
MAX_ROUTE_BYTES, MAX_ROUTE_BYTES_WITH_GRPC_PORTS = 1_024, 2_048

# Fields that a patch may not change, by message.
_LISTENER_FIELDS = (
    *("name", "address", "additional_addresses", "use_original_dst", "bind_to_port", "api_listener", "internal_listener"),
    *("udp_listener_config", "default_filter_chain", "filter_chain_matcher", "fcds_config"),
)
_CHAIN_FIELDS = ("filter_chain_match", "name")
_MANAGER_FIELDS = ("stat_prefix", "codec_type", "rds", "route_config", "scoped_routes", "route_config_provider")
_CLUSTER_FIELDS = ("name", "type", "cluster_type", "eds_cluster_config", "load_assignment", "lrs_report_endpoint_metrics")
_ROUTES_FIELDS = ("name", "vhds", "validate_clusters", "max_direct_response_body_size_bytes")
_HOST_FIELDS = ("name", "domains", "matcher", "request_mirror_policies")
_ACTION_FIELDS = (
    *("cluster", "cluster_header", "cluster_specifier_plugin", "inline_cluster_specifier_plugin"),
    *("request_mirror_policies", "hash_policy", "host_rewrite_literal"),
)
_WEIGHTED_FIELDS = ("use_hash_policy", "header_name", "runtime_key_prefix", "total_weight")


class RuleError(ValueError):
    """A patch breaks a rule. The text says which, and where."""


@dataclass(frozen=True, slots=True)
class Names:
    """The clusters and the secrets that a resource names."""

    clusters: set[str] = field(default_factory=set)
    secrets: set[str] = field(default_factory=set)


def check_listener(before: Any, after: Any, allowed: Names) -> None:
    """Check a patched listener. Errors: RuleError."""
    _check_same(before, after, _LISTENER_FIELDS, "")
    if len(after.filter_chains) != len(before.filter_chains):
        raise RuleError("filter_chains: their number may not change")
    for i, (old, new) in enumerate(zip(before.filter_chains, after.filter_chains, strict=True)):
        path = f"filter_chains[{i}]"
        _check_same(old, new, _CHAIN_FIELDS, path)
        if (old.transport_socket.name, old.transport_socket.typed_config.type_url) != (
            new.transport_socket.name,
            new.transport_socket.typed_config.type_url,
        ):
            raise RuleError(f"{path}.transport_socket: its name and type may not change")
        if [f.name for f in old.filters] != [f.name for f in new.filters]:
            raise RuleError(f"{path}.filters: may not change")
        for j, (old_filter, new_filter) in enumerate(zip(old.filters, new.filters, strict=True)):
            at = f"{path}.filters[{j}].typed_config"
            if old_filter.typed_config.type_url != new_filter.typed_config.type_url:
                raise RuleError(f"{at}: its type may not change")
            if old_filter.typed_config.type_url.endswith(f".{_MANAGER}"):
                _check_manager(unpack(old_filter.typed_config), unpack(new_filter.typed_config))
    _check_names(before, after, allowed)


def _check_manager(before: Any, after: Any) -> None:
    _check_same(before, after, [f for f in _MANAGER_FIELDS if f in before.DESCRIPTOR.fields_by_name], "")
    early = len(before.early_header_mutation_extensions)
    if list(after.early_header_mutation_extensions[:early]) != list(before.early_header_mutation_extensions):
        raise RuleError("early_header_mutation_extensions: Turnout's own must stay the first, since it finds the model")
    _check_filters(before.http_filters, after.http_filters, "http_filters")


def _check_filters(before: Any, after: Any, path: str) -> None:
    """Check that filters were only added, none of them after the last, and that no two have the same name."""
    names = [f.name for f in after]
    for name in names:
        if names.count(name) > 1:
            raise RuleError(f"{path}: there are two filters '{name}': give the new one another name")
    remaining = iter(after)
    for old in before:
        if not any(new == old for new in remaining):
            raise RuleError(f"{path}: '{old.name}' may not be changed, removed or moved")
    if before and names[-1] != before[-1].name:
        raise RuleError(f"{path}: '{before[-1].name}' must stay the last")


def check_cluster(before: Any, after: Any, allowed: Names) -> None:
    """Check a patched cluster. Errors: RuleError."""
    _check_same(before, after, _CLUSTER_FIELDS, "")
    if before.metadata.filter_metadata.get(NAMESPACE) != after.metadata.filter_metadata.get(NAMESPACE):
        raise RuleError(f"metadata.filter_metadata[{NAMESPACE}]: may not change")
    old, new = _upstream_filters(before), _upstream_filters(after)
    _check_filters(old, new, "http_filters")
    if new and not new[-1].typed_config.type_url.endswith(_CODEC):
        raise RuleError("http_filters: the last one must be envoy.filters.http.upstream_codec")
    _check_names(before, after, allowed)


def _upstream_filters(cluster: Any) -> list[Any]:
    return [
        f
        for options in cluster.typed_extension_protocol_options.values()
        for f in getattr(unpack(options), "http_filters", ())
    ]


def check_added_cluster(cluster: Any, name: str, allowed: Names) -> None:
    """Check a cluster that a patch adds under a name. Errors: RuleError."""
    if cluster.name != name:
        raise RuleError(f"name: must be '{name}', or left out")
    if cluster.HasField("cluster_type") or cluster.type not in (cluster.STATIC, cluster.STRICT_DNS, cluster.LOGICAL_DNS):
        raise RuleError("type: must be STATIC, STRICT_DNS or LOGICAL_DNS: Turnout serves no endpoints for it")
    _check_names(type(cluster)(), cluster, allowed)


def check_routes(before: Any, after: Any, allowed: Names) -> None:
    """Check patched routes. Errors: RuleError."""
    _check_same(before, after, _ROUTES_FIELDS, "")
    if not set(before.request_headers_to_remove) <= set(after.request_headers_to_remove):
        raise RuleError("request_headers_to_remove: Turnout's own must stay")
    if len(before.virtual_hosts) != len(after.virtual_hosts):
        raise RuleError("virtual_hosts: their number may not change")
    for i, (old, new) in enumerate(zip(before.virtual_hosts, after.virtual_hosts, strict=True)):
        path = f"virtual_hosts[{i}]"
        _check_same(old, new, _HOST_FIELDS, path)
        if old.metadata.filter_metadata.get(NAMESPACE) != new.metadata.filter_metadata.get(NAMESPACE):
            raise RuleError(f"{path}.metadata.filter_metadata[{NAMESPACE}]: may not change")
        if len(old.routes) != len(new.routes):
            raise RuleError(f"{path}.routes: may not be changed, use a patch of `route`")
        for j, (old_route, new_route) in enumerate(zip(old.routes, new.routes, strict=True)):
            _check_route(old_route, new_route, f"{path}.routes[{j}]")
    _check_names(before, after, allowed)


def _check_route(before: Any, after: Any, path: str) -> None:
    _check_same(before, after, ("name", "match"), path)
    if before.WhichOneof("action") != after.WhichOneof("action"):
        raise RuleError(f"{path}: the kind of its action may not change")
    old, new = before.route, after.route
    _check_same(old, new, _ACTION_FIELDS, f"{path}.route")
    if old.WhichOneof("cluster_specifier") != new.WhichOneof("cluster_specifier"):
        raise RuleError(f"{path}.route: how it finds its cluster may not change")
    _check_same(old.weighted_clusters, new.weighted_clusters, _WEIGHTED_FIELDS, f"{path}.route.weighted_clusters")
    if [(c.name, c.weight.value, c.cluster_header) for c in old.weighted_clusters.clusters] != [
        (c.name, c.weight.value, c.cluster_header) for c in new.weighted_clusters.clusters
    ]:
        raise RuleError(f"{path}.route.weighted_clusters.clusters: names and weights may not change")


def _check_same(before: Any, after: Any, fields: Iterable[str], path: str) -> None:
    for name in fields:
        if name not in before.DESCRIPTOR.fields_by_name:
            continue
        if getattr(before, name) != getattr(after, name) or (
            before.DESCRIPTOR.fields_by_name[name].has_presence and before.HasField(name) != after.HasField(name)
        ):
            raise RuleError(f"{path}{'.' if path else ''}{name}: may not change")


def names_of(message: Any) -> Names:
    """Return the clusters and the secrets that a message names, at any depth."""
    names = Names()
    for part, _ in _parts(message, ""):
        names.clusters.update(_clusters(part))
        if part.DESCRIPTOR.full_name == _SDS:
            names.secrets.add(part.name)
    return names


def _check_names(before: Any, after: Any, allowed: Names) -> None:
    old = names_of(before)
    if _count_sources(before) != _count_sources(after):
        raise RuleError("a source of configuration may not be added or removed (ADS, EDS, RDS, ECDS)")
    lost = old.secrets - names_of(after).secrets
    if lost:
        raise RuleError(f"the Secret '{min(lost)}' may not be removed")
    for part, path in _parts(after, ""):
        if part.DESCRIPTOR.full_name == _SDS:
            if part.name not in old.secrets | allowed.secrets:
                known = ", ".join(sorted(allowed.secrets)[:10]) or "none"
                raise RuleError(
                    f"{path}: names the Secret '{part.name[:80]}', to which the object is not entitled. It may name these, "
                    f"by their labels: {known}"
                )
            if part.sds_config != over_ads():
                raise RuleError(f"{path}.sds_config: must be {{ads: {{}}, resource_api_version: V3}}")
        for cluster in _clusters(part):
            if cluster not in old.clusters | allowed.clusters:
                known = ", ".join(sorted(allowed.clusters)) or "none"
                raise RuleError(
                    f"{path}: names the cluster '{cluster[:80]}', which could be removed while it is used. Add one with "
                    f"`add_cluster`; there are: {known}"
                )
        _check_sensitive(part, path)


def _count_sources(message: Any) -> int:
    """Return the number of sources of configuration in a message, without those of its secrets."""
    return sum(part.DESCRIPTOR.full_name == _CONFIG_SOURCE for part, _ in _parts(message, "", into_sds=False))


def _check_sensitive(part: Any, path: str) -> None:
    for f, value in part.ListFields():
        if not f.GetOptions().Extensions[sensitive_pb2.sensitive]:
            continue
        items = value if f.is_repeated else [value]
        if f.message_type is None or any(i.DESCRIPTOR.full_name == _DATA_SOURCE and _is_inline(i) for i in items):
            raise RuleError(f"{path}{'.' if path else ''}{f.name}: is sensitive, so it may not be in a patch: use a Secret")


def _is_inline(source: Any) -> bool:
    return source.WhichOneof("specifier") in ("inline_string", "inline_bytes")


def _clusters(part: Any) -> Iterator[str]:
    if part.DESCRIPTOR.full_name == _ASSIGNMENT:
        return  # its own name
    for f, value in part.ListFields():
        if f.name in _CLUSTER_REFERENCES and f.cpp_type == f.CPPTYPE_STRING:
            yield from value if f.is_repeated else (value,)


def _parts(message: Any, path: str, *, into_sds: bool = True) -> Iterator[tuple[Any, str]]:
    """Yield a message and all messages in it, also those in an Any, each with its path."""
    name = message.DESCRIPTOR.full_name
    if name == _ANY:
        try:
            yield from _parts(unpack(message), path, into_sds=into_sds)
        except (KeyError, DecodeError):
            raise RuleError(f"{path}: its type '{message.type_url[:200]}' is not known") from None
        return
    yield message, path
    if name.startswith("google.protobuf.") or (name == _SDS and not into_sds):
        return
    for f, value in message.ListFields():
        if f.message_type is None:
            continue
        at = f"{path}{'.' if path else ''}{f.name}"
        if f.message_type.GetOptions().map_entry:
            if f.message_type.fields_by_name["value"].message_type is not None:
                for key in sorted(value):
                    yield from _parts(value[key], f"{at}[{key}]", into_sds=into_sds)
        elif f.is_repeated:
            for i, item in enumerate(value):
                yield from _parts(item, f"{at}[{i}]", into_sds=into_sds)
        else:
            yield from _parts(value, at, into_sds=into_sds)

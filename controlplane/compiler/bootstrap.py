"""Bootstraps, in JSON form: how a node finds the control plane, and everything static, to ask a real Envoy with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from google.protobuf import json_format

from controlplane.compiler.decode import decoded, unpack
from controlplane.compiler.message import packed
from controlplane.domain import Locality, is_ip
from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SCOPED_ROUTES, SECRET, url_of
from controlplane.snapshot import Resource, Snapshot

_TYPE = url_of("envoy.")
XDS_CLUSTER = "turnout"
NOWHERE = Locality()


def node_bootstrap(
    node_id: str,
    cluster: str = "turnout",
    *,
    xds_host: str = "127.0.0.1",
    xds_port: int = 18000,
    variant: Literal["delta", "sotw"] = "delta",
    admin_host: str = "127.0.0.1",
    admin_port: int = 9901,
    metadata: Mapping[str, object] | None = None,
    locality: Locality = NOWHERE,
    load_reports: bool = True,
) -> dict[str, object]:
    """The bootstrap of an Envoy that takes everything from the control plane at `xds_host:xds_port`.

    With `load_reports` it tells the control plane how many requests it sends where. `admin_port` 0 lets the system choose.
    Whoever reaches the admin interface can stop the Envoy: loopback, unless told.
    """
    node = _node(node_id, cluster, metadata, locality)
    ads = {"ads": {}, "resource_api_version": "V3"}
    to_turnout = {"cluster_name": XDS_CLUSTER}
    grpc = {
        "envoy_grpc": {
            **to_turnout,
            # A control plane that restarts is back in a second; Envoy's own would wait up to 30 s.
            "retry_policy": {"retry_back_off": {"base_interval": "0.25s", "max_interval": "5s"}},
        }
    }
    bootstrap: dict[str, object] = {
        "node": node,
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC" if variant == "delta" else "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [grpc],
            },
            "cds_config": ads,
            "lds_config": dict(ads),
        },
        "static_resources": {"clusters": [_xds_cluster(xds_host, xds_port)]},
        # Thousands of models' clusters have statistics each; most of them see no traffic on most nodes.
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": f"{_TYPE}extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": "50000",
                    },
                }
            ]
        },
        "admin": {"address": _address(admin_host, admin_port)},
    }
    if load_reports:
        # A control plane that takes none is asked again every 5 s, with a warning in Envoy's log each time.
        reports = {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": to_turnout}]}
        bootstrap["cluster_manager"] = {"load_stats_config": reports}
    return bootstrap


def grpc_bootstrap(
    node_id: str,
    cluster: str = "turnout",
    *,
    xds_host: str = "127.0.0.1",
    xds_port: int = 18000,
    metadata: Mapping[str, object] | None = None,
    locality: Locality = NOWHERE,
) -> dict[str, object]:
    """What gRPC's own client reads from the file that GRPC_XDS_BOOTSTRAP names, in plain text to `xds_host:xds_port`."""
    host = f"[{xds_host}]" if ":" in xds_host else xds_host
    node = _node(node_id, cluster, metadata, locality)
    node.setdefault("locality", {})  # grpc-js asks for one, even if it is empty
    server = {
        "server_uri": f"{host}:{xds_port}",
        "channel_creds": [{"type": "insecure"}],
        "server_features": ["xds_v3"],  # older clients ask for v2 without it
    }
    return {"xds_servers": [server], "node": node}


def _node(node_id: str, cluster: str, metadata: Mapping[str, object] | None, locality: Locality) -> dict[str, object]:
    node: dict[str, object] = {"id": node_id, "cluster": cluster}
    if where := {part: said for part, said in asdict(locality).items() if said}:
        node["locality"] = where
    if metadata:
        node["metadata"] = dict(metadata)
    return node


def _xds_cluster(host: str, port: int) -> dict[str, object]:
    options: dict[str, object] = {
        "@type": f"{_TYPE}extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {
            # A stream that only waits must notice that the other side is gone: Envoy reconnects after 40 s of silence.
            "http2_protocol_options": {"connection_keepalive": {"interval": "30s", "timeout": "10s"}}
        },
    }
    # By default Envoy prefers IPv6, and so would look for `localhost` where an IPv4 server isn't.
    found = {"type": "STATIC"} if is_ip(host) else {"type": "STRICT_DNS", "dns_lookup_family": "V4_PREFERRED"}
    return {
        "name": XDS_CLUSTER,
        **found,
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        "load_assignment": {
            "cluster_name": XDS_CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(host, port)}}]}],
        },
    }


def _address(host: str, port: int) -> dict[str, object]:
    return {"socket_address": {"address": host, "port_value": port}}


def static_bootstrap(snapshot: Snapshot, stand_in: tuple[str, str] = ("", "")) -> dict[str, object]:
    """A snapshot with nothing left to ask for: clusters with their endpoints, listeners with scopes and routes inline.

    Every certificate that has a key is replaced by `stand_in`, a certificate and its key in PEM that are good for nothing;
    needed where there is one.
    """
    routes = {name: decoded(r) for name, r in snapshot.resources[ROUTES].items()}
    scopes: dict[str, list[Any]] = {}
    for resource in snapshot.resources[SCOPED_ROUTES].values():
        scope = decoded(resource)
        scope.route_configuration.CopyFrom(routes[scope.route_configuration_name])
        scope.ClearField("route_configuration_name")
        scopes.setdefault(resource.name.partition("/")[0], []).append(scope)
    listeners = [_static_listener(r, scopes.get(r.name, [])) for r in snapshot.resources[LISTENER].values()]
    clusters = [_static_cluster(r, snapshot.resources[ENDPOINTS].get(r.name)) for r in snapshot.resources[CLUSTER].values()]
    static = {"listeners": [_json(m) for m in listeners], "clusters": [_json(m) for m in clusters]}
    if secrets := [_json(_static_secret(r, stand_in)) for r in snapshot.resources[SECRET].values()]:
        static["secrets"] = secrets
    return {"node": {"id": "static", "cluster": "static"}, "static_resources": static}


def _static_secret(resource: Resource, stand_in: tuple[str, str]) -> Any:
    secret = decoded(resource)
    if secret.HasField("tls_certificate"):
        chain, key = stand_in
        secret.tls_certificate.certificate_chain.inline_string = chain
        secret.tls_certificate.private_key.inline_string = key
    return secret


def _here(socket: Any) -> None:
    """The secrets that a transport socket names are in the bootstrap itself."""
    if not socket.HasField("typed_config"):
        return
    context = unpack(socket.typed_config)
    common = context.common_tls_context
    named = [*common.tls_certificate_sds_secret_configs]
    if common.HasField("validation_context_sds_secret_config"):
        named.append(common.validation_context_sds_secret_config)
    if common.HasField("combined_validation_context"):
        named.append(common.combined_validation_context.validation_context_sds_secret_config)
    for config in named:
        config.ClearField("sds_config")
    socket.typed_config.CopyFrom(packed(context))


def _static_cluster(resource: Resource, endpoints: Resource | None) -> Any:
    cluster = decoded(resource)
    _here(cluster.transport_socket)
    if endpoints is not None:
        cluster.ClearField("eds_cluster_config")
        cluster.type = cluster.STATIC
        cluster.load_assignment.CopyFrom(decoded(endpoints))
    return cluster


def _static_listener(resource: Resource, scopes: list[Any]) -> Any:
    listener = decoded(resource)
    _here(listener.filter_chains[0].transport_socket)
    network = listener.filter_chains[0].filters[0]
    manager = unpack(network.typed_config)
    if scopes:
        manager.scoped_routes.ClearField("rds_config_source")
        manager.scoped_routes.scoped_route_configurations_list.scoped_route_configurations.extend(scopes)
    else:
        # Envoy takes no empty list of scopes.
        manager.route_config.CopyFrom(hcm_pb2.HttpConnectionManager().route_config)
    network.typed_config.CopyFrom(packed(manager))
    return listener


def _json(message: Any) -> dict[str, object]:
    form: dict[str, object] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return form

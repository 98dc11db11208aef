"""Bootstraps in JSON form, for Envoys and for gRPC's own clients: how a node finds the control plane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Literal

from controlplane.compiler.bootstrap_tls import (
    BootstrapTls,
    CertificateFiles,
    SpireAgent,
    agent_cluster,
    grpc_credentials,
    transport_socket,
)
from controlplane.domain import Locality, is_ip
from controlplane.envoy_types import url_of

_TYPE = url_of("envoy.")
XDS_CLUSTER = "turnout"
NO_LOCALITY = Locality()

# The default bound of an Envoy's memory, in MiB.
MAX_MEMORY = 4096
_HEAP = "envoy.resource_monitors.fixed_heap"
# The parts of the bound between which more and more requests end, and at which all new requests get 503.
_SHED_FROM, _SHED_ALL, _REFUSE_NEW = 0.4, 0.6, 0.5
# Streams with less than 2**20 bytes in buffers are not ended for their size.
_LARGE_STREAM = 20


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
    locality: Locality = NO_LOCALITY,
    load_reports: bool = True,
    max_memory: int = MAX_MEMORY,
    tls: BootstrapTls | None = None,
) -> dict[str, object]:
    """Return the bootstrap of an Envoy that gets everything from the control plane at `xds_host:xds_port`.

    With `load_reports` it reports to the control plane how many requests it sends to each cluster. With `admin_port` 0 the
    system chooses the port. Anyone who can connect to the admin interface can stop the Envoy, so its default is loopback.
    `max_memory` in MiB bounds Envoy's heap (`_overload_manager`); 0 is no bound. Without `tls` it connects in plain text.
    """
    clusters = [_xds_cluster(xds_host, xds_port, tls)]
    if tls is not None and isinstance(tls.source, SpireAgent):
        clusters.append(agent_cluster(tls.source))
    ads = {"ads": {}, "resource_api_version": "V3"}
    to_turnout = {"cluster_name": XDS_CLUSTER}
    # A control plane that restarts is back in a second. Envoy's default would wait up to 30 s.
    retry_policy = {"retry_back_off": {"base_interval": "0.25s", "max_interval": "5s"}}
    bootstrap: dict[str, object] = {
        "node": _node(node_id, cluster, metadata, locality),
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC" if variant == "delta" else "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": {**to_turnout, "retry_policy": retry_policy}}],
            },
            "cds_config": ads,
            "lds_config": dict(ads),
        },
        "static_resources": {"clusters": clusters},
        # Create the statistics of a cluster with its first request: on most nodes, most of thousands of clusters get none.
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
        "overload_manager": _overload_manager(max_memory),
        "admin": {"address": _address(admin_host, admin_port)},
    }
    if load_reports:
        # If the control plane accepts no load reports, Envoy tries again every 5 s, and logs a warning each time.
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
    locality: Locality = NO_LOCALITY,
    tls: CertificateFiles | None = None,
) -> dict[str, object]:
    """Return the content of the file that GRPC_XDS_BOOTSTRAP names, for gRPC's own clients.

    They connect to `xds_host:xds_port`, without `tls` in plain text.
    """
    host = f"[{xds_host}]" if ":" in xds_host else xds_host
    node = _node(node_id, cluster, metadata, locality)
    node.setdefault("locality", {})  # grpc-js requires one, even if it is empty
    server = {
        "server_uri": f"{host}:{xds_port}",
        "channel_creds": [{"type": "insecure"} if tls is None else grpc_credentials(tls)],
        "server_features": ["xds_v3"],  # without it older clients use v2
    }
    return {"xds_servers": [server], "node": node}


def _node(node_id: str, cluster: str, metadata: Mapping[str, object] | None, locality: Locality) -> dict[str, object]:
    node: dict[str, object] = {"id": node_id, "cluster": cluster}
    if parts := {part: value for part, value in asdict(locality).items() if value}:
        node["locality"] = parts
    if metadata:
        node["metadata"] = dict(metadata)
    return node


def _xds_cluster(host: str, port: int, tls: BootstrapTls | None) -> dict[str, object]:
    options: dict[str, object] = {
        "@type": f"{_TYPE}extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {
            # An idle stream must notice that the control plane is gone: Envoy reconnects after 40 s of silence.
            "http2_protocol_options": {"connection_keepalive": {"interval": "30s", "timeout": "10s"}}
        },
    }
    # By default Envoy prefers IPv6, and would not reach an IPv4 server at `localhost`.
    discovery = {"type": "STATIC"} if is_ip(host) else {"type": "STRICT_DNS", "dns_lookup_family": "V4_PREFERRED"}
    return {
        "name": XDS_CLUSTER,
        **discovery,
        "connect_timeout": "5s",
        **({} if tls is None else {"transport_socket": transport_socket(tls)}),
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        "load_assignment": {
            "cluster_name": XDS_CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(host, port)}}]}],
        },
    }


def _address(host: str, port: int) -> dict[str, object]:
    return {"socket_address": {"address": host, "port_value": port}}


def _overload_manager(max_memory: int) -> dict[str, object]:
    """Return the limits by which an Envoy protects itself: the number of connections, and its heap in MiB if it is not 0.

    A body gateway keeps bodies in memory, so many large uploads at once could use all of it. Under pressure Envoy first ends
    the HTTP/2 streams with the most data, and HTTP/1 connections whose request is still coming, then it refuses new requests.
    It checks 20 times a second, and begins early, because data comes in meanwhile: at most 1 MiB of a connection at a time.
    """
    monitors = [_connection_limit()]
    if not max_memory:
        return {"resource_monitors": monitors}
    config = f"{_TYPE}extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig"
    heap = {"name": _HEAP, "typed_config": {"@type": config, "max_heap_size_bytes": str(max_memory << 20)}}
    by_pressure = {"name": _HEAP, "scaled": {"scaling_threshold": _SHED_FROM, "saturation_threshold": _SHED_ALL}}
    at_limit = {"name": _HEAP, "threshold": {"value": _REFUSE_NEW}}
    return {
        "refresh_interval": "0.050s",
        "resource_monitors": [heap, *monitors],
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": _LARGE_STREAM},
        "actions": [
            {"name": "envoy.overload_actions.shrink_heap", "triggers": [at_limit]},
            {"name": "envoy.overload_actions.stop_accepting_requests", "triggers": [at_limit]},
            {"name": "envoy.overload_actions.reset_high_memory_stream", "triggers": [by_pressure]},
        ],
        "loadshed_points": [{"name": "envoy.load_shed_points.http1_server_abort_dispatch", "triggers": [by_pressure]}],
    }


def _connection_limit() -> dict[str, object]:
    config = "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    return {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {"@type": f"{_TYPE}{config}", "max_active_downstream_connections": "50000"},
    }

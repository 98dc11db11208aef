"""Clusters: one for each version, named `MODEL/VERSION`. A version without endpoints has none: it can't get requests.

If endpoints have a port for gRPC beside the one for HTTP, each cluster has a second one for gRPC calls (`grpc_ports.py`).

The version that a model mirrors to has a second cluster, `MODEL/VERSION/mirror`, for the copies only (`mirrors.py`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2, outlier_detection_pb2
from envoy.config.core.v3 import address_pb2, health_check_pb2, protocol_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.type.matcher.v3 import string_pb2
from envoy.type.v3 import http_pb2
from google.protobuf import wrappers_pb2

from controlplane.compiler.affinity import set_affinity
from controlplane.compiler.endpoints import NOWHERE, load_assignment
from controlplane.compiler.functions import NO_FUNCTIONS, Functions
from controlplane.compiler.grpc_ports import has_grpc_name, names_of
from controlplane.compiler.message import duration, over_ads, packed, resource
from controlplane.compiler.mirrors import copy_filters, copy_limits, copy_timeout, refuse_own_copies
from controlplane.compiler.patches import patched_cluster, within_version
from controlplane.compiler.secrets import credential_name, over_sds
from controlplane.compiler.upstream_filters import header_options, upstream_filters
from controlplane.compiler.who import set_version
from controlplane.domain import (
    Affinity,
    Endpoint,
    HealthCheck,
    Locality,
    Mirror,
    Model,
    OutlierDetection,
    Protocol,
    UpstreamTls,
    Version,
    is_ip,
)
from controlplane.envoy_types import CLUSTER, ENDPOINTS, SECRET
from controlplane.snapshot import Resource

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

# The authorities of the Envoy's system. Envoy has no setting for them (only gRPC reads `system_root_certs`), so this is the
# file's path on Debian, Ubuntu, Alpine and Envoy's own images. Elsewhere, link it or configure the certificates.
SYSTEM_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"

# Model servers close idle HTTP/1 connections, uvicorn after 5 s. A POST that Envoy sends at that moment is lost, since it may
# not be retried, so Envoy closes first. HTTP/2 sends GOAWAY and loses nothing, and keeps Envoy's default of an hour. The same
# limit closes the connection of a health check that waits for its answer, so it is raised for slow checks (`_http1_idle`).
# Seconds.
_HTTP1_IDLE = 4.0


def cluster_name(model: str, version: str) -> str:
    """Return `MODEL/VERSION`. Unique, since both are labels."""
    return f"{model}/{version}"


def mirror_name(model: str, version: str) -> str:
    """Return `MODEL/VERSION/mirror`. No version's name, since labels have no slash."""
    return f"{cluster_name(model, version)}/mirror"


def compile_cluster(
    model: str,
    version: Version,
    affinity: Affinity | None = None,
    request_timeout: float = 0.0,
    node: Locality = NOWHERE,
    functions: Functions = NO_FUNCTIONS,
) -> list[Resource]:
    """Return the cluster of a version for nodes of a locality, and that of its gRPC ports; empty if it has no endpoints.

    The timeout is that of the model's requests, or 0.
    """
    if not version.endpoints:
        if version.patches:  # checked now, and not when the version gets endpoints
            compile_version("", model, replace(version, endpoints=(Endpoint("127.0.0.1", 1),)), functions=functions)
        return []
    name, to_the_last, limit = cluster_name(model, version.name), bool(version.fallback), upload_limit(request_timeout)
    options: dict[str, Any] = {"affinity": affinity, "limit": limit, "to_the_last": to_the_last, "functions": functions}
    return [compile_version(n, model, version, node=node, **options) for n in names_of(name, version)]


def compile_mirror(model: Model, node: Locality = NOWHERE, functions: Functions = NO_FUNCTIONS) -> list[Resource]:
    """Return the clusters that a model's copies go to, for nodes of a locality; empty if it has no mirror."""
    if model.mirror is None:
        return []
    # Without health checks of its own: they would check each endpoint twice, and a slow check would delay the cluster.
    version = replace(model.version(model.mirror.version), limits=copy_limits(model.mirror), health_check=None)
    limit = copy_timeout(model, model.mirror)
    name = mirror_name(model.name, version.name)
    with within_version(model, version.name):
        options: dict[str, Any] = {"limit": limit, "node": node, "functions": functions}
        return [compile_version(n, model.name, version, model.mirror, **options) for n in names_of(name, version)]


def compile_version(
    name: str,
    model: str,
    version: Version,
    mirror: Mirror | None = None,
    affinity: Affinity | None = None,
    *,
    limit: float = 0.0,
    to_the_last: bool = False,
    node: Locality = NOWHERE,
    functions: Functions = NO_FUNCTIONS,
) -> Resource:
    """Return a cluster of the version's endpoints, or of their gRPC ports, by its name. With `mirror` it is for copies.

    A try, or a copy, ends after `limit` seconds; 0 is no limit. `to_the_last` and `node` are those of
    `load_assignment`: the endpoints are in the cluster if they have DNS names.
    """
    protocol = Protocol.GRPC if has_grpc_name(name) else version.protocol
    cluster = cluster_pb2.Cluster(
        name=name,
        connect_timeout=duration(version.connect_timeout),
        # Inference takes long, and its duration varies. Least-request picks the server with fewer requests in flight, while
        # round-robin would queue a request behind a slow one although another server is idle.
        lb_policy=cluster_pb2.Cluster.LEAST_REQUEST,
        circuit_breakers=circuit_breakers(version),
        # No HTTP/2 keepalive: a gRPC server with its defaults answers pings every 30 s with GOAWAY. TCP's does not disturb it.
        upstream_connection_options=cluster_pb2.UpstreamConnectionOptions(
            tcp_keepalive=address_pb2.TcpKeepalive(
                keepalive_probes=_u32(3), keepalive_time=_u32(60), keepalive_interval=_u32(10)
            )
        ),
    )
    set_version(cluster.metadata, model, version.name)
    cluster.typed_extension_protocol_options[_HTTP_OPTIONS].CopyFrom(packed(_protocol(version, protocol, mirror, limit)))
    if mirror is not None:
        refuse_own_copies(cluster)
    if version.tls is not None:
        cluster.transport_socket.name = "envoy.transport_sockets.tls"
        cluster.transport_socket.typed_config.CopyFrom(packed(_tls(version.tls, protocol)))
    if version.health_check is not None:
        check = _health_check(version.health_check, version, version.health_host(model))
        if protocol is not version.protocol and version.tls is not None and version.protocol is Protocol.HTTP1:
            check.tls_options.alpn_protocols.append("http/1.1")  # it asks the main port, and not the gRPC port
        cluster.health_checks.append(check)
        # Otherwise Envoy keeps an endpoint that was removed for as long as it answers health checks.
        cluster.ignore_health_on_host_removal = True
    if version.outlier_detection is not None:
        cluster.outlier_detection.CopyFrom(_outlier_detection(version.outlier_detection))
    if affinity is not None:
        set_affinity(cluster, affinity)
    if version.has_dns_endpoints:
        cluster.type = cluster_pb2.Cluster.STRICT_DNS
        cluster.dns_lookup_family = cluster_pb2.Cluster.V4_PREFERRED
        cluster.load_assignment.CopyFrom(load_assignment(name, version, node, to_the_last=to_the_last))
        return resource(CLUSTER, patched_cluster(version, cluster, functions), _secrets(version))
    cluster.type = cluster_pb2.Cluster.EDS
    cluster.eds_cluster_config.eds_config.CopyFrom(over_ads())
    return resource(CLUSTER, patched_cluster(version, cluster, functions), [(ENDPOINTS, name), *_secrets(version)])


def _secrets(version: Version) -> list[tuple[str, str]]:
    """Return references to the secrets that the cluster of a version names."""
    tls, credential = version.tls, version.credential
    names = [tls.ca_certificates if not tls.insecure_skip_verify else "", tls.client_certificate] if tls else []
    if credential is not None:
        names.append(credential_name(credential))
    return [(SECRET, name) for name in names if name]


def upload_limit(timeout: float) -> float:
    """Return the limit of a whole try, with its upload, in seconds. `timeout` is that of the model's requests; 0 is no limit.

    The `timeout` of the route begins when the request is complete. A request that this limit ends is no error of the model
    server in Envoy's statistics. So it is a little longer: then `timeout` ends the requests whose uploads were quick.
    """
    return timeout + max(0.1, timeout / 10) if timeout else 0.0


def _protocol(version: Version, protocol: Protocol, mirror: Mirror | None, limit: float) -> Any:
    # Explicit, so that Envoy never chooses by the protocol of the client.
    options = http_protocol_options_pb2.HttpProtocolOptions()
    if limit:
        options.common_http_protocol_options.max_stream_duration.CopyFrom(duration(limit))
    if protocol is Protocol.HTTP1:
        options.common_http_protocol_options.idle_timeout.CopyFrom(duration(_http1_idle(version)))
        options.explicit_http_config.http_protocol_options.CopyFrom(protocol_pb2.Http1ProtocolOptions(enable_trailers=True))
    else:
        # WebSockets reach a server that speaks HTTP/2 as extended CONNECT. gRPC servers have none.
        http2 = protocol_pb2.Http2ProtocolOptions(allow_connect=protocol is Protocol.HTTP2)
        options.explicit_http_config.http2_protocol_options.CopyFrom(http2)
    if protocol is not version.protocol:
        version = replace(version, rewrite=None)  # the path of a gRPC call is the name of its method
    options.http_filters.extend(upstream_filters(version, copy_filters(mirror) if mirror is not None else ()))
    return options


def _http1_idle(version: Version) -> float:
    return max(_HTTP1_IDLE, version.health_check.timeout + 1 if version.health_check else 0.0)


def circuit_breakers(version: Version) -> Any:
    """Return the limits of a version on one Envoy."""
    limits = version.limits
    return circuit_breaker_pb2.CircuitBreakers(
        thresholds=[
            circuit_breaker_pb2.CircuitBreakers.Thresholds(
                max_connections=_u32(limits.max_connections),
                max_pending_requests=_u32(limits.max_pending_requests),
                max_requests=_u32(limits.max_requests),
                max_retries=_u32(limits.max_retries),
            )
        ]
    )


def _tls(tls: UpstreamTls, protocol: Protocol) -> Any:
    context = tls_pb2.UpstreamTlsContext()
    common = context.common_tls_context
    common.alpn_protocols.append("http/1.1" if protocol is Protocol.HTTP1 else "h2")
    # SNI must be a name (RFC 6066, section 3). The certificate may still be verified against an address.
    if not is_ip(tls.server_name):
        context.sni = tls.server_name
    if tls.client_certificate:
        common.tls_certificate_sds_secret_configs.append(over_sds(tls.client_certificate))
    if tls.insecure_skip_verify:
        return context
    validation = common.validation_context
    if tls.ca_certificates:
        # The authorities are sent as a Secret. The name that the certificate must have is set here.
        common.combined_validation_context.validation_context_sds_secret_config.CopyFrom(over_sds(tls.ca_certificates))
        validation = common.combined_validation_context.default_validation_context
    elif tls.ca_certificates_pem:
        validation.trusted_ca.inline_string = tls.ca_certificates_pem
    else:
        validation.trusted_ca.filename = SYSTEM_AUTHORITIES
    san = common_pb2.SubjectAltNameMatcher
    validation.match_typed_subject_alt_names.add(
        san_type=san.IP_ADDRESS if is_ip(tls.server_name) else san.DNS,
        matcher=string_pb2.StringMatcher(exact=tls.server_name),
    )
    return context


def _health_check(check: HealthCheck, version: Version, host: str) -> Any:
    # The same interval without traffic: green must be known to be healthy before its first request, and by default Envoy
    # would check it only once a minute.
    message = health_check_pb2.HealthCheck(
        timeout=duration(check.timeout),
        interval=duration(check.interval),
        no_traffic_interval=duration(check.interval),
        unhealthy_threshold=_u32(check.unhealthy_threshold),
        healthy_threshold=_u32(check.healthy_threshold),
    )
    headers = header_options(version.request_headers)
    if version.protocol is Protocol.GRPC:
        message.grpc_health_check.authority = host
        message.grpc_health_check.initial_metadata.extend(headers)
        return message
    message.http_health_check.host = host
    message.http_health_check.path = check.path
    message.http_health_check.request_headers_to_add.extend(headers)
    if version.protocol is Protocol.HTTP2:
        message.http_health_check.codec_client_type = http_pb2.CodecClientType.HTTP2
    return message


def _outlier_detection(outlier: OutlierDetection) -> Any:
    # Ejection never leaves a version without endpoints. `always_eject_one_host` is off, so a single endpoint is not ejected
    # below 100 %. If fewer than half are left, Envoy uses all of them (`healthy_panic_threshold`, 50 % by default).
    return outlier_detection_pb2.OutlierDetection(
        consecutive_gateway_failure=_u32(outlier.consecutive_failures),
        enforcing_consecutive_gateway_failure=_u32(100),
        # Envoy's other reasons to eject, on by default: any 5xx, which a model may answer to a bad input; and success rates.
        enforcing_consecutive_5xx=_u32(0),
        enforcing_success_rate=_u32(0),
        base_ejection_time=duration(outlier.ejection_time),
        # Envoy refuses a base time above the maximum, which is 300 s by default.
        max_ejection_time=duration(max(300.0, outlier.ejection_time)),
        max_ejection_percent=_u32(outlier.max_ejection_percent),
    )


def _u32(value: int) -> Any:
    return wrappers_pb2.UInt32Value(value=value)

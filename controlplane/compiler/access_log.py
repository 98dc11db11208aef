"""Access logs: the sink of a gateway's log and the fields of an entry.

An entry has the path without its query, and no header of the client except those in `_FIELDS`. So keys in queries, credentials
and the headers that identify users are not logged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import protocol_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.access_loggers.grpc.v3 import als_pb2
from envoy.extensions.access_loggers.stream.v3 import stream_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from controlplane.compiler.message import duration, packed, resource, socket_address
from controlplane.compiler.who import FALLBACK, MODEL, NAMESPACE, REVISION, VERSION
from controlplane.domain import Gateway, is_ip
from controlplane.envoy_types import CLUSTER
from controlplane.snapshot import Resource

_COLLECTOR = "/access-log"

# The fields of an entry in JSON. A field without a value is null.
_FIELDS: Mapping[str, str] = {
    "time": "%START_TIME%",
    "model": MODEL,
    "version": VERSION,
    "fallback": FALLBACK,
    "revision": REVISION,
    "method": "%REQ(:METHOD)%",
    "path": "%PATH(NQ)%",
    "host": "%REQ(:AUTHORITY)%",
    "protocol": "%PROTOCOL%",
    "response_code": "%RESPONSE_CODE%",
    "response_flags": "%RESPONSE_FLAGS%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "grpc_status": "%GRPC_STATUS%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "time_to_first_byte": "%RESPONSE_DURATION%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "user_agent": "%REQ(USER-AGENT)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "trace": "%REQ(TRACEPARENT)%",
}


def collector_name(gateway: Gateway) -> str:
    """Return the name of the cluster of the collector. No model's cluster has it: those of mirrors end in `/mirror`."""
    return f"{gateway.resource_name}{_COLLECTOR}"


def access_log(gateway: Gateway) -> Any:
    """Return the configuration of a gateway's access log, which it must have."""
    log = gateway.access_log
    assert log is not None
    if log.grpc is not None:
        return _logger("envoy.access_loggers.http_grpc", _grpc(gateway, log.grpc.log_name))
    if log.file is not None:
        return _logger("envoy.access_loggers.file", _with_fields(file_pb2.FileAccessLog(path=log.file.path)))
    return _logger("envoy.access_loggers.stdout", _with_fields(stream_pb2.StdoutAccessLog()))


def is_collector(cluster: str) -> bool:
    """Return True if a cluster of this name is a collector's."""
    return cluster.startswith(f"{Gateway.collection}/") and cluster.endswith(_COLLECTOR)


def compile_collector(gateway: Gateway) -> list[Resource]:
    """Return the cluster of the collector that gets a gateway's access log; empty if there is none."""
    if gateway.access_log is None or gateway.access_log.grpc is None:
        return []
    sink = gateway.access_log.grpc
    name = collector_name(gateway)
    kind = cluster_pb2.Cluster.STATIC if is_ip(sink.host) else cluster_pb2.Cluster.STRICT_DNS
    cluster = cluster_pb2.Cluster(name=name, connect_timeout=duration(5), type=kind)
    if kind == cluster_pb2.Cluster.STRICT_DNS:
        cluster.dns_lookup_family = cluster_pb2.Cluster.V4_PREFERRED
    options = http_protocol_options_pb2.HttpProtocolOptions()
    options.explicit_http_config.http2_protocol_options.CopyFrom(protocol_pb2.Http2ProtocolOptions())
    cluster.typed_extension_protocol_options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"].CopyFrom(
        packed(options)
    )
    cluster.load_assignment.cluster_name = name
    endpoint = cluster.load_assignment.endpoints.add().lb_endpoints.add().endpoint
    endpoint.address.CopyFrom(socket_address(sink.host, sink.port))
    return [resource(CLUSTER, cluster)]


def _logger(name: str, config: Any) -> Any:
    return accesslog_pb2.AccessLog(name=name, typed_config=packed(config))


def _with_fields(config: Any) -> Any:
    """Return the configuration of a logger with the fields of an entry in JSON."""
    config.log_format.json_format.update(_FIELDS)
    return config


def _grpc(gateway: Gateway, log_name: str) -> Any:
    """Return a logger for the gRPC service. Its entries have Envoy's own fields, and ours as custom tags."""
    config = als_pb2.HttpGrpcAccessLogConfig()
    common = config.common_config
    common.log_name = log_name or gateway.name
    common.transport_api_version = 2  # V3
    common.grpc_service.envoy_grpc.cluster_name = collector_name(gateway)
    # On Envoy 1.36 a tag can't read the metadata of a virtual host, which has the revision.
    for key in ("model", "version"):
        tag = common.custom_tags.add(tag=key)
        tag.metadata.kind.cluster.SetInParent()
        tag.metadata.metadata_key.key = NAMESPACE
        tag.metadata.metadata_key.path.add(key=key)
    tag = common.custom_tags.add(tag="fallback")
    tag.metadata.kind.host.SetInParent()
    tag.metadata.metadata_key.key = NAMESPACE
    tag.metadata.metadata_key.path.add(key="fallback")
    if gateway.answered_by_header:
        config.additional_response_headers_to_log.append(gateway.answered_by_header)
    return config

"""Conversion of versions to messages and back."""

from __future__ import annotations

from functools import partial

from controlplane.api.convert.names import collected, duration, label, number, seconds
from controlplane.api.convert.patch import patch_to_proto, patches_from_proto
from controlplane.api.convert.rewrite import rewrite_from_proto
from controlplane.api.convert.upstream_request import credential_from_proto, request_headers_from_proto, set_requests
from controlplane.domain import (
    ConnectionLimits,
    Endpoint,
    HealthCheck,
    OutlierDetection,
    Protocol,
    Secret,
    UpstreamTls,
    Version,
)
from controlplane.domain.checks import check_port
from controlplane.domain.collections import resource_name
from controlplane.errors import Collector, invalid
from controlplane.generated.turnout.v1 import model_pb2

# Seconds.
_DEFAULT_CONNECT_TIMEOUT = 5.0

_PROTOCOLS = {
    model_pb2.PROTOCOL_UNSPECIFIED: Protocol.HTTP1,
    model_pb2.PROTOCOL_HTTP1: Protocol.HTTP1,
    model_pb2.PROTOCOL_HTTP2: Protocol.HTTP2,
    model_pb2.PROTOCOL_GRPC: Protocol.GRPC,
}
_PROTOCOL_NUMBERS = {
    Protocol.HTTP1: model_pb2.PROTOCOL_HTTP1,
    Protocol.HTTP2: model_pb2.PROTOCOL_HTTP2,
    Protocol.GRPC: model_pb2.PROTOCOL_GRPC,
}


def version_to_proto(version: Version) -> model_pb2.Version:
    """Return the message of a version."""
    proto = model_pb2.Version(
        name=version.name,
        endpoints=[_endpoint_to_proto(e) for e in version.endpoints],
        protocol=_PROTOCOL_NUMBERS[version.protocol],
        fallback=version.fallback,
    )
    if version.tls is not None:
        tls = version.tls
        proto.tls.CopyFrom(
            model_pb2.UpstreamTls(
                server_name=tls.server_name,
                ca_certificates_pem=tls.ca_certificates_pem,
                insecure_skip_verify=tls.insecure_skip_verify,
                ca_certificates=resource_name(Secret, tls.ca_certificates) if tls.ca_certificates else "",
                client_certificate=resource_name(Secret, tls.client_certificate) if tls.client_certificate else "",
            )
        )
    if version.health_check is not None:
        check = version.health_check
        proto.health_check.CopyFrom(
            model_pb2.HealthCheck(
                path=check.path,
                interval=duration(check.interval),
                timeout=duration(check.timeout),
                healthy_threshold=check.healthy_threshold,
                unhealthy_threshold=check.unhealthy_threshold,
            )
        )
    if version.outlier_detection is not None:
        outlier = version.outlier_detection
        proto.outlier_detection.CopyFrom(
            model_pb2.OutlierDetection(
                consecutive_failures=outlier.consecutive_failures,
                ejection_time=duration(outlier.ejection_time),
                max_ejection_percent=outlier.max_ejection_percent,
            )
        )
    if version.limits != ConnectionLimits():
        limits = version.limits
        proto.limits.CopyFrom(
            model_pb2.Limits(
                max_connections=limits.max_connections,
                max_pending_requests=limits.max_pending_requests,
                max_requests=limits.max_requests,
                max_retries=limits.max_retries,
            )
        )
    if version.connect_timeout != _DEFAULT_CONNECT_TIMEOUT:
        proto.connect_timeout.CopyFrom(duration(version.connect_timeout))
    set_requests(proto, version)
    proto.patches.extend(map(patch_to_proto, version.patches))
    return proto


def version_from_proto(proto: model_pb2.Version) -> Version:
    """Return the version of a message. Errors: INVALID_ARGUMENT with every wrong field, by its path in the version."""
    c = Collector()
    endpoints = [collected(c, f"endpoints[{i}]", partial(_endpoint, e)) for i, e in enumerate(proto.endpoints)]
    tls = health = outlier = rewrite = headers = credential = None
    if proto.HasField("tls"):
        tls = collected(c, "tls", lambda: _upstream_tls(proto.tls))
    if proto.HasField("health_check"):
        health = collected(c, "health_check", lambda: _health_check(proto.health_check))
    if proto.HasField("outlier_detection"):
        outlier = collected(c, "outlier_detection", lambda: _outlier_detection(proto.outlier_detection))
    if proto.HasField("rewrite"):
        rewrite = collected(c, "rewrite", lambda: rewrite_from_proto(proto.rewrite))
    if proto.HasField("request_headers"):
        headers = collected(c, "request_headers", lambda: request_headers_from_proto(proto.request_headers))
    if proto.HasField("credential"):
        credential = collected(c, "credential", lambda: credential_from_proto(proto.credential))
    patches = patches_from_proto(proto.patches, c)
    limits = collected(c, "limits", lambda: _limits(proto.limits))
    protocol = _PROTOCOLS.get(proto.protocol)
    with c.within(""):
        if protocol is None:
            raise invalid("protocol", f"{proto.protocol} is not a protocol: PROTOCOL_HTTP1, PROTOCOL_HTTP2 or PROTOCOL_GRPC")
    version = collected(
        c,
        "",
        lambda: Version(
            name=proto.name,
            endpoints=tuple(e for e in endpoints if e is not None) if None not in endpoints else (),
            protocol=protocol or Protocol.HTTP1,
            tls=tls,
            health_check=health,
            outlier_detection=outlier,
            limits=limits or ConnectionLimits(),
            connect_timeout=seconds(proto.connect_timeout) if proto.HasField("connect_timeout") else _DEFAULT_CONNECT_TIMEOUT,
            fallback=tuple(proto.fallback),
            host=proto.host,
            rewrite=rewrite,
            request_headers=headers,
            credential=credential,
            upstream_model=proto.upstream_model,
            patches=patches,
        ),
    )
    c.check()
    assert version is not None
    return version


def _endpoint_to_proto(endpoint: Endpoint) -> model_pb2.Endpoint:
    weight = endpoint.weight if endpoint.weight != 1 else None
    return model_pb2.Endpoint(
        host=endpoint.host,
        port=endpoint.port,
        weight=weight,
        region=endpoint.region,
        zone=endpoint.zone,
        grpc_port=endpoint.grpc_port or None,
    )


def _endpoint(proto: model_pb2.Endpoint) -> Endpoint:
    weight = proto.weight if proto.HasField("weight") else 1
    if proto.HasField("grpc_port"):
        check_port(proto.grpc_port, "grpc_port")
    return Endpoint(proto.host, proto.port, weight, proto.region, proto.zone, proto.grpc_port)


def _upstream_tls(proto: model_pb2.UpstreamTls) -> UpstreamTls:
    secrets = {
        field: label(getattr(proto, field), Secret, field) if getattr(proto, field) else ""
        for field in ("ca_certificates", "client_certificate")
    }
    return UpstreamTls(proto.server_name, proto.ca_certificates_pem, proto.insecure_skip_verify, **secrets)


def _health_check(proto: model_pb2.HealthCheck) -> HealthCheck:
    default = HealthCheck()
    return HealthCheck(
        path=proto.path or default.path,
        interval=seconds(proto.interval) if proto.HasField("interval") else default.interval,
        timeout=seconds(proto.timeout) if proto.HasField("timeout") else default.timeout,
        healthy_threshold=number(proto, "healthy_threshold", default),
        unhealthy_threshold=number(proto, "unhealthy_threshold", default),
    )


def _outlier_detection(proto: model_pb2.OutlierDetection) -> OutlierDetection:
    default = OutlierDetection()
    return OutlierDetection(
        consecutive_failures=number(proto, "consecutive_failures", default),
        ejection_time=seconds(proto.ejection_time) if proto.HasField("ejection_time") else default.ejection_time,
        max_ejection_percent=number(proto, "max_ejection_percent", default),
    )


def _limits(proto: model_pb2.Limits) -> ConnectionLimits:
    default = ConnectionLimits()
    return ConnectionLimits(
        max_connections=number(proto, "max_connections", default),
        max_pending_requests=number(proto, "max_pending_requests", default),
        max_requests=number(proto, "max_requests", default),
        max_retries=number(proto, "max_retries", default),
    )

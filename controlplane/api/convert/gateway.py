"""Conversion of gateways to messages and back."""

from __future__ import annotations

from functools import partial

from controlplane.api.convert.access_log import access_log_from_proto, access_log_to_proto
from controlplane.api.convert.converter import Converter
from controlplane.api.convert.cors import cors_from_proto, cors_to_proto
from controlplane.api.convert.names import collected, duration, label, number, seconds, set_meta
from controlplane.api.convert.patch import patch_to_proto, patches_from_proto
from controlplane.api.convert.rate_limit import rate_limiting_from_proto, rate_limiting_to_proto
from controlplane.domain import (
    BodyRouting,
    ErrorFormat,
    Gateway,
    GatewayTls,
    HeaderRouting,
    HostRouting,
    NodeSelector,
    PathRouting,
    Routing,
    Secret,
    TlsVersion,
)
from controlplane.domain.collections import resource_name
from controlplane.domain.revision import ObjectMeta
from controlplane.errors import Collector, invalid
from controlplane.generated.turnout.v1 import gateway_pb2

_TLS_VERSIONS = {
    gateway_pb2.TLS_VERSION_UNSPECIFIED: TlsVersion.TLS_1_2,
    gateway_pb2.TLS_VERSION_1_2: TlsVersion.TLS_1_2,
    gateway_pb2.TLS_VERSION_1_3: TlsVersion.TLS_1_3,
}
_TLS_VERSION_NUMBERS = {
    TlsVersion.TLS_1_2: gateway_pb2.TLS_VERSION_1_2,
    TlsVersion.TLS_1_3: gateway_pb2.TLS_VERSION_1_3,
}
_ERROR_FORMATS = {
    gateway_pb2.ERROR_FORMAT_UNSPECIFIED: None,
    gateway_pb2.ERROR_FORMAT_OPEN_INFERENCE: ErrorFormat.OPEN_INFERENCE,
    gateway_pb2.ERROR_FORMAT_OPENAI: ErrorFormat.OPENAI,
}
_ERROR_FORMAT_NUMBERS = {error_format: number for number, error_format in _ERROR_FORMATS.items()}


def gateway_to_proto(gateway: Gateway, meta: ObjectMeta | None = None) -> gateway_pb2.Gateway:
    """Return the message of a gateway. `meta` is None if the gateway is not stored."""
    proto = gateway_pb2.Gateway(name=gateway.resource_name, address=gateway.address, port=gateway.port)
    match gateway.routing:
        case PathRouting(segment, verbs):
            proto.path.CopyFrom(gateway_pb2.PathRouting(segment=segment, verbs=verbs))
        case HeaderRouting(name):
            proto.header.name = name
        case HostRouting():
            proto.host.SetInParent()
        case BodyRouting(max_body_bytes, default_model):
            proto.body.CopyFrom(gateway_pb2.BodyRouting(max_body_bytes=max_body_bytes, default_model=default_model))
    if gateway.nodes != NodeSelector():
        selector = gateway.nodes
        proto.nodes.CopyFrom(
            gateway_pb2.NodeSelector(
                clusters=selector.clusters,
                ids=selector.ids,
                metadata=dict(selector.metadata),
                regions=selector.regions,
                zones=selector.zones,
                sub_zones=selector.sub_zones,
            )
        )
    if gateway.tls is not None:
        tls = gateway.tls
        proto.tls.certificate = resource_name(Secret, tls.certificate)
        proto.tls.client_ca = resource_name(Secret, tls.client_ca) if tls.client_ca else ""
        proto.tls.min_version = _TLS_VERSION_NUMBERS[tls.min_version]
    if gateway.absent_after is not None:
        proto.absent_after.CopyFrom(duration(gateway.absent_after))
    proto.ephemeral = gateway.ephemeral
    if gateway.expected_nodes:
        proto.expected_nodes = gateway.expected_nodes
    if gateway.cors is not None:
        proto.cors.CopyFrom(cors_to_proto(gateway.cors))
    if gateway.access_log is not None:
        proto.access_log.CopyFrom(access_log_to_proto(gateway.access_log))
    proto.answered_by_header = gateway.answered_by_header
    proto.health_path = gateway.health_path
    proto.hide_models = gateway.hide_models
    if gateway.rate_limiting is not None:
        proto.rate_limiting.CopyFrom(rate_limiting_to_proto(gateway.rate_limiting))
    proto.error_format = _ERROR_FORMAT_NUMBERS[gateway.error_format]
    proto.patches.extend(map(patch_to_proto, gateway.patches))
    proto.patch_secrets.extend(resource_name(Secret, secret) for secret in gateway.patch_secrets)
    proto.labels.update(gateway.labels)
    set_meta(proto, meta)
    return proto


def gateway_from_proto(proto: gateway_pb2.Gateway) -> Gateway:
    """Return the gateway of a message. Errors: INVALID_ARGUMENT with every wrong field, by its path in the gateway."""
    c = Collector()
    name = collected(c, "", lambda: label(proto.name, Gateway, "name"))
    routing = collected(c, "", lambda: _routing(proto))
    tls = collected(c, "tls", lambda: _gateway_tls(proto.tls)) if proto.HasField("tls") else None
    cors = collected(c, "cors", lambda: cors_from_proto(proto.cors)) if proto.HasField("cors") else None
    log = collected(c, "access_log", lambda: access_log_from_proto(proto.access_log)) if proto.HasField("access_log") else None
    limiting = None
    if proto.HasField("rate_limiting"):
        limiting = collected(c, "rate_limiting", lambda: rate_limiting_from_proto(proto.rate_limiting))
    error_format = collected(c, "", lambda: _error_format(proto))
    patches = patches_from_proto(proto.patches, c)
    secrets = [collected(c, "", partial(label, s, Secret, f"patch_secrets[{i}]")) for i, s in enumerate(proto.patch_secrets)]
    # A part that is invalid is replaced by a placeholder, so that errors of the other parts are reported, too.
    gateway = collected(
        c,
        "",
        lambda: Gateway(
            name=name or "placeholder",
            port=proto.port,
            address=proto.address or "0.0.0.0",
            routing=routing or PathRouting(),
            nodes=NodeSelector(
                clusters=tuple(proto.nodes.clusters),
                ids=tuple(proto.nodes.ids),
                metadata=dict(proto.nodes.metadata),
                regions=tuple(proto.nodes.regions),
                zones=tuple(proto.nodes.zones),
                sub_zones=tuple(proto.nodes.sub_zones),
            ),
            tls=tls,
            absent_after=seconds(proto.absent_after) if proto.HasField("absent_after") else None,
            ephemeral=proto.ephemeral,
            expected_nodes=proto.expected_nodes,
            cors=cors,
            access_log=log,
            answered_by_header=proto.answered_by_header,
            health_path=proto.health_path,
            hide_models=proto.hide_models,
            rate_limiting=limiting,
            error_format=error_format,
            patches=patches,
            patch_secrets=tuple(secret for secret in secrets if secret is not None),
            labels=dict(proto.labels),
        ),
    )
    c.check()
    assert gateway is not None
    return gateway


def _gateway_tls(proto: gateway_pb2.GatewayTls) -> GatewayTls:
    version = _TLS_VERSIONS.get(proto.min_version)
    if version is None:
        raise invalid("min_version", f"{proto.min_version} is not a version of TLS: TLS_VERSION_1_2 or TLS_VERSION_1_3")
    certificate = label(proto.certificate, Secret, "certificate")
    return GatewayTls(certificate, label(proto.client_ca, Secret, "client_ca") if proto.client_ca else "", version)


def _error_format(proto: gateway_pb2.Gateway) -> ErrorFormat | None:
    if proto.error_format not in _ERROR_FORMATS:
        known = "ERROR_FORMAT_OPEN_INFERENCE or ERROR_FORMAT_OPENAI"
        raise invalid("error_format", f"{proto.error_format} is not a form of errors: {known}")
    return _ERROR_FORMATS[proto.error_format]


def _routing(proto: gateway_pb2.Gateway) -> Routing:
    """Return the routing of a gateway; unset, it is by path with its defaults."""
    c = Collector()
    routing: Routing | None
    match proto.WhichOneof("routing"):
        case "header":
            routing = collected(c, "header", lambda: HeaderRouting(proto.header.name))
        case "host":
            routing = HostRouting()
        case "body":
            max_body_bytes = number(proto.body, "max_body_bytes", BodyRouting())
            routing = collected(c, "body", lambda: BodyRouting(max_body_bytes, proto.body.default_model))
        case _:
            default = PathRouting()
            segment, verbs = number(proto.path, "segment", default), tuple(proto.path.verbs) or default.verbs
            routing = collected(c, "path", lambda: PathRouting(segment, verbs))
    c.check()
    assert routing is not None
    return routing


CONVERTER = Converter(lambda proto, live: gateway_from_proto(proto), gateway_to_proto)

"""Nouns as protos and back: names, defaults and units change, and nothing else.

Going in, what is unset takes the default that the proto's comment states, and everything that is wrong is gathered, each with
its path. Going out, names are full, and settings that are all at their defaults are left out as if they had not been set.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from controlplane import pem
from controlplane.errors import Collector, Error, failed, invalid, within
from controlplane.model import (
    WHOLE,
    CaCertificates,
    Endpoint,
    Gateway,
    GatewayTls,
    HeaderRouting,
    HealthCheck,
    HostRouting,
    Limits,
    Mirror,
    Model,
    NodeSelector,
    OutlierDetection,
    PathRewrite,
    PathRouting,
    Protocol,
    Retries,
    Routing,
    Secret,
    Sticky,
    Timeouts,
    TlsCertificate,
    TlsVersion,
    UpstreamTls,
    Version,
    check_label,
)
from controlplane.operator.v1 import gateway_pb2, model_pb2, secret_pb2
from controlplane.state import Kept

T = TypeVar("T")

_NANO = 10**9

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

_TLS_VERSIONS = {
    gateway_pb2.TLS_VERSION_UNSPECIFIED: TlsVersion.TLS_1_2,
    gateway_pb2.TLS_VERSION_1_2: TlsVersion.TLS_1_2,
    gateway_pb2.TLS_VERSION_1_3: TlsVersion.TLS_1_3,
}
_TLS_VERSION_NUMBERS = {
    TlsVersion.TLS_1_2: gateway_pb2.TLS_VERSION_1_2,
    TlsVersion.TLS_1_3: gateway_pb2.TLS_VERSION_1_3,
}


def label(name: str, collection: str, field: str) -> str:
    """`iris` of `iris` or `models/iris`; an error for the name of another collection."""
    if not name:
        raise invalid(field, f"is required: {collection}/NAME")
    given, slash, last = name.rpartition("/")
    if slash and given != collection:
        raise invalid(field, f"'{name[:80]}' is not the name of one of the {collection}: {collection}/NAME")
    return last


def timestamp(seconds: float) -> Timestamp:
    """A time in seconds since the epoch, to the microsecond."""
    micros = round(seconds * 1_000_000)
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1_000)


def duration(seconds: float) -> Duration:
    """Seconds as a Duration, to the nanosecond."""
    nanos = round(seconds * _NANO)
    return Duration(seconds=nanos // _NANO, nanos=nanos % _NANO)


def seconds(value: Duration) -> float:
    """A Duration in seconds: the float that is nearest to it."""
    return (value.seconds * _NANO + value.nanos) / _NANO


# ---------------------------------------------------------------------------------------------------------- gateways


def gateway_to_proto(gateway: Gateway, kept: Kept | None = None) -> gateway_pb2.Gateway:
    """The gateway as the API shows it; `kept` is None where it is not kept (yet)."""
    proto = gateway_pb2.Gateway(name=gateway.resource_name, address=gateway.address, port=gateway.port)
    match gateway.routing:
        case PathRouting(segment, verbs):
            proto.path.CopyFrom(gateway_pb2.PathRouting(segment=segment, verbs=verbs))
        case HeaderRouting(name):
            proto.header.name = name
        case HostRouting():
            proto.host.SetInParent()
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
        proto.tls.certificate = f"secrets/{tls.certificate}"
        proto.tls.client_ca = f"secrets/{tls.client_ca}" if tls.client_ca else ""
        proto.tls.min_version = _TLS_VERSION_NUMBERS[tls.min_version]
    if kept is not None:
        proto.etag = str(kept.revision)
        proto.create_time.CopyFrom(timestamp(kept.create_time))
        proto.update_time.CopyFrom(timestamp(kept.update_time))
    return proto


def gateway_from_proto(proto: gateway_pb2.Gateway) -> Gateway:
    """The gateway that a caller sent. Errors: INVALID_ARGUMENT with every field that is wrong, from the gateway down."""
    c = Collector()
    name = _tried(c, "", lambda: label(proto.name, "gateways", "name"))
    routing = _tried(c, "", lambda: _routing(proto))
    tls = _tried(c, "tls", lambda: _gateway_tls(proto.tls)) if proto.HasField("tls") else None
    # What could not be made has a stand-in, so that the rest is looked at too.
    gateway = _tried(
        c,
        "",
        lambda: Gateway(
            name=name or "stand-in",
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
        ),
    )
    c.check()
    assert gateway is not None
    return gateway


def _gateway_tls(proto: gateway_pb2.GatewayTls) -> GatewayTls:
    version = _TLS_VERSIONS.get(proto.min_version)
    if version is None:
        raise invalid("min_version", f"{proto.min_version} is not a version of TLS: TLS_VERSION_1_2 or TLS_VERSION_1_3")
    certificate = label(proto.certificate, "secrets", "certificate")
    return GatewayTls(certificate, label(proto.client_ca, "secrets", "client_ca") if proto.client_ca else "", version)


def _routing(proto: gateway_pb2.Gateway) -> Routing:
    c = Collector()
    routing: Routing | None
    match proto.WhichOneof("routing"):
        case "header":
            routing = _tried(c, "header", lambda: HeaderRouting(proto.header.name))
        case "host":
            routing = HostRouting()
        case _:
            default = PathRouting()
            path = proto.path
            routing = _tried(
                c, "path", lambda: PathRouting(_said(path, "segment", default), tuple(path.verbs) or default.verbs)
            )
    c.check()
    assert routing is not None
    return routing


# ------------------------------------------------------------------------------------------------------------ models


def model_to_proto(model: Model, kept: Kept | None = None) -> model_pb2.Model:
    """The model as the API shows it; `kept` is None where it is not kept (yet)."""
    proto = model_pb2.Model(
        name=model.resource_name,
        gateways=[f"gateways/{g}" for g in model.gateways],
        keys=model.keys,
        versions=[_version_to_proto(v) for v in model.versions],
        split=model.split,
        preview_header=model.preview_header,
    )
    if model.sticky is not None:
        if model.sticky.header:
            proto.sticky.header = model.sticky.header
        else:
            proto.sticky.cookie = model.sticky.cookie
    if model.mirror is not None:
        proto.mirror.CopyFrom(model_pb2.Mirror(version=model.mirror.version, basis_points=model.mirror.basis_points))
    if model.timeouts != Timeouts():
        proto.timeouts.request.CopyFrom(duration(model.timeouts.request))
        proto.timeouts.idle.CopyFrom(duration(model.timeouts.idle))
    if model.retries != Retries():
        proto.retries.attempts = model.retries.attempts
        proto.retries.unsafe = model.retries.unsafe
        if model.retries.per_try_timeout:
            proto.retries.per_try_timeout.CopyFrom(duration(model.retries.per_try_timeout))
    if model.rewrite is not None:
        proto.rewrite.CopyFrom(model_pb2.PathRewrite(prefix=model.rewrite.prefix, replacement=model.rewrite.replacement))
    if kept is not None:
        proto.etag = str(kept.revision)
        proto.create_time.CopyFrom(timestamp(kept.create_time))
        proto.update_time.CopyFrom(timestamp(kept.update_time))
    return proto


def model_from_proto(proto: model_pb2.Model, live: Model | None = None) -> Model:
    """The model that a caller sent; the split is that of `live` where none was sent.

    Errors: INVALID_ARGUMENT with every field that is wrong, from the model down; FAILED_PRECONDITION / VERSION_HAS_SHARE,
    NO_ENDPOINTS where the live split can't stay.
    """
    c = Collector()
    name = _tried(c, "", lambda: label(proto.name, "models", "name"))
    gateways = [
        _tried(c, "", partial(label, g, "gateways", f"gateways[{i}]")) or f"stand-in-{i}" for i, g in enumerate(proto.gateways)
    ]
    versions = [_tried(c, f"versions[{i}]", partial(_version, v)) or _stand_in(i, v) for i, v in enumerate(proto.versions)]
    sticky = _tried(c, "sticky", lambda: _sticky(proto.sticky)) if proto.HasField("sticky") else None
    timeouts = _tried(c, "timeouts", lambda: _timeouts(proto.timeouts))
    retries = _tried(c, "retries", lambda: _retries(proto.retries))
    rewrite = None
    if proto.HasField("rewrite"):
        rewrite = _tried(c, "rewrite", lambda: PathRewrite(proto.rewrite.prefix, proto.rewrite.replacement))
    mirror = None
    if proto.HasField("mirror"):
        mirror = _tried(c, "mirror", lambda: _mirror(proto.mirror))
    split = _tried(c, "", lambda: _split(proto, versions, live))
    model = _tried(
        c,
        "",
        lambda: Model(
            name=name or "stand-in",
            gateways=tuple(gateways),
            versions=tuple(versions),
            split=split or {},
            keys=tuple(proto.keys),
            sticky=sticky,
            preview_header=proto.preview_header,
            mirror=mirror,
            timeouts=timeouts or Timeouts(),
            retries=retries or Retries(),
            rewrite=rewrite,
        ),
        skip="split" if split is None else None,
    )
    c.check()
    assert model is not None
    return model


def _stand_in(index: int, proto: model_pb2.Version) -> Version:
    """For a version that could not be made, so that the rest of its model is looked at too."""
    endpoints = (Endpoint("127.0.0.1", 1),)
    try:
        return Version(proto.name, endpoints)
    except Error:
        return Version(f"stand-in-{index}", endpoints)


def _split(proto: model_pb2.Model, versions: list[Version], live: Model | None) -> dict[str, int]:
    if proto.split:
        return dict(proto.split)
    if live is None:
        if len(versions) > 1:
            names = ", ".join(v.name for v in versions)
            raise invalid("split", f"is required, because there are several versions: {names}", "SPLIT_REQUIRED")
        return {v.name: WHOLE for v in versions}
    index = {v.name: i for i, v in enumerate(versions)}
    c = Collector()
    for name, share in live.split.items():
        with c.within(""):
            if name not in index:
                raise failed(
                    "VERSION_HAS_SHARE",
                    "versions",
                    f"version '{name}' has {share:,} of 10,000 basis points of the traffic: switch it away first, then leave "
                    "the version out",
                )
            if not versions[index[name]].endpoints:
                raise failed(
                    "NO_ENDPOINTS",
                    f"versions[{index[name]}].endpoints",
                    f"version '{name}' has {share:,} of 10,000 basis points of the traffic and would have no endpoint left: "
                    "switch it away first",
                )
    c.check()
    return dict(live.split)


def _version_to_proto(version: Version) -> model_pb2.Version:
    proto = model_pb2.Version(
        name=version.name,
        endpoints=[
            model_pb2.Endpoint(host=e.host, port=e.port, weight=e.weight if e.weight != 1 else None) for e in version.endpoints
        ],
        protocol=_PROTOCOL_NUMBERS[version.protocol],
    )
    if version.tls is not None:
        tls = version.tls
        proto.tls.CopyFrom(
            model_pb2.UpstreamTls(
                server_name=tls.server_name,
                ca_certificates_pem=tls.ca_certificates_pem,
                insecure_skip_verify=tls.insecure_skip_verify,
                ca_certificates=f"secrets/{tls.ca_certificates}" if tls.ca_certificates else "",
                client_certificate=f"secrets/{tls.client_certificate}" if tls.client_certificate else "",
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
    if version.limits != Limits():
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
    return proto


_DEFAULT_CONNECT_TIMEOUT = 5.0


def _version(proto: model_pb2.Version) -> Version:
    c = Collector()
    endpoints = [_tried(c, f"endpoints[{i}]", partial(_endpoint, e)) for i, e in enumerate(proto.endpoints)]
    tls = health = outlier = None
    if proto.HasField("tls"):
        tls = _tried(c, "tls", lambda: _upstream_tls(proto.tls))
    if proto.HasField("health_check"):
        health = _tried(c, "health_check", lambda: _health_check(proto.health_check))
    if proto.HasField("outlier_detection"):
        outlier = _tried(c, "outlier_detection", lambda: _outlier_detection(proto.outlier_detection))
    limits = _tried(c, "limits", lambda: _limits(proto.limits))
    protocol = _PROTOCOLS.get(proto.protocol)
    with c.within(""):
        if protocol is None:
            raise invalid("protocol", f"{proto.protocol} is not a protocol: HTTP1, HTTP2 or GRPC")
    version = _tried(
        c,
        "",
        lambda: Version(
            name=proto.name,
            endpoints=tuple(e for e in endpoints if e is not None) if None not in endpoints else (),
            protocol=protocol or Protocol.HTTP1,
            tls=tls,
            health_check=health,
            outlier_detection=outlier,
            limits=limits or Limits(),
            connect_timeout=seconds(proto.connect_timeout) if proto.HasField("connect_timeout") else _DEFAULT_CONNECT_TIMEOUT,
        ),
    )
    c.check()
    assert version is not None
    return version


def _said(proto: Message, field: str, default: object) -> int:
    """A number that was sent, also when it is 0; otherwise that of `default`."""
    return int(getattr(proto if proto.HasField(field) else default, field))


def _endpoint(proto: model_pb2.Endpoint) -> Endpoint:
    return Endpoint(proto.host, proto.port, proto.weight if proto.HasField("weight") else 1)


def _mirror(proto: model_pb2.Mirror) -> Mirror:
    return Mirror(proto.version, proto.basis_points if proto.HasField("basis_points") else WHOLE)


def _upstream_tls(proto: model_pb2.UpstreamTls) -> UpstreamTls:
    named = {
        field: label(getattr(proto, field), "secrets", field) if getattr(proto, field) else ""
        for field in ("ca_certificates", "client_certificate")
    }
    return UpstreamTls(proto.server_name, proto.ca_certificates_pem, proto.insecure_skip_verify, **named)


def _health_check(proto: model_pb2.HealthCheck) -> HealthCheck:
    default = HealthCheck()
    return HealthCheck(
        path=proto.path or default.path,
        interval=seconds(proto.interval) if proto.HasField("interval") else default.interval,
        timeout=seconds(proto.timeout) if proto.HasField("timeout") else default.timeout,
        healthy_threshold=_said(proto, "healthy_threshold", default),
        unhealthy_threshold=_said(proto, "unhealthy_threshold", default),
    )


def _outlier_detection(proto: model_pb2.OutlierDetection) -> OutlierDetection:
    default = OutlierDetection()
    return OutlierDetection(
        consecutive_failures=_said(proto, "consecutive_failures", default),
        ejection_time=seconds(proto.ejection_time) if proto.HasField("ejection_time") else default.ejection_time,
        max_ejection_percent=_said(proto, "max_ejection_percent", default),
    )


def _limits(proto: model_pb2.Limits) -> Limits:
    default = Limits()
    return Limits(
        max_connections=_said(proto, "max_connections", default),
        max_pending_requests=_said(proto, "max_pending_requests", default),
        max_requests=_said(proto, "max_requests", default),
        max_retries=_said(proto, "max_retries", default),
    )


def _sticky(proto: model_pb2.Sticky) -> Sticky:
    return Sticky(header=proto.header, cookie=proto.cookie)


def _timeouts(proto: model_pb2.Timeouts) -> Timeouts:
    default = Timeouts()
    return Timeouts(
        request=seconds(proto.request) if proto.HasField("request") else default.request,
        idle=seconds(proto.idle) if proto.HasField("idle") else default.idle,
    )


def _retries(proto: model_pb2.Retries) -> Retries:
    default = Retries()
    return Retries(
        attempts=_said(proto, "attempts", default),
        unsafe=proto.unsafe,
        per_try_timeout=seconds(proto.per_try_timeout),
    )


# ----------------------------------------------------------------------------------------------------------- secrets


def secret_to_proto(secret: Secret, kept: Kept | None = None) -> secret_pb2.Secret:
    """The secret as the API shows it: without its private key. `kept` is None where it is not kept (yet)."""
    proto = secret_pb2.Secret(name=secret.resource_name)
    match secret.content:
        case TlsCertificate() as tls:
            proto.tls_certificate.certificate_chain_pem = tls.certificate_chain_pem
            proto.tls_certificate.leaf.CopyFrom(_certificate_to_proto(tls.leaf))
        case CaCertificates() as ca:
            proto.ca_certificates.ca_certificates_pem = ca.ca_certificates_pem
            proto.ca_certificates.certificates.extend(map(_certificate_to_proto, ca.certificates))
    if kept is not None:
        proto.etag = str(kept.revision)
        proto.create_time.CopyFrom(timestamp(kept.create_time))
        proto.update_time.CopyFrom(timestamp(kept.update_time))
    return proto


def _certificate_to_proto(certificate: pem.Certificate) -> secret_pb2.Certificate:
    return secret_pb2.Certificate(
        sha256=certificate.sha256,
        subject=certificate.subject,
        sans=certificate.sans,
        not_before=timestamp(certificate.not_before),
        not_after=timestamp(certificate.not_after),
    )


def secret_from_proto(proto: secret_pb2.Secret, live: Secret | None = None) -> Secret:
    """The secret that a caller sent; a private key that it leaves out is that of `live`.

    Errors: INVALID_ARGUMENT with every field that is wrong, from the secret down; none says what a key is.
    """
    c = Collector()
    name = _tried(c, "", lambda: label(proto.name, "secrets", "name"))
    with c.within(""):
        check_label(name or "stand-in")
    content = _tried(c, "", lambda: _content(proto, live))
    c.check()
    assert name is not None
    assert content is not None
    return Secret(name, content)


def _content(proto: secret_pb2.Secret, live: Secret | None) -> TlsCertificate | CaCertificates:
    match proto.WhichOneof("content"):
        case "tls_certificate":
            sent = proto.tls_certificate
            with within("tls_certificate"):
                if sent.private_key_pem or live is None or not isinstance(live.content, TlsCertificate):
                    return TlsCertificate(sent.certificate_chain_pem, sent.private_key_pem)
                return _with_kept_key(sent.certificate_chain_pem, live.content.private_key_pem)
        case "ca_certificates":
            with within("ca_certificates"):
                return CaCertificates(proto.ca_certificates.ca_certificates_pem)
        case _:
            raise invalid("", "say either tls_certificate or ca_certificates")


def _with_kept_key(chain: str, key: str) -> TlsCertificate:
    try:
        return TlsCertificate(chain, key)
    except Error as error:
        if error.reason != "KEY_MISMATCH":
            raise
    raise invalid("private_key_pem", "is required: the key that is kept is not that of this certificate", "KEY_REQUIRED")


def check_sound(proto: secret_pb2.Secret) -> None:
    """Nothing when the private key that a caller sent is sound: it takes longest of all that is asked. Errors: INVALID."""
    if proto.tls_certificate.private_key_pem:
        pem.check_sound(proto.tls_certificate.private_key_pem, "tls_certificate.private_key_pem")


def _tried(c: Collector, prefix: str, make: Callable[[], T], skip: str | None = None) -> T | None:
    """What `make` makes; None when it can't, and why is with the collector. Nothing is said of the field `skip`."""
    with c.within(prefix):
        return make()
    if skip is not None and c.errors:
        last = c.errors.pop()
        kept = tuple(v for v in last.violations if v.field != skip and not v.field.startswith(f"{skip}."))
        if kept:
            c.errors.append(
                type(last)(last.code, last.reason, "; ".join(f"{v.field}: {v.description}" for v in kept), violations=kept)
            )
    return None

"""The nouns of desired state: immutable, and valid by construction.

A constructor raises `Error` for an invalid value, with the path of the field as the operator API names it. So every object
that exists is valid in itself. `consistency.py` checks that objects fit together: for example, that a model's gateway exists,
and that two gateways don't share an address. Durations are in seconds, shares in basis points.
"""

from __future__ import annotations

from controlplane.domain.access_log import AccessLog, FileSink, GrpcSink, StdoutSink
from controlplane.domain.affinity import Affinity
from controlplane.domain.checks import (
    BOUNDS,
    FULL_SHARE,
    check_distinct,
    check_header,
    check_label,
    check_path,
    check_port,
    check_range,
    is_ip,
)
from controlplane.domain.collections import Object
from controlplane.domain.cors import Cors
from controlplane.domain.gateway import (
    BodyRouting,
    ErrorFormat,
    Gateway,
    GatewayTls,
    HeaderRouting,
    HostRouting,
    Locality,
    NodeSelector,
    PathRouting,
    Routing,
    TlsVersion,
)
from controlplane.domain.model import Mirror, Model, Retries, Sticky, Timeouts
from controlplane.domain.patch import Patch, PatchTarget
from controlplane.domain.rate_limit import RateLimit, RateLimiting
from controlplane.domain.rewrite import PathRewrite
from controlplane.domain.secret import SECRET_KINDS, CaCertificates, OpaqueValue, Secret, TlsCertificate
from controlplane.domain.upstream_request import Credential, RequestHeaders
from controlplane.domain.version import (
    ConnectionLimits,
    Endpoint,
    HealthCheck,
    OutlierDetection,
    Protocol,
    UpstreamTls,
    Version,
)

__all__ = [
    "BOUNDS",
    "FULL_SHARE",
    "SECRET_KINDS",
    "AccessLog",
    "Affinity",
    "BodyRouting",
    "CaCertificates",
    "ConnectionLimits",
    "Cors",
    "Credential",
    "Endpoint",
    "ErrorFormat",
    "FileSink",
    "Gateway",
    "GatewayTls",
    "GrpcSink",
    "HeaderRouting",
    "HealthCheck",
    "HostRouting",
    "Locality",
    "Mirror",
    "Model",
    "NodeSelector",
    "Object",
    "OpaqueValue",
    "OutlierDetection",
    "Patch",
    "PatchTarget",
    "PathRewrite",
    "PathRouting",
    "Protocol",
    "RateLimit",
    "RateLimiting",
    "RequestHeaders",
    "Retries",
    "Routing",
    "Secret",
    "StdoutSink",
    "Sticky",
    "Timeouts",
    "TlsCertificate",
    "TlsVersion",
    "UpstreamTls",
    "Version",
    "check_distinct",
    "check_header",
    "check_label",
    "check_path",
    "check_port",
    "check_range",
    "is_ip",
]

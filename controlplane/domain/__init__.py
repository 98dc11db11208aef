"""The nouns of desired state: frozen, and valid by construction.

An object that exists is valid in itself. `consistency.py` checks that objects fit together: a model's gateway exists, two
gateways don't share an address. A constructor raises `Error` for a wrong value, with the path of the field, named as in the
operator API. Durations are seconds; shares are basis points.
"""

from __future__ import annotations

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
from controlplane.domain.gateway import (
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
from controlplane.domain.model import Mirror, Model, PathRewrite, Retries, Sticky, Timeouts
from controlplane.domain.secret import SECRET_KINDS, CaCertificates, Secret, TlsCertificate
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
    "CaCertificates",
    "ConnectionLimits",
    "Endpoint",
    "Gateway",
    "GatewayTls",
    "HeaderRouting",
    "HealthCheck",
    "HostRouting",
    "Locality",
    "Mirror",
    "Model",
    "NodeSelector",
    "Object",
    "OutlierDetection",
    "PathRewrite",
    "PathRouting",
    "Protocol",
    "Retries",
    "Routing",
    "Secret",
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

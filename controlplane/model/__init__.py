"""The nouns of desired state: frozen, and valid by construction.

An object that exists is valid in itself; whether objects fit together (a model's gateway exists, two gateways don't share
an address) is `state.py`'s. A constructor that is given something wrong raises `Error` with the path of the field, named
as in the operator API. Durations are seconds; shares are basis points.
"""

from __future__ import annotations

from controlplane.model.checks import (
    BOUNDS,
    WHOLE,
    check_distinct,
    check_header,
    check_label,
    check_path,
    check_port,
    check_range,
    is_ip,
)
from controlplane.model.gateway import (
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
from controlplane.model.model import Mirror, Model, PathRewrite, Retries, Sticky, Timeouts
from controlplane.model.secret import KINDS, CaCertificates, Secret, TlsCertificate
from controlplane.model.version import Endpoint, HealthCheck, Limits, OutlierDetection, Protocol, UpstreamTls, Version

__all__ = [
    "BOUNDS",
    "KINDS",
    "WHOLE",
    "CaCertificates",
    "Endpoint",
    "Gateway",
    "GatewayTls",
    "HeaderRouting",
    "HealthCheck",
    "HostRouting",
    "Limits",
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

Object = Gateway | Model | Secret

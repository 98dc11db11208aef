"""Versions: the deployables of a model, and how Envoy reaches them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from controlplane.domain.checks import (
    HOST,
    check_authority,
    check_bounds,
    check_label,
    check_path,
    check_port,
    check_range,
    host_port,
    is_ip,
)
from controlplane.domain.patch import VERSION_TARGETS, Patch, check_patches
from controlplane.domain.rewrite import PathRewrite
from controlplane.domain.upstream_request import Credential, RequestHeaders
from controlplane.errors import Collector, invalid

# A model's name in the body of a request: any printable text, because model servers have no common form.
_UPSTREAM_MODEL = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,256}")


class Protocol(Enum):
    """The protocol of a version's endpoints."""

    HTTP1 = "http1"
    HTTP2 = "http2"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of a version."""

    host: str  # an IP address or a DNS name
    port: int
    weight: int = 1
    region: str = ""
    zone: str = ""  # within the region
    grpc_port: int = 0  # where the server listens for gRPC, beside `port` for HTTP; 0: it has no such port

    def __post_init__(self) -> None:
        if not self.host:
            raise invalid("host", "is required")
        if not is_ip(self.host) and (not HOST.fullmatch(self.host) or self.host.replace(".", "").isdigit()):
            raise invalid("host", f"'{self.host[:80]}' is neither an IP address nor a DNS name")
        check_port(self.port)
        if self.grpc_port:
            check_port(self.grpc_port, "grpc_port")
        check_bounds(self, "weight")
        for part in ("region", "zone"):
            check_range(len(getattr(self, part)), 0, 100, part, " characters")

    @property
    def host_port(self) -> str:
        """The address as text, like `10.0.0.5:80` or `[::1]:80`."""
        return host_port(self.host, self.port)


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """The TLS settings towards endpoints."""

    server_name: str = ""  # the DNS name that certificates are verified against; empty only with `insecure_skip_verify`
    ca_certificates_pem: str = ""  # empty: the authorities of the secret `ca_certificates`
    insecure_skip_verify: bool = False
    ca_certificates: str = ""  # the label of a secret; empty: the authorities of the Envoy's system
    client_certificate: str = ""  # the label of a secret; empty: no certificate

    def __post_init__(self) -> None:
        if not self.server_name and not self.insecure_skip_verify:
            raise invalid("server_name", "is required: the DNS name that the endpoints' certificate is for")
        if self.server_name and not HOST.fullmatch(self.server_name):
            raise invalid("server_name", f"'{self.server_name[:80]}' is not a DNS name")
        if self.ca_certificates_pem:
            # Imported here because it takes a tenth of the start of `turnout`, and few commands read certificates.
            from controlplane.domain import pem

            pem.certificates(self.ca_certificates_pem, "ca_certificates_pem")
        if self.ca_certificates_pem and self.ca_certificates:
            raise invalid("ca_certificates", "can't be set together with ca_certificates_pem: choose one of them")
        for name in ("ca_certificates", "client_certificate"):
            if getattr(self, name):
                check_label(getattr(self, name), name)


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """Active health check of each endpoint."""

    path: str = "/v2/health/ready"
    interval: float = 5.0
    timeout: float = 2.0
    healthy_threshold: int = 1
    unhealthy_threshold: int = 3

    def __post_init__(self) -> None:
        check_path(self.path, "path")
        check_range(self.interval, 0.1, 3600, "interval", " s")
        # The timeout is short, because a new cluster is warmed until its first checks have ended. Envoy ACKs no clusters
        # before that, so other models wait too.
        check_range(self.timeout, 0.01, 60, "timeout", " s")
        check_bounds(self, "healthy_threshold", "unhealthy_threshold")


@dataclass(frozen=True, slots=True)
class OutlierDetection:
    """Ejection of endpoints whose real requests fail."""

    consecutive_failures: int = 5
    ejection_time: float = 30.0
    max_ejection_percent: int = 50

    def __post_init__(self) -> None:
        check_bounds(self, "consecutive_failures")
        check_range(self.ejection_time, 0.1, 3600, "ejection_time", " s")
        check_bounds(self, "max_ejection_percent")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Circuit breakers of one version on one Envoy."""

    max_connections: int = 65_536
    max_pending_requests: int = 65_536
    max_requests: int = 65_536
    max_retries: int = 128

    def __post_init__(self) -> None:
        check_bounds(self, "max_connections", "max_pending_requests", "max_requests", "max_retries")


@dataclass(frozen=True, slots=True)
class Version:
    """One deployable of a model."""

    name: str
    endpoints: tuple[Endpoint, ...] = ()  # all IP addresses or all DNS names; empty: the version can't get a share
    protocol: Protocol = Protocol.HTTP1
    tls: UpstreamTls | None = None
    health_check: HealthCheck | None = None
    outlier_detection: OutlierDetection | None = None
    limits: ConnectionLimits = ConnectionLimits()
    connect_timeout: float = 5.0
    fallback: tuple[str, ...] = ()  # versions of the same model that take over, in this order
    host: str = ""  # the Host header of requests, with or without a port; empty: the client's
    rewrite: PathRewrite | None = None  # is applied after the model's
    request_headers: RequestHeaders | None = None
    credential: Credential | None = None
    upstream_model: str = ""  # the name that replaces the model's name in requests; empty: the client's stays
    patches: tuple[Patch, ...] = ()

    def __post_init__(self) -> None:
        check_label(self.name)
        check_range(self.connect_timeout, 0.001, 60, "connect_timeout", " s")
        self._check_endpoints()
        self._check_requests()
        check_patches(self.patches, VERSION_TARGETS)

    def _check_endpoints(self) -> None:
        check_range(len(self.endpoints), 0, 10_000, "endpoints")
        seen: set[tuple[str, int]] = set()
        grpc: set[tuple[str, int]] = set()
        for i, e in enumerate(self.endpoints):
            if (e.host, e.port) in seen:
                raise invalid(f"endpoints[{i}]", f"'{e.host}:{e.port}' is named twice", "DUPLICATE")
            seen.add((e.host, e.port))
            if is_ip(e.host) != is_ip(self.endpoints[0].host):
                raise invalid(f"endpoints[{i}].host", "one version has either IP addresses or DNS names, not both")
            self._check_grpc_port(f"endpoints[{i}].grpc_port", e, grpc)

    def _check_grpc_port(self, field: str, endpoint: Endpoint, seen: set[tuple[str, int]]) -> None:
        """Check the gRPC port of an endpoint. `seen` has those of the endpoints before it."""
        if bool(endpoint.grpc_port) != self.has_grpc_ports:
            raise invalid(field, "either all endpoints of a version have a gRPC port, or none: gRPC calls go to all of them")
        if not endpoint.grpc_port:
            return
        if self.protocol is Protocol.GRPC:
            raise invalid(
                field, "can't be set with protocol GRPC, whose `port` is for gRPC: name the protocol of the other port"
            )
        if (endpoint.host, endpoint.grpc_port) in seen:
            raise invalid(field, f"'{host_port(endpoint.host, endpoint.grpc_port)}' is named twice", "DUPLICATE")
        seen.add((endpoint.host, endpoint.grpc_port))

    def _check_requests(self) -> None:
        c = Collector()
        if self.host:
            with c.within(""):
                check_authority(self.host, "host")
        if self.upstream_model:
            with c.within(""):
                if not _UPSTREAM_MODEL.fullmatch(self.upstream_model):
                    raise invalid("upstream_model", "must be 1 to 256 characters, and no control characters")
                if self.protocol is Protocol.GRPC:
                    raise invalid("upstream_model", "can't be used with gRPC: its bodies are not JSON")
                if self.has_grpc_ports:
                    raise invalid(
                        "upstream_model", "can't be used with `grpc_port`: Envoy can't replace the name in gRPC calls"
                    )
        if self.credential is not None and self.request_headers is not None:
            header = self.credential.header
            with c.within("request_headers"):
                if header in self.request_headers.set:
                    raise invalid(f"set.{header}", "is the header of the credential: choose one of them")
                if header in self.request_headers.remove:
                    raise invalid("remove", f"'{header}' is the header of the credential, which replaces the client's anyway")
        c.check()

    @property
    def has_dns_endpoints(self) -> bool:
        """True if the endpoints have DNS names, which Envoy must resolve."""
        return bool(self.endpoints) and not is_ip(self.endpoints[0].host)

    @property
    def has_grpc_ports(self) -> bool:
        """True if the endpoints have a port for gRPC beside the one for HTTP: all of them, or none."""
        return bool(self.endpoints) and self.endpoints[0].grpc_port > 0

    def health_host(self, model: str) -> str:
        """Return the Host header of health checks. Envoy's default is the cluster's name; many servers refuse its slash."""
        return self.host or (self.tls.server_name if self.tls else "") or model

    @property
    def changes_requests(self) -> bool:
        """True if requests to the version differ from those that clients sent."""
        return bool(self.host or self.rewrite or self.request_headers or self.credential or self.upstream_model)

    @property
    def secrets(self) -> tuple[tuple[str, str, str], ...]:
        """The secrets that the version names: for each the path of the field, the secret's label, and its kind."""
        tls, credential = self.tls, self.credential
        named = (
            ("tls.ca_certificates", tls.ca_certificates if tls else "", "ca_certificates"),
            ("tls.client_certificate", tls.client_certificate if tls else "", "tls_certificate"),
            ("credential.secret", credential.secret if credential else "", "opaque"),
        )
        return tuple(entry for entry in named if entry[1])

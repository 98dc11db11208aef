"""The nouns of desired state: frozen, and valid by construction.

An object that exists is valid in itself; whether objects fit together (a model's gateway exists, two gateways don't share
an address) is `state.py`'s. A constructor that is given something wrong raises `Error` with the path of the field, named
as in the operator API. Durations are seconds; shares are basis points.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from controlplane import pem
from controlplane.errors import Collector, invalid

WHOLE = 10_000  # basis points

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?(\.[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?)*\.?", re.I)
_KEY = re.compile(r"[A-Za-z0-9._~-]{1,253}")
_HEADER = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,100}")
_VERB = re.compile(r"[A-Za-z0-9_-]{1,63}")

# Headers that carry the request itself, or the connection; none of them names a model, a user or a version.
_RESERVED_HEADERS = frozenset({"host", "connection", "content-length", "transfer-encoding", "te", "upgrade"})


def check_label(value: str, name: str = "name") -> None:
    """A DNS label (RFC 1123), or an error."""
    if not _LABEL.fullmatch(value):
        said = f"'{value[:80]}' is not a DNS label" if value else "is required"
        raise invalid(name, f"{said}: 1 to 63 of a-z, 0-9 and '-', a letter or digit at both ends")


def check_port(value: int, name: str = "port") -> None:
    """A TCP port, or an error."""
    if not 1 <= value <= 65535:
        raise invalid(name, f"{value} is not a port: 1 to 65535")


def check_header(value: str, name: str) -> None:
    """The lower-case name of an ordinary request header, or an error."""
    if not value:
        raise invalid(name, "is required")
    if value != value.lower():
        raise invalid(name, f"'{value[:80]}' must be in lower case: '{value[:80].lower()}'")
    if not _HEADER.fullmatch(value) or value in _RESERVED_HEADERS or value.startswith(("x-envoy-", "x-turnout-")):
        raise invalid(name, f"'{value[:80]}' can't be used as a header name here")


def check_range(value: float, low: float, high: float, name: str, unit: str = "") -> None:
    """A number within bounds, or an error that states them."""
    if not low <= value <= high:
        said, least, most = (f"{_written(number)}{unit}" for number in (value, low, high))
        raise invalid(name, f"{said} is out of range: {least} to {most}")


def _written(number: float) -> str:
    """`415,576,000,000`, `0.1`: in full, as people write it."""
    return f"{number:,.9f}".rstrip("0").rstrip(".") if number % 1 else f"{int(number):,}"


def check_distinct(values: Iterable[str], name: str) -> None:
    """No value twice, or an error at the second one."""
    seen: set[str] = set()
    for i, value in enumerate(values):
        if value in seen:
            raise invalid(f"{name}[{i}]", f"'{value}' is named twice", "DUPLICATE")
        seen.add(value)


def is_ip(host: str) -> bool:
    """Whether `host` is an IP address rather than a DNS name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


# ---------------------------------------------------------------------------------------------------------- gateways


@dataclass(frozen=True, slots=True)
class PathRouting:
    """The model's key is a segment of the path."""

    segment: int = 3  # counted from 1
    verbs: tuple[str, ...] = ("predict", "classify", "regress", "explain")

    def __post_init__(self) -> None:
        check_range(self.segment, 1, 16, "segment")
        check_range(len(self.verbs), 0, 16, "verbs")
        check_distinct(self.verbs, "verbs")
        for i, verb in enumerate(self.verbs):
            if not _VERB.fullmatch(verb):
                raise invalid(f"verbs[{i}]", f"'{verb[:80]}' is not a verb: 1 to 63 letters, digits, '_' or '-'")


@dataclass(frozen=True, slots=True)
class HeaderRouting:
    """The model's key is the whole value of a header."""

    name: str

    def __post_init__(self) -> None:
        check_header(self.name, "name")


@dataclass(frozen=True, slots=True)
class HostRouting:
    """The model's key is the host of the request, without its port."""


Routing = PathRouting | HeaderRouting | HostRouting


@dataclass(frozen=True, slots=True)
class Locality:
    """Where a node says that it is; each part may be empty."""

    region: str = ""
    zone: str = ""
    sub_zone: str = ""


@dataclass(frozen=True, slots=True)
class NodeSelector:
    """Chooses nodes: every part that is not empty must hold. Empty chooses all."""

    clusters: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    regions: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    sub_zones: tuple[str, ...] = ()

    def matches(self, cluster: str, node_id: str, metadata: Mapping[str, object], locality: Locality = Locality()) -> bool:
        """Whether a node with these is chosen."""
        return (
            (not self.clusters or cluster in self.clusters)
            and (not self.ids or node_id in self.ids)
            and all(metadata.get(k) == v for k, v in self.metadata.items())
            and (not self.regions or locality.region in self.regions)
            and (not self.zones or locality.zone in self.zones)
            and (not self.sub_zones or locality.sub_zone in self.sub_zones)
        )

    def overlaps(self, other: NodeSelector) -> bool:
        """Whether some node could be chosen by both."""
        return (
            _meet(self.clusters, other.clusters)
            and _meet(self.ids, other.ids)
            and _meet(self.regions, other.regions)
            and _meet(self.zones, other.zones)
            and _meet(self.sub_zones, other.sub_zones)
            and all(other.metadata.get(k, v) == v for k, v in self.metadata.items())
        )


def _meet(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    return not a or not b or not set(a).isdisjoint(b)


class TlsVersion(Enum):
    """A version of TLS."""

    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


@dataclass(frozen=True, slots=True)
class GatewayTls:
    """How a gateway shows itself to clients, and whom it lets in. Secrets are named by their labels."""

    certificate: str
    client_ca: str = ""  # empty: clients show no certificate
    min_version: TlsVersion = TlsVersion.TLS_1_2

    def __post_init__(self) -> None:
        check_label(self.certificate, "certificate")
        if self.client_ca:
            check_label(self.client_ca, "client_ca")


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where requests enter a group of Envoys."""

    name: str  # the label alone: `edge`, not `gateways/edge`
    port: int
    address: str = "0.0.0.0"
    routing: Routing = PathRouting()
    nodes: NodeSelector = NodeSelector()
    tls: GatewayTls | None = None

    def __post_init__(self) -> None:
        c = Collector()
        with c.within(""):
            check_label(self.name)
        with c.within(""):
            check_port(self.port)
        with c.within(""):
            if not is_ip(self.address):
                raise invalid("address", f"'{self.address[:80]}' is not an IP address; 0.0.0.0 is every IPv4 interface")
            # One way of writing it: two that write one address differently must meet.
            object.__setattr__(self, "address", str(ipaddress.ip_address(self.address)))
        c.check()

    @property
    def resource_name(self) -> str:
        return f"gateways/{self.name}"

    @property
    def secrets(self) -> tuple[tuple[str, str, type[TlsCertificate | CaCertificates]], ...]:
        """The secrets that it needs: (where it is named, label, kind)."""
        if self.tls is None:
            return ()
        certificate = ("tls.certificate", self.tls.certificate, TlsCertificate)
        return (certificate, ("tls.client_ca", self.tls.client_ca, CaCertificates)) if self.tls.client_ca else (certificate,)

    def shares_address(self, other: Gateway) -> bool:
        """Whether the two could want the same socket on some node."""
        any_address = {"0.0.0.0", "::"}
        same = self.address == other.address or self.address in any_address or other.address in any_address
        return same and self.port == other.port and self.nodes.overlaps(other.nodes)


# ------------------------------------------------------------------------------------------------------------ models


class Protocol(Enum):
    """What the endpoints of a version speak."""

    HTTP1 = "http1"
    HTTP2 = "http2"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address that a version answers at."""

    host: str  # an IP address or a DNS name
    port: int
    weight: int = 1

    def __post_init__(self) -> None:
        if not self.host:
            raise invalid("host", "is required")
        if not is_ip(self.host) and (not _HOST.fullmatch(self.host) or self.host.replace(".", "").isdigit()):
            raise invalid("host", f"'{self.host[:80]}' is neither an IP address nor a DNS name")
        check_port(self.port)
        check_range(self.weight, 1, 10_000, "weight")


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """How endpoints are reached over TLS. Either certificates are verified, against a name, or that is waived aloud."""

    server_name: str = ""
    ca_certificates_pem: str = ""  # empty: those of `ca_certificates`
    insecure_skip_verify: bool = False
    ca_certificates: str = ""  # the label of a secret; empty: the Envoy's system's
    client_certificate: str = ""  # the label of a secret; empty: endpoints are shown none

    def __post_init__(self) -> None:
        if not self.server_name and not self.insecure_skip_verify:
            raise invalid("server_name", "is required: the name that the certificate must carry")
        if self.server_name and not _HOST.fullmatch(self.server_name):
            raise invalid("server_name", f"'{self.server_name[:80]}' is not a DNS name")
        if self.ca_certificates_pem:
            pem.certificates(self.ca_certificates_pem, "ca_certificates_pem")
        if self.ca_certificates_pem and self.ca_certificates:
            raise invalid("ca_certificates", "can't be given together with ca_certificates_pem: choose one of them")
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
        # A new cluster warms until its first checks are through, and an Envoy ACKs no clusters before: other models wait too.
        check_range(self.timeout, 0.01, 60, "timeout", " s")
        check_range(self.healthy_threshold, 1, 100, "healthy_threshold")
        check_range(self.unhealthy_threshold, 1, 100, "unhealthy_threshold")


@dataclass(frozen=True, slots=True)
class OutlierDetection:
    """Ejection of endpoints where real requests fail."""

    consecutive_failures: int = 5
    ejection_time: float = 30.0
    max_ejection_percent: int = 50

    def __post_init__(self) -> None:
        check_range(self.consecutive_failures, 1, 10_000, "consecutive_failures")
        check_range(self.ejection_time, 0.1, 3600, "ejection_time", " s")
        check_range(self.max_ejection_percent, 1, 100, "max_ejection_percent")


@dataclass(frozen=True, slots=True)
class Limits:
    """Circuit breakers of one version on one Envoy."""

    max_connections: int = 65_536
    max_pending_requests: int = 65_536
    max_requests: int = 65_536
    max_retries: int = 128

    def __post_init__(self) -> None:
        for name in ("max_connections", "max_pending_requests", "max_requests"):
            check_range(getattr(self, name), 1, 2**31 - 1, name)
        check_range(self.max_retries, 0, 2**31 - 1, "max_retries")


@dataclass(frozen=True, slots=True)
class Version:
    """One deployable of a model."""

    name: str
    endpoints: tuple[Endpoint, ...] = ()  # all IPs or all DNS names; empty: it can't be given a share
    protocol: Protocol = Protocol.HTTP1
    tls: UpstreamTls | None = None
    health_check: HealthCheck | None = None
    outlier_detection: OutlierDetection | None = None
    limits: Limits = Limits()
    connect_timeout: float = 5.0

    def __post_init__(self) -> None:
        check_label(self.name)
        check_range(self.connect_timeout, 0.001, 60, "connect_timeout", " s")
        check_range(len(self.endpoints), 0, 10_000, "endpoints")
        seen: set[tuple[str, int]] = set()
        for i, e in enumerate(self.endpoints):
            if (e.host, e.port) in seen:
                raise invalid(f"endpoints[{i}]", f"'{e.host}:{e.port}' is named twice", "DUPLICATE")
            seen.add((e.host, e.port))
            if is_ip(e.host) != is_ip(self.endpoints[0].host):
                raise invalid(f"endpoints[{i}].host", "one version has either IP addresses or DNS names, not both")

    @property
    def has_dns_endpoints(self) -> bool:
        """Whether Envoy must resolve the endpoints."""
        return bool(self.endpoints) and not is_ip(self.endpoints[0].host)


@dataclass(frozen=True, slots=True)
class Sticky:
    """What identifies a user: exactly one of the two."""

    header: str = ""
    cookie: str = ""

    def __post_init__(self) -> None:
        if bool(self.header) == bool(self.cookie):
            raise invalid("", "say either a header or a cookie that identifies the user")
        if self.header:
            check_header(self.header, "header")
        elif not _HEADER.fullmatch(self.cookie.lower()):
            raise invalid("cookie", f"'{self.cookie[:80]}' is not the name of a cookie")


@dataclass(frozen=True, slots=True)
class Mirror:
    """A copy of requests for a second version."""

    version: str
    basis_points: int = WHOLE

    def __post_init__(self) -> None:
        if not self.version:
            raise invalid("version", "is required")
        check_range(self.basis_points, 1, WHOLE, "basis_points")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Bounds on one request; 0 is no limit."""

    request: float = 0.0
    idle: float = 300.0

    def __post_init__(self) -> None:
        check_range(self.request, 0, 86_400, "request", " s")
        check_range(self.idle, 0, 86_400, "idle", " s")


@dataclass(frozen=True, slots=True)
class Retries:
    """When a failed request is tried again."""

    attempts: int = 2
    unsafe: bool = False  # also where the upstream may have acted on the request
    per_try_timeout: float = 0.0  # 0: none

    def __post_init__(self) -> None:
        check_range(self.attempts, 0, 10, "attempts")
        check_range(self.per_try_timeout, 0, 86_400, "per_try_timeout", " s")
        if self.per_try_timeout and not self.unsafe:
            raise invalid("per_try_timeout", "a try that timed out may have been acted on: it needs `unsafe: true`")


@dataclass(frozen=True, slots=True)
class PathRewrite:
    """Replaces the start of the path, up to the end of a segment, on its way to the model server."""

    prefix: str
    replacement: str

    def __post_init__(self) -> None:
        check_path(self.prefix, "prefix")
        check_path(self.replacement, "replacement")


def check_path(value: str, name: str) -> None:
    """The start of a URL's path, or an error."""
    if not value:
        raise invalid(name, "is required")
    if not re.fullmatch(r"/[!-\"$->@-~]{0,1023}", value):
        raise invalid(name, f"'{value[:80]}' is not a path: it opens with '/', without spaces, '?' or '#'")


@dataclass(frozen=True, slots=True)
class Model:
    """What users call.

    Always true: the shares sum to 10,000, none is 0, and each is of a version that exists and has endpoints.
    """

    name: str  # the label alone
    gateways: tuple[str, ...]  # labels
    versions: tuple[Version, ...]
    split: Mapping[str, int]  # version -> basis points
    keys: tuple[str, ...] = ()  # empty: the name
    sticky: Sticky | None = None
    preview_header: str = ""
    mirror: Mirror | None = None
    timeouts: Timeouts = Timeouts()
    retries: Retries = Retries()
    rewrite: PathRewrite | None = None

    def __post_init__(self) -> None:
        c = Collector()
        with c.within(""):
            check_label(self.name)
        with c.within(""):
            if not self.gateways:
                raise invalid("gateways", "at least one gateway is required")
            for i, gateway in enumerate(self.gateways):
                check_label(gateway, f"gateways[{i}]")
            check_distinct(self.gateways, "gateways")
        with c.within(""):
            if not self.versions:
                raise invalid("versions", "at least one version is required")
            check_range(len(self.versions), 1, 64, "versions")
            check_distinct((v.name for v in self.versions), "versions")
        with c.within(""):
            self._check_keys()
        if self.versions:
            with c.within(""):
                object.__setattr__(self, "split", self._checked_split())
        with c.within(""):
            if self.preview_header:
                check_header(self.preview_header, "preview_header")
        if self.mirror is not None:
            with c.within("mirror"):
                if not self.version(self.mirror.version, "version").endpoints:
                    raise invalid("version", f"'{self.mirror.version}' has no endpoints to send copies to")
        c.check()

    def _check_keys(self) -> None:
        check_range(len(self.keys), 0, 32, "keys")
        c = Collector()
        with c.within(""):
            check_distinct(self.keys, "keys")
        for i, key in enumerate(self.keys):
            with c.within(""):
                if not _KEY.fullmatch(key):
                    raise invalid(f"keys[{i}]", f"'{key[:80]}' is not a key: 1 to 253 letters, digits, '.', '_', '~' or '-'")
        c.check()

    def _checked_split(self) -> Mapping[str, int]:
        for name, share in self.split.items():
            self.version(name, f"split.{name}")
            check_range(share, 0, WHOLE, f"split.{name}")
        total = sum(self.split.values())
        if total != WHOLE:
            raise invalid("split", f"the shares sum to {total:,}: they are basis points and must sum to 10,000")
        for name, share in self.split.items():
            if share and not self.version(name).endpoints:
                raise invalid(
                    f"split.{name}", f"version '{name}' has no endpoints, so it can't be given a share", "NO_ENDPOINTS"
                )
        # Versions' order, zeros left out: equal splits are equal values.
        return {v.name: self.split[v.name] for v in self.versions if self.split.get(v.name)}

    @property
    def resource_name(self) -> str:
        return f"models/{self.name}"

    @property
    def route_keys(self) -> tuple[str, ...]:
        """What a request calls this model by; never empty."""
        return self.keys or (self.name,)

    def version(self, name: str, at: str = "version") -> Version:
        """The version of that name; an error at the field `at` when there is none."""
        for version in self.versions:
            if version.name == name:
                return version
        exist = ", ".join(v.name for v in self.versions)
        raise invalid(at, f"there is no version '{name[:80]}'; there are: {exist}", "UNKNOWN_VERSION")

    @property
    def secrets(self) -> tuple[tuple[str, str, type[TlsCertificate | CaCertificates]], ...]:
        """The secrets that its versions need: (where it is named, label, kind)."""
        return tuple(
            (f"versions[{i}].tls.{at}", name, kind)
            for i, version in enumerate(self.versions)
            if version.tls is not None
            for at, name, kind in (
                ("ca_certificates", version.tls.ca_certificates, CaCertificates),
                ("client_certificate", version.tls.client_certificate, TlsCertificate),
            )
            if name
        )


# ----------------------------------------------------------------------------------------------------------- secrets


@dataclass(frozen=True, slots=True)
class TlsCertificate:
    """A certificate, with what leads from it to its authority, and its private key.

    Always true: the key is that of the first certificate; both are written one way, so that equal ones are equal values.
    """

    certificate_chain_pem: str = field(repr=False)
    private_key_pem: str = field(repr=False)
    chain: tuple[pem.Certificate, ...] = field(init=False, compare=False)  # the leaf first; never empty

    def __post_init__(self) -> None:
        chain, key, described = pem.key_pair(
            self.certificate_chain_pem, self.private_key_pem, "certificate_chain_pem", "private_key_pem"
        )
        object.__setattr__(self, "certificate_chain_pem", chain)
        object.__setattr__(self, "private_key_pem", key)
        object.__setattr__(self, "chain", described)

    @property
    def leaf(self) -> pem.Certificate:
        return self.chain[0]


@dataclass(frozen=True, slots=True)
class CaCertificates:
    """Certificates of authorities."""

    ca_certificates_pem: str = field(repr=False)
    certificates: tuple[pem.Certificate, ...] = field(init=False, compare=False)  # never empty

    def __post_init__(self) -> None:
        written, described = pem.certificates(self.ca_certificates_pem, "ca_certificates_pem")
        object.__setattr__(self, "ca_certificates_pem", written)
        object.__setattr__(self, "certificates", described)


@dataclass(frozen=True, slots=True)
class Secret:
    """What TLS needs. It has no text form that shows a key."""

    name: str  # the label alone
    content: TlsCertificate | CaCertificates

    def __post_init__(self) -> None:
        check_label(self.name)

    @property
    def resource_name(self) -> str:
        return f"secrets/{self.name}"


KINDS: Mapping[type[TlsCertificate | CaCertificates], str] = {
    TlsCertificate: "tls_certificate",
    CaCertificates: "ca_certificates",
}

Object = Gateway | Model | Secret

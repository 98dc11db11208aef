"""Gateways: where requests enter a group of Envoys, and which Envoys belong to the group."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from controlplane.domain.access_log import AccessLog
from controlplane.domain.checks import (
    check_bounds,
    check_distinct,
    check_header,
    check_label,
    check_model_name,
    check_path,
    check_port,
    check_range,
    check_response_header,
    host_port,
    is_ip,
)
from controlplane.domain.cors import Cors
from controlplane.domain.object_labels import checked_labels
from controlplane.domain.patch import GATEWAY_TARGETS, Patch, check_patches
from controlplane.domain.rate_limit import RateLimiting
from controlplane.domain.references import Reference
from controlplane.domain.secret import Secret
from controlplane.errors import Collector, invalid

# A node without a stream is released after this time by default, and by default if its gateway is ephemeral. Seconds.
ABSENT_AFTER, EPHEMERAL_ABSENT_AFTER = 24 * 3600.0, 300.0
# The shortest and the longest `absent_after`. Seconds.
_MIN_ABSENT_AFTER, _MAX_ABSENT_AFTER = 1.0, 366 * 24 * 3600.0

_VERB = re.compile(r"[A-Za-z0-9_-]{1,63}")


@dataclass(frozen=True, slots=True)
class PathRouting:
    """The model's key is a segment of the path."""

    segment: int = 3  # counted from 1
    verbs: tuple[str, ...] = ("predict", "classify", "regress", "explain")

    def __post_init__(self) -> None:
        check_bounds(self, "segment")
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


@dataclass(frozen=True, slots=True)
class BodyRouting:
    """The model's key is the field `model` of the body, as in the APIs of OpenAI, Anthropic and Ollama."""

    max_body_bytes: int = 64 << 20  # a larger body that names its model is refused
    default_model: str = ""  # the key of the model that gets requests that name no model; "": they are refused

    def __post_init__(self) -> None:
        c = Collector()
        with c.within(""):
            check_bounds(self, "max_body_bytes")
        with c.within(""):
            if self.default_model:
                check_model_name(self.default_model, "default_model")
        c.check()


Routing = PathRouting | HeaderRouting | HostRouting | BodyRouting

# The classes of `routing`, by the name that the API and the store use.
ROUTING_KINDS: Mapping[str, type[Routing]] = {
    "path": PathRouting,
    "header": HeaderRouting,
    "host": HostRouting,
    "body": BodyRouting,
}


@dataclass(frozen=True, slots=True)
class Locality:
    """The place of a node, as it reports it. Each part may be empty."""

    region: str = ""
    zone: str = ""
    sub_zone: str = ""


@dataclass(frozen=True, slots=True)
class NodeSelector:
    """Selects nodes: every field that is not empty must match. An empty selector selects all nodes."""

    clusters: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    regions: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    sub_zones: tuple[str, ...] = ()

    def matches(
        self, cluster: str, node_id: str, metadata: Mapping[str, object] | None, locality: Locality = Locality()
    ) -> bool:
        """Return True when a node with these facts is selected. If its metadata is None, it is not known, and matches."""
        return (
            (not self.clusters or cluster in self.clusters)
            and (not self.ids or node_id in self.ids)
            and (metadata is None or not self.metadata or all(metadata.get(k) == v for k, v in self.metadata.items()))
            and (not self.regions or locality.region in self.regions)
            and (not self.zones or locality.zone in self.zones)
            and (not self.sub_zones or locality.sub_zone in self.sub_zones)
        )

    def overlaps(self, other: NodeSelector) -> bool:
        """Return True when both could select the same node."""
        return (
            _overlap(self.clusters, other.clusters)
            and _overlap(self.ids, other.ids)
            and _overlap(self.regions, other.regions)
            and _overlap(self.zones, other.zones)
            and _overlap(self.sub_zones, other.sub_zones)
            and all(other.metadata.get(k, v) == v for k, v in self.metadata.items())
        )


def _overlap(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    """Return True when one value can match both fields. An empty field matches every value."""
    return not a or not b or not set(a).isdisjoint(b)


class TlsVersion(Enum):
    """A version of TLS."""

    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


class ErrorFormat(Enum):
    """The form of the errors with which Envoy itself answers."""

    OPEN_INFERENCE = "open_inference"  # {"error": "TEXT"}
    OPENAI = "openai"  # {"error": {"message": "TEXT", "type": …, "code": …}}


@dataclass(frozen=True, slots=True)
class GatewayTls:
    """The TLS settings towards clients."""

    certificate: str  # the label of a secret
    client_ca: str = ""  # the label of a secret; empty: clients need no certificate
    min_version: TlsVersion = TlsVersion.TLS_1_2

    def __post_init__(self) -> None:
        check_label(self.certificate, "certificate")
        if self.client_ca:
            check_label(self.client_ca, "client_ca")


@dataclass(frozen=True, slots=True)
class Gateway:
    """The place where requests enter a group of Envoys: address, TLS, and how a request names its model."""

    collection: ClassVar[str] = "gateways"

    name: str  # the label alone: `edge`, not `gateways/edge`
    port: int
    address: str = "0.0.0.0"
    routing: Routing = PathRouting()
    nodes: NodeSelector = NodeSelector()
    tls: GatewayTls | None = None
    # A node that has had no stream for so many seconds is released. None: the default, which depends on `ephemeral`.
    absent_after: float | None = None
    ephemeral: bool = False
    # The number of nodes that the gateway should have. 0: no expectation.
    expected_nodes: int = 0
    # Identifies the gateway in the keys of its scopes, and stays when the gateway moves. "": its present address. The writer
    # sets it (`domain/scopes.py`); it is no part of the API.
    scope_id: str = ""
    cors: Cors | None = None
    access_log: AccessLog | None = None
    # The response header that says who answered. "": none.
    answered_by_header: str = ""
    # The path at which the Envoy answers for itself. "": none.
    health_path: str = ""
    # True: clients can't list the gateway's models.
    hide_models: bool = False
    # None: the gateway's models can't have rate limits.
    rate_limiting: RateLimiting | None = None
    # None: the form that clients of this kind of routing expect, `errors`.
    error_format: ErrorFormat | None = None
    patches: tuple[Patch, ...] = ()
    patch_secrets: tuple[str, ...] = ()  # labels of secrets that patches may name
    labels: Mapping[str, str] = field(default_factory=dict)  # for rules of access

    def __post_init__(self) -> None:
        c = Collector()
        with c.within(""):
            check_label(self.name)
        with c.within(""):
            check_port(self.port)
        with c.within(""):
            if not is_ip(self.address):
                raise invalid("address", f"'{self.address[:80]}' is not an IP address; 0.0.0.0 is every IPv4 interface")
            # Normalised, so that `shares_address` recognises one address in two spellings.
            object.__setattr__(self, "address", str(ipaddress.ip_address(self.address)))
        with c.within(""):
            if self.absent_after is not None:
                check_range(self.absent_after, _MIN_ABSENT_AFTER, _MAX_ABSENT_AFTER, "absent_after", " s")
        with c.within(""):
            check_bounds(self, "expected_nodes")
        with c.within("rate_limiting"):
            if self.rate_limiting is not None and self.rate_limiting.divide_by_expected_nodes and not self.expected_nodes:
                raise invalid("divide_by_expected_nodes", "needs the gateway's `expected_nodes`, the number to divide by")
        with c.within(""):
            # Parts of a scope's key are separated by slashes.
            if "/" in self.scope_id:
                raise invalid("scope_id", f"'{self.scope_id[:80]}' contains a slash")
        with c.within(""):
            if self.answered_by_header:
                check_response_header(self.answered_by_header, "answered_by_header")
        with c.within(""):
            if self.health_path:
                check_path(self.health_path, "health_path")
        with c.within(""):
            check_patches(self.patches, GATEWAY_TARGETS)
        with c.within(""):
            object.__setattr__(self, "labels", checked_labels(self.labels))
        with c.within(""):
            check_range(len(self.patch_secrets), 0, 16, "patch_secrets")
            check_distinct(self.patch_secrets, "patch_secrets")
            for i, label in enumerate(self.patch_secrets):
                check_label(label, f"patch_secrets[{i}]")
        c.check()

    @property
    def resource_name(self) -> str:
        return f"{self.collection}/{self.name}"

    @property
    def host_port(self) -> str:
        """The address and port that the gateway binds, like `127.0.0.1:80` or `[::1]:80`."""
        return host_port(self.address, self.port)

    @property
    def scope(self) -> str:
        """The first part of the keys of the gateway's scopes. No two gateways of a node share one."""
        return self.scope_id or self.host_port

    @property
    def errors(self) -> ErrorFormat:
        """The form of the errors with which Envoy itself answers."""
        by_routing = ErrorFormat.OPENAI if isinstance(self.routing, BodyRouting) else ErrorFormat.OPEN_INFERENCE
        return self.error_format or by_routing

    @property
    def absence_limit(self) -> float:
        """Return the seconds after which a node without a stream is released."""
        if self.absent_after is not None:
            return self.absent_after
        return EPHEMERAL_ABSENT_AFTER if self.ephemeral else ABSENT_AFTER

    @property
    def references(self) -> tuple[Reference, ...]:
        """The secrets that the gateway's TLS needs, and those that its patches may name."""
        for_patches = (Reference(f"patch_secrets[{i}]", Secret.collection, s) for i, s in enumerate(self.patch_secrets))
        return (*self.tls_references, *for_patches)

    @property
    def tls_references(self) -> tuple[Reference, ...]:
        """The secrets that the gateway's TLS needs."""
        if self.tls is None:
            return ()
        certificate = Reference("tls.certificate", Secret.collection, self.tls.certificate, "tls_certificate")
        if not self.tls.client_ca:
            return (certificate,)
        return certificate, Reference("tls.client_ca", Secret.collection, self.tls.client_ca, "ca_certificates")

    def shares_address(self, other: Gateway) -> bool:
        """Return True when both gateways would bind the same socket on some node."""
        any_address = {"0.0.0.0", "::"}
        same = self.address == other.address or self.address in any_address or other.address in any_address
        return same and self.port == other.port and self.nodes.overlaps(other.nodes)

"""Models, and the rules that decide which version a request gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from controlplane.domain.affinity import Affinity
from controlplane.domain.checks import (
    BOUNDS,
    FULL_SHARE,
    HEADER,
    check_bounds,
    check_distinct,
    check_header,
    check_label,
    check_model_name,
    check_range,
    percent_of_traffic,
)
from controlplane.domain.fallback import check_fallbacks
from controlplane.domain.gateway import Gateway
from controlplane.domain.grpc_ports import check_grpc_ports
from controlplane.domain.object_labels import checked_labels
from controlplane.domain.patch import MODEL_TARGETS, Patch, check_patches
from controlplane.domain.rate_limit import RateLimit
from controlplane.domain.references import Reference
from controlplane.domain.rewrite import PathRewrite
from controlplane.domain.secret import Secret
from controlplane.domain.version import Version
from controlplane.errors import Collector, did_you_mean, invalid


@dataclass(frozen=True, slots=True)
class Sticky:
    """The header or the cookie that identifies a user: exactly one of the two."""

    header: str = ""
    cookie: str = ""

    def __post_init__(self) -> None:
        if bool(self.header) == bool(self.cookie):
            raise invalid("", "set either a header or a cookie that identifies the user")
        if self.header:
            check_header(self.header, "header")
        elif not HEADER.fullmatch(self.cookie.lower()):
            raise invalid("cookie", f"'{self.cookie[:80]}' is not the name of a cookie")


@dataclass(frozen=True, slots=True)
class Mirror:
    """A second version that gets copies of requests."""

    version: str
    basis_points: int = FULL_SHARE
    max_request_bytes: int = 4 << 20  # a request with a larger body is not copied
    max_requests: int = 128  # copies in flight at one Envoy, and as many that wait for a connection
    timeout: float = 0.0  # of a copy; 0: the request timeout of the model, or 60 s if it has none

    def __post_init__(self) -> None:
        if not self.version:
            raise invalid("version", "is required")
        check_bounds(self, "basis_points", "max_request_bytes", "max_requests")
        check_range(self.timeout, 0, 86_400, "timeout", " s")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time limits of one request; 0 is no limit."""

    request: float = 0.0
    idle: float = 300.0

    def __post_init__(self) -> None:
        check_range(self.request, 0, 86_400, "request", " s")
        check_range(self.idle, 0, 86_400, "idle", " s")


@dataclass(frozen=True, slots=True)
class Retries:
    """The rules for retrying a failed request."""

    attempts: int = 2
    unsafe: bool = False  # retry also when the upstream may have acted on the request
    per_try_timeout: float = 0.0  # 0: no limit
    request_body_buffer_limit: int = 32 << 20  # a request with a larger body is not retried; bytes

    def __post_init__(self) -> None:
        check_bounds(self, "attempts", "request_body_buffer_limit")
        check_range(self.per_try_timeout, 0, 86_400, "per_try_timeout", " s")
        if self.per_try_timeout and not self.unsafe:
            raise invalid(
                "per_try_timeout", "the model server may have acted on a try that timed out, so this needs `unsafe: true`"
            )


@dataclass(frozen=True, slots=True)
class Model:
    """A model that users call.

    Always true: the shares of the split sum to 10,000, no share is 0, and each version with a share exists and has endpoints.
    """

    collection: ClassVar[str] = "models"

    name: str  # the label alone
    gateways: tuple[str, ...]  # labels
    versions: tuple[Version, ...]
    split: Mapping[str, int]  # version -> basis points
    keys: tuple[str, ...] = ()  # empty: the name is the only key
    sticky: Sticky | None = None
    preview_header: str = ""
    mirror: Mirror | None = None
    timeouts: Timeouts = Timeouts()
    retries: Retries = Retries()
    rewrite: PathRewrite | None = None
    affinity: Affinity | None = None
    rate_limits: tuple[RateLimit, ...] = ()
    patches: tuple[Patch, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)  # for rules of access

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
                    raise invalid("version", f"'{self.mirror.version}' has no endpoints, so it can't get copies of requests")
        with c.within(""):
            check_fallbacks(self.versions, self.mirror.version if self.mirror is not None else "")
        with c.within(""):
            check_grpc_ports(self.versions)
        with c.within(""):
            check_range(len(self.rate_limits), 0, 4, "rate_limits")
        with c.within(""):
            check_patches(self.patches, MODEL_TARGETS)
        with c.within(""):
            object.__setattr__(self, "labels", checked_labels(self.labels))
        c.check()

    def _check_keys(self) -> None:
        check_range(len(self.keys), 0, 32, "keys")
        c = Collector()
        with c.within(""):
            check_distinct(self.keys, "keys")
        for i, key in enumerate(self.keys):
            with c.within(""):
                check_model_name(key, f"keys[{i}]")
        c.check()

    def _checked_split(self) -> Mapping[str, int]:
        for name, share in self.split.items():
            self.version(name, f"split.{name}")
            check_range(share, *BOUNDS["split"], f"split.{name}")
        total = sum(self.split.values())
        if total != FULL_SHARE:
            raise invalid(
                "split",
                f"the shares sum to {total:,} basis points ({percent_of_traffic(total)}) and must sum to 10,000 (100%)",
            )
        for name, share in self.split.items():
            if share and not self.version(name).endpoints:
                raise invalid(
                    f"split.{name}", f"version '{name}' has no endpoints, so it can't be given a share", "NO_ENDPOINTS"
                )
        # In the order of versions and without zero shares, so that equal splits are equal values.
        return {v.name: self.split[v.name] for v in self.versions if self.split.get(v.name)}

    @property
    def resource_name(self) -> str:
        return f"{self.collection}/{self.name}"

    @property
    def has_grpc_ports(self) -> bool:
        """True if the versions with endpoints have ports for gRPC beside those for HTTP: all of them, or none."""
        return any(v.has_grpc_ports for v in self.versions)

    @property
    def route_keys(self) -> tuple[str, ...]:
        """The keys by which a request can name this model; never empty."""
        return self.keys or (self.name,)

    def version(self, name: str, field: str = "version") -> Version:
        """Return the version with a name. Errors: INVALID_ARGUMENT / UNKNOWN_VERSION at `field`."""
        for version in self.versions:
            if version.name == name:
                return version
        names = [v.name for v in self.versions]
        close = did_you_mean(name, names)
        hint = f"there are: {', '.join(names)}" + (f"; {close}" if close else "")
        raise invalid(field, f"there is no version '{name[:80]}'; {hint}", "UNKNOWN_VERSION")

    @property
    def references(self) -> tuple[Reference, ...]:
        """The gateways that serve the model, then the secrets that its versions need."""
        gateways = (Reference(f"gateways[{i}]", Gateway.collection, label) for i, label in enumerate(self.gateways))
        secrets = (
            Reference(f"versions[{i}].{field}", Secret.collection, label, kind)
            for i, version in enumerate(self.versions)
            for field, label, kind in version.secrets
        )
        return (*gateways, *secrets)

"""Settings of the server: plain values, checked when a `Config` is created."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.domain import check_range
from controlplane.errors import Collector, invalid

LOG_FORMATS = ("console", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")
XDS_TRANSPORTS = ("http2", "grpc")


@dataclass(frozen=True, slots=True)
class Address:
    """An address that a server listens on."""

    host: str  # an IP address or a name
    port: int  # 0 is any free port

    @staticmethod
    def parse(text: str, name: str = "address") -> Address:
        """Parse `HOST:PORT`, `[IPV6]:PORT` or `:PORT` (every IPv4 interface). Errors: INVALID_ARGUMENT at `name`."""
        host, colon, port = text.rpartition(":")
        if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise invalid(name, f"'{text[:80]}' is not HOST:PORT, like 127.0.0.1:18000")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise invalid(name, f"'{text[:80]}': put an IPv6 address into brackets, like [::1]:18000")
        return Address(host or "0.0.0.0", int(port))

    @property
    def loopback(self) -> bool:
        """Return True if only this machine can reach the address."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Listener:
    """A port that the server listens on, and what protects it."""

    # The name of its setting.
    name: str
    purpose: str
    address: Address
    # True if connections are encrypted, and the server proves who it is.
    tls: bool = False
    # How clients prove who they are; "": they don't.
    credentials: str = ""
    # The settings that would protect it.
    remedy: str = ""

    @property
    def open(self) -> bool:
        """True if other machines can reach it and it has no TLS."""
        return not self.address.loopback and not self.tls


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of the control plane. Durations are seconds."""

    # The store's directory. Created when it does not exist. The default is for a service: `cli/settings.py` knows the user's.
    data: Path = Path("/var/lib/turnout")
    # The address of the operator API.
    api: Address = Address("127.0.0.1", 18080)
    # The address of the xDS server, for Envoys and gRPC clients.
    xds: Address = Address("127.0.0.1", 18000)
    # The address where Prometheus scrapes `/metrics`, on loopback only. None: no metrics are served.
    metrics: Address | None = Address("127.0.0.1", 18090)
    # The transport of xDS streams: `http2` is Turnout's own HTTP/2 server, `grpc` is the server of the gRPC library.
    xds_transport: str = "http2"
    log_format: str = "console"
    log_level: str = "info"
    # Mutual TLS on the xDS port: the server's certificate, its key, the authorities of the clients, the rules of what each
    # client may claim, and the clients' revoked certificates. None: no TLS. Either the first four are set, or none.
    xds_tls_cert: Path | None = None
    xds_tls_key: Path | None = None
    xds_client_ca: Path | None = None
    xds_identities: Path | None = None
    xds_crl: Path | None = None
    # TLS on the port of the operator API: the server's certificate and key, and the authorities of the clients' certificates.
    api_tls_cert: Path | None = None
    api_tls_key: Path | None = None
    api_client_ca: Path | None = None
    # The access file: who may do what at the operator API. None: everybody who reaches the port may do everything.
    access: Path | None = None
    # The file with the hashes of tokens.
    api_tokens: Path | None = None
    # File with the key that encrypts private keys in the store. None: `secret.key` in `data`, which is created when needed.
    secret_key_file: Path | None = None
    # Command that prints the sealing keys; it is run once, at the start. "": the keys are in a file.
    secret_key_command: str = ""
    # The sealing keys themselves, from the environment. "": they are in a file.
    secret_key: str = field(default="", repr=False)
    # Time for which the store keeps private keys that the newest revision does not use. 0: no limit.
    keep_withdrawn_keys: float = 30 * 24 * 3600.0
    # When the server stops, it waits this long for calls in progress to end.
    grace: float = 5.0
    # Maximum number of open xDS streams of one node. Above it, streams end with RESOURCE_EXHAUSTED.
    max_streams_per_node: int = 256
    # Maximum number of names that one xDS stream subscribes to. Above it, the stream ends with RESOURCE_EXHAUSTED.
    max_names_per_stream: int = 200_000
    # Age at which the server ends an xDS stream, so that the client opens a new one. It varies by a tenth. 0: no limit.
    max_stream_age: float = 0.0
    # Time for which clients that support TTLs keep resources while the control plane is away. 0: no limit.
    resource_ttl: float = 0.0
    # Interval of a client's load reports. With many clients, the server asks for a longer interval.
    load_report_interval: float = 2.0
    # Number of worker processes that serve xDS on one port. 0: the main process serves it.
    workers: int = 0
    # Probe the endpoints of a version when traffic moves to it, and warn if they don't answer.
    probe: bool = True
    # The plug-in whose functions patches may name: a module, or the path of its file or folder. "": that of the entry points.
    patches: str = ""
    # Folder of the audit log. "": `audit` in `data`; "off": no log.
    audit: str = ""
    # Maximum size of the audit log: then its oldest entries are dropped.
    audit_megabytes: int = 256
    # Where each entry of the audit log is also sent: an absolute path, or `syslog…` (`audit/export.py`). "": nowhere.
    audit_export: str = ""
    # Listen on addresses that other machines can reach also without TLS.
    insecure: bool = False
    # Start a new history in spite of signs that the directory was used before. It is no setting, so that it can't stay.
    init: bool = False

    def __post_init__(self) -> None:
        c = Collector()
        with c.within(""):
            if self.log_format not in LOG_FORMATS:
                raise invalid("log_format", f"'{self.log_format}' is not one of: {', '.join(LOG_FORMATS)}")
        with c.within(""):
            if self.log_level not in LOG_LEVELS:
                raise invalid("log_level", f"'{self.log_level}' is not one of: {', '.join(LOG_LEVELS)}")
        with c.within(""):
            if self.xds_transport not in XDS_TRANSPORTS:
                raise invalid("xds_transport", f"'{self.xds_transport}' is not one of: {', '.join(XDS_TRANSPORTS)}")
        with c.within(""):
            self._check_tls()
        with c.within(""):
            self._check_access()
        with c.within(""):
            check_range(self.grace, 0, 300, "grace", " s")
        with c.within(""):
            check_range(self.max_streams_per_node, 1, 100_000, "max_streams_per_node")
        with c.within(""):
            check_range(self.max_names_per_stream, 1, 10_000_000, "max_names_per_stream")
        with c.within(""):
            if self.max_stream_age:
                check_range(self.max_stream_age, 1, 30 * 24 * 3600, "max_stream_age", " s")
        with c.within(""):
            if self.resource_ttl:
                check_range(self.resource_ttl, 3, 30 * 24 * 3600, "resource_ttl", " s")
        with c.within(""):
            check_range(self.load_report_interval, 1, 3600, "load_report_interval", " s")
        with c.within(""):
            if self.keep_withdrawn_keys:
                check_range(self.keep_withdrawn_keys, 60, 10 * 365 * 24 * 3600, "keep_withdrawn_keys", " s")
        with c.within(""):
            self._check_secret_key()
        with c.within(""):
            check_range(self.audit_megabytes, 8, 1_000_000, "audit_megabytes", " MB")
        with c.within(""):
            check_range(self.workers, 0, 256, "workers")
        with c.within(""):
            if self.api == self.xds and self.api.port:
                raise invalid("xds", f"{self.xds} is also the address of the operator API: use another port")
        with c.within(""):
            self._check_metrics()
        c.check()

    @property
    def audit_directory(self) -> Path | None:
        """The folder of the audit log; None if there is none."""
        return None if self.audit == "off" else Path(self.audit) if self.audit else self.data / "audit"

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Each port, and what protects it. Whoever adds a port or a protection adds it here, and nowhere else."""
        mutual = "client certificates" if self.xds_client_ca is not None else ""
        xds_remedy = "--xds-tls-cert, --xds-tls-key, --xds-client-ca and --xds-identities"
        api_remedy = "--api-tls-cert and --api-tls-key"
        certificates = "client certificates" if self.api_client_ca is not None else "tokens" if self.access is not None else ""
        listeners = (
            Listener("api", "operators", self.api, self.api_tls_cert is not None, certificates, api_remedy),
            Listener("xds", "Envoys", self.xds, self.xds_tls_cert is not None, mutual, xds_remedy),
        )
        return (*listeners, Listener("metrics", "Prometheus", self.metrics)) if self.metrics is not None else listeners

    @property
    def is_local(self) -> bool:
        """True if only programs on this machine can reach the server: it listens on loopback alone."""
        return self.api.loopback and self.xds.loopback

    def _check_tls(self) -> None:
        needed = ("xds_tls_cert", "xds_tls_key", "xds_client_ca", "xds_identities")
        given = [name for name in (*needed, "xds_crl") if getattr(self, name) is not None]
        missing = [name for name in needed if getattr(self, name) is None]
        if given and missing:
            flags = ", ".join("--" + name.replace("_", "-") for name in missing)
            raise invalid(given[0], f"TLS on the xDS port needs also {flags}")

    def check_open(self) -> None:
        """Check that strangers can reach no port without TLS, or that this is wanted. Errors: INVALID_ARGUMENT."""
        c = Collector()
        for listener in self.listeners:
            with c.within(""):
                if listener.open and not self.insecure:
                    remedy = f"give it certificates ({listener.remedy}), " if listener.remedy else ""
                    message = (
                        f"{listener.address} can be reached from other machines, and this port has no TLS: {remedy}use an "
                        f"address of this machine only, like 127.0.0.1:{listener.address.port}, or add --insecure if only "
                        "machines that you trust can reach it"
                    )
                    raise invalid(listener.name, message)
        c.check()

    def _check_secret_key(self) -> None:
        sources = {
            "secret_key": self.secret_key,
            "secret_key_command": self.secret_key_command,
            "secret_key_file": self.secret_key_file,
        }
        chosen = [name for name, value in sources.items() if value]
        if len(chosen) > 1:
            raise invalid(chosen[1], "the sealing key has another source already: name only one of file, command and variable")

    def _check_access(self) -> None:
        if (self.api_tls_cert is None) is not (self.api_tls_key is None):
            given, missing = ("api_tls_cert", "key") if self.api_tls_cert is not None else ("api_tls_key", "cert")
            raise invalid(given, f"TLS on the API's port needs also --api-tls-{missing}")
        for name in ("api_client_ca", "api_tokens"):
            if getattr(self, name) is not None and self.access is None:
                raise invalid(name, "says who a caller is, and --access is missing, which says who may do what")
        if self.api_client_ca is not None and self.api_tls_cert is None:
            raise invalid("api_client_ca", "needs also --api-tls-cert and --api-tls-key")
        if self.access is not None and self.api_tls_cert is None and not self.api.loopback:
            raise invalid("access", f"tokens would be sent to {self.api} in the clear: give --api-tls-cert and --api-tls-key")

    def _check_metrics(self) -> None:
        metrics = self.metrics
        if metrics is None:
            return
        if not metrics.loopback:
            message = (
                f"{metrics} can be reached from other machines, and metrics are served without authentication: "
                f"use an address of this machine only, like 127.0.0.1:{metrics.port}, or off"
            )
            raise invalid("metrics", message)
        for name, address in (("the operator API", self.api), ("xDS", self.xds)):
            if metrics == address and address.port:
                raise invalid("metrics", f"{metrics} is also the address of {name}: use another port")

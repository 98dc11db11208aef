"""Access logs: where a gateway's Envoys write an entry for each request."""

from __future__ import annotations

import re
from dataclasses import dataclass

from controlplane.domain.checks import HOST, check_port, is_ip
from controlplane.errors import Collector, invalid

_PATH = re.compile(r"/[!-~]{1,1023}")
_LOG_NAME = re.compile(r"[A-Za-z0-9._/-]{0,253}")


@dataclass(frozen=True, slots=True)
class StdoutSink:
    """The standard output of the Envoy process."""


@dataclass(frozen=True, slots=True)
class FileSink:
    """A file on each node."""

    path: str

    def __post_init__(self) -> None:
        if not _PATH.fullmatch(self.path):
            raise invalid("path", f"'{self.path[:80]}' is not an absolute path without spaces, like /var/log/envoy/edge.log")


@dataclass(frozen=True, slots=True)
class GrpcSink:
    """A collector that serves Envoy's gRPC access log service."""

    host: str
    port: int
    log_name: str = ""  # empty: the gateway's name

    def __post_init__(self) -> None:
        c = Collector()
        with c.within(""):
            if not is_ip(self.host) and not HOST.fullmatch(self.host):
                raise invalid("host", f"'{self.host[:80]}' is not an IP address or a DNS name" if self.host else "is required")
        with c.within(""):
            check_port(self.port)
        with c.within(""):
            if not _LOG_NAME.fullmatch(self.log_name):
                raise invalid(
                    "log_name", f"'{self.log_name[:80]}' is not the name of a log: letters, digits, '.', '_', '/', '-'"
                )
        c.check()


@dataclass(frozen=True, slots=True)
class AccessLog:
    """An access log with one sink: a file, a collector, or standard output if neither is set."""

    file: FileSink | None = None
    grpc: GrpcSink | None = None
    stdout: StdoutSink | None = None

    def __post_init__(self) -> None:
        sinks = [name for name in ("file", "grpc", "stdout") if getattr(self, name) is not None]
        if len(sinks) > 1:
            raise invalid("", f"{' and '.join(sinks)} are set: an access log has one sink")
        if not sinks:
            object.__setattr__(self, "stdout", StdoutSink())

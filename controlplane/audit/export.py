"""Copies of the audit log's entries: appended to a file of JSON lines, or sent to syslog (RFC 5424). All functions block.

A copy elsewhere is the best protection of the log: whoever controls this machine can write the files and the store anew.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, Protocol

from controlplane.errors import invalid

SYSLOG = "syslog"
_DEV_LOG = "/dev/log"
_PORT = 514
# Facility 13 (log audit), severity 6 (informational), as one number.
_PRIORITY = 13 * 8 + 6


class Export(Protocol):
    """Receives each entry."""

    def send(self, line: bytes, entry: dict[str, Any]) -> None:
        """Send an entry and its line. Errors: OSError."""


class FileExport:
    """Appends entries to a file. It opens the file for each of them, so that other programs may rotate it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, line: bytes, entry: dict[str, Any]) -> None:
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, line.rstrip(b"\n") + b"\n")
        finally:
            os.close(file)


class SyslogExport:
    """Sends entries to syslog, over a Unix socket or UDP. Nobody answers, so a lost entry is not noticed."""

    def __init__(self, address: str | tuple[str, int]) -> None:
        self._address = address
        self._host = socket.gethostname() or "-"

    def send(self, line: bytes, entry: dict[str, Any]) -> None:
        header = f"<{_PRIORITY}>1 {entry['time']} {self._host} turnout {os.getpid()} audit - "
        family = socket.AF_UNIX if isinstance(self._address, str) else socket.AF_INET
        if not isinstance(self._address, str):
            family = socket.getaddrinfo(*self._address, type=socket.SOCK_DGRAM)[0][0]
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.settimeout(1.0)
            sock.sendto(header.encode() + line.rstrip(b"\n"), self._address)


def export_to(target: str, field: str = "audit_export") -> Export:
    """Return the export to a target: `syslog`, `syslog:HOST[:PORT]`, `syslog:/SOCKET`, or the path of a file.

    Errors: INVALID_ARGUMENT at `field`.
    """
    scheme, colon, address = target.partition(":")
    if scheme != SYSLOG:
        if not Path(target).is_absolute():
            raise invalid(field, f"'{target[:80]}' is neither an absolute path nor syslog, syslog:HOST:PORT or syslog:/SOCKET")
        return FileExport(Path(target))
    if not colon:
        return SyslogExport(_DEV_LOG)
    if address.startswith("/"):
        return SyslogExport(address)
    host, _, port = address.rpartition(":") if address.rpartition(":")[2].isdigit() else (address, "", str(_PORT))
    host = host.strip("[]")
    if not host or not 0 < int(port) < 65536:
        raise invalid(field, f"'{target[:80]}' is not syslog:HOST:PORT, like syslog:logs.example:514")
    return SyslogExport((host, int(port)))


def check_target(target: str, field: str) -> None:
    """Check a target. Errors: INVALID_ARGUMENT at `field`."""
    if target:
        export_to(target, field)

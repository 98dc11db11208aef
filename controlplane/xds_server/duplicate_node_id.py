"""Detect two Envoys that use the same node id.

Only streams of ADS are compared, because an Envoy has at most one. Two of them with one node id and different addresses belong
to two Envoys, or to one Envoy whose address changed and whose old connection is still open. So the warning is given only if
both streams are still open after `CONFIRM_AFTER` seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

# A dead connection is closed well within this time. Seconds.
CONFIRM_AFTER = 90.0


class HasHost(Protocol):
    """A stream of a node."""

    @property
    def host(self) -> str: ...  # the client's address without the port, if the stream is an Envoy's over ADS; else ""


def host_of(address: str) -> str:
    """Return the host of `HOST:PORT`."""
    return address.rpartition(":")[0]


def other_host(stream: HasHost, streams: Iterable[HasHost]) -> str:
    """Return the address of another Envoy among the streams of a node; "" when there is none."""
    if not stream.host:
        return ""
    hosts = (other.host for other in streams)
    return next((host for host in hosts if host and host != stream.host), "")


def warning(host: str, other: str) -> str:
    """Return the text for operators about two Envoys at these addresses."""
    return f"two Envoys use this node id, at {host} and {other}, and can't be told apart: give each its own id"

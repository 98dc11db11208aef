"""Detect two Envoys that use the same node id.

Each Envoy counts that has a stream of ADS, which carries all types. Two such streams of one node id from two addresses are two
Envoys, or one that has moved: its old connection may be open still. So only streams that stay beside each other for
`CONFIRM_AFTER` seconds count.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

# After this time both connections are known to be alive. Seconds.
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

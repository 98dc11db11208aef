"""The log and the metric of refused access: handshakes that failed, certificates, and claims that no rule allows."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter

from controlplane.observers import Handler, Observer
from controlplane.observers.rate_limited_log import RateLimitedLog
from controlplane.xds.events import AccessRefused, StreamId


class RefusedAccess(Observer):
    """Logs refused access at a limited rate, and counts all of it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._count = Counter(
            "turnout_xds_refused",
            "Clients that the xDS port refused, by cause: handshake, certificate, claim, blocked, or why a connection ended.",
            ["cause"],
            registry=registry,
        )
        self._log = RateLimitedLog(
            "access refused", "more access refused", logging.WARNING, ("cause", "reason"), logger="xds", subject="client"
        )

    def handlers(self) -> Mapping[type, Handler]:
        """Return the event of refused access."""
        return {AccessRefused: self._on_refused}

    def close(self) -> None:
        """Write the summary that is pending."""
        self._log.close()

    def _on_refused(self, stream: StreamId, event: AccessRefused, now: float) -> None:
        self._count.labels(cause=event.cause).inc()
        self._log.log(event.client, cause=event.cause, reason=event.reason)

"""Reports nodes that hold versions which this history never made: one log line for each node, and a metric.

The cause is one of these: the store was lost or is another one, a backup was restored, or the node was served by another
control plane before.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Gauge

from controlplane.envoy_types import short_name
from controlplane.fleet import RELEASED_NODES, Fleet
from controlplane.fleet.held_back import lost_in_words
from controlplane.observers import Handler, Observer
from controlplane.observers.rate_limited_log import RateLimitedLog
from controlplane.xds.events import Claimed, HeldBack, StreamId

_EXAMPLE = ("type", "version")


class ForeignVersions(Observer):
    """Observes the claims of nodes; `Fleet.foreign` has those that count."""

    def __init__(self, fleet: Fleet, registry: CollectorRegistry) -> None:
        self._fleet = fleet
        # Nodes that were logged. At RELEASED_NODES all are forgotten.
        self._logged: set[str] = set()
        self._without_revision = RateLimitedLog(
            "no revision yet: node holds configuration of another history, and keeps it",
            "no revision yet: more nodes hold configuration of another history, and keep it",
            logging.WARNING,
            _EXAMPLE,
        )
        self._replaced = RateLimitedLog(
            "node holds a version that this history never made: was a backup restored, or did another control plane serve it?",
            "more nodes hold versions that this history never made",
            logging.WARNING,
            _EXAMPLE,
        )
        # Held-back nodes that were logged. At RELEASED_NODES all are forgotten.
        self._logged_held_back: set[str] = set()
        self._held_back = RateLimitedLog(
            "node is held back: it would lose configuration of another history; `turnout status` says what to do",
            "more nodes are held back",
            logging.WARNING,
            ("revision", "lost"),
        )
        gauge = Gauge(
            "turnout_foreign_nodes",
            "Number of nodes that came with a version which this history never made, since the server started.",
            registry=registry,
        )
        gauge.set_function(lambda: len(fleet.foreign))

    def handlers(self) -> Mapping[type, Handler]:
        """Return the events of nodes that have another history."""
        return {Claimed: self._on_claimed, HeldBack: self._on_held_back}

    def close(self) -> None:
        """Write the summaries that are pending."""
        self._without_revision.close()
        self._replaced.close()
        self._held_back.close()

    def _on_claimed(self, stream: StreamId, event: Claimed, now: float) -> None:
        if not event.unknown_version:
            return
        node = self._fleet.node_of(stream)
        if node is None or node.id not in self._fleet.foreign or node.id in self._logged:
            return
        if len(self._logged) >= RELEASED_NODES:
            self._logged.clear()
        self._logged.add(node.id)
        limited = self._replaced if self._fleet.revision else self._without_revision
        limited.log(node.id, type=short_name(event.type_url), version=event.unknown_version)

    def _on_held_back(self, stream: StreamId, event: HeldBack, now: float) -> None:
        node = self._fleet.node_of(stream)
        if node is None:
            return
        if not event.revision:
            self._logged_held_back.discard(node.id)
        elif node.id not in self._logged_held_back:
            if len(self._logged_held_back) >= RELEASED_NODES:
                self._logged_held_back.clear()
            self._logged_held_back.add(node.id)
            self._held_back.log(node.id, revision=event.revision, lost=lost_in_words(event))

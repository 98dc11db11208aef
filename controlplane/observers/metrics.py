"""Prometheus metrics of the fleet.

A metric that is read from a fold costs nothing per event: it is looked up when Prometheus scrapes. One that counts events
takes them with `handlers`, as every observer does.
"""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Gauge

from controlplane.fleet import Fleet, NodeState
from controlplane.observers import Observer


class FleetMetrics(Observer):
    """The metrics that are read from the fleet, in a registry."""

    def __init__(self, fleet: Fleet, registry: CollectorRegistry) -> None:
        nodes = Gauge(
            "turnout_nodes", "Number of nodes by state: synced, behind, refusing or gone.", ["state"], registry=registry
        )
        for state in NodeState:
            nodes.labels(state=state.value).set_function(partial(fleet.counts.__getitem__, state))
        revision = Gauge("turnout_revision", "Newest revision that is served to the nodes.", registry=registry)
        revision.set_function(lambda: fleet.revision)

"""Prometheus metrics of the fleet.

A metric that reads a fold has no cost per event: the fold is read when Prometheus scrapes. A metric that counts events handles
them with `handlers`, like every observer.
"""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Gauge

from controlplane.fleet import Fleet, NodeState
from controlplane.observers import Observer


class FleetMetrics(Observer):
    """The metrics that read the fleet. They are registered in `registry`."""

    def __init__(self, fleet: Fleet, registry: CollectorRegistry) -> None:
        nodes = Gauge(
            "turnout_nodes", "Number of nodes by state: synced, behind, refusing or gone.", ["state"], registry=registry
        )
        for state in NodeState:
            nodes.labels(state=state.value).set_function(partial(fleet.counts.__getitem__, state))
        revision = Gauge("turnout_revision", "Newest revision that is served to the nodes.", registry=registry)
        revision.set_function(lambda: fleet.revision)

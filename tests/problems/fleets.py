"""A fleet, traffic and a head that the tests of the problems share. Revision 1 is of time 100."""

from __future__ import annotations

from dataclasses import dataclass, field

from controlplane.domain import Endpoint, Gateway, Model, Version
from controlplane.domain.revision import Head
from controlplane.domain.state import State
from controlplane.fleet import Fleet
from controlplane.problems.judge import Observed, problems_of
from controlplane.problems.reasons import Problem
from controlplane.traffic import Traffic
from controlplane.xds.events import ClusterLoad, Held, LoadReported, Refused, ReporterIdentified
from tests.fleet.clients import connect

CLUSTERS = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
VERSIONS = tuple(Version(name, (Endpoint("10.0.0.1", 80),)) for name in ("blue", "green"))
IRIS = Model("iris", ("edge",), VERSIONS, {"green": 10_000})
WINE = Model("wine", ("edge",), VERSIONS, {"blue": 10_000})


@dataclass
class SampleFleet:
    """A control plane with nodes that hold revision 1 and report their load."""

    head: Head = Head(1, State({"edge": Gateway("edge", 80)}, {"iris": IRIS, "wine": WINE}), {}, 100.0)
    fleet: Fleet = field(default_factory=Fleet)
    traffic: Traffic = field(default_factory=Traffic)
    store_failure: str = ""
    not_served: str = ""

    def __post_init__(self) -> None:
        self.fleet.publish(self.head.number)
        self.traffic.publish(self.head.state.models)

    def add(self, *streams: int, held: int = 1, reports: bool = True) -> SampleFleet:
        """Connect the node `edge-N` for each stream N at time 100."""
        for stream in streams:
            connect(self.fleet, stream, f"edge-{stream}")
            if held:
                self.fleet.apply(stream, Held(held), 101)
            if reports:
                self.traffic.apply(1000 + stream, ReporterIdentified(f"edge-{stream}"), 101)
        return self

    def refuse(self, stream: int, *resources: str, message: str = "cannot bind", type_url: str = CLUSTERS) -> SampleFleet:
        self.fleet.apply(stream, Refused(type_url, resources, message, 1), 102)
        return self

    def report(self, stream: int, now: float, *loads: ClusterLoad) -> SampleFleet:
        self.traffic.apply(1000 + stream, LoadReported(loads), now)
        return self

    @property
    def observed(self) -> Observed:
        return Observed(self.head, self.fleet, self.traffic, self.store_failure, self.not_served)

    def problems(self, now: float = 120.0) -> list[Problem]:
        return problems_of(self.observed, now)

    def reasons(self, now: float = 120.0) -> list[str]:
        return [p.reason.name for p in self.problems(now)]

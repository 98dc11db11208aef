"""Observed traffic: a fold of the clients' load reports into the traffic of each version.

A report names clusters, so traffic is counted by cluster: `MODEL/VERSION`, or `MODEL/VERSION/mirror` for a mirror's copies.
There are two numbers for each cluster:

    totals    requests since the control plane started; they only grow
    rate      requests per second now: the sum of the newest reports of all connected clients

When a client disconnects, its requests stay in the totals, and its rate is subtracted.

Everything here is a fold of events: there is no I/O, and the time is an argument. The cost of a report depends on the number
of clusters that it names, and not on the size of the fleet. Sums are updated in place, in whole numbers, so that they stay
exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from controlplane.compiler.clusters import cluster_name, mirror_name
from controlplane.domain import Model
from controlplane.xds.events import ClusterLoad, LoadReported, ReporterIdentified, StreamClosed, StreamId

# Maximum number of pairs of a stream and a cluster whose newest rate is kept; they take about 100 MB. At the bound, a report
# counts only in the totals.
MAX_RATES = 500_000

# Totals are capped at the largest int64, the type of the API's fields.
_MAX_TOTAL = 2**63 - 1

# With at most this many clusters, `publish` does not look for clusters that left desired state.
_FEW_CLUSTERS = 64


TrafficEvent = ReporterIdentified | LoadReported | StreamClosed

# One stream's rate for one cluster, with the fields of `Rate`.
_RateTuple = tuple[int, int, int, int, int]


class Rate(NamedTuple):
    """The requests that a cluster gets now: thousandths of a request per second, and `active` as a count."""

    issued: int = 0
    succeeded: int = 0
    failed: int = 0
    dropped: int = 0
    active: int = 0


class Totals(NamedTuple):
    """Requests reported since the control plane started."""

    issued: int = 0
    succeeded: int = 0
    failed: int = 0
    dropped: int = 0


class ClusterTraffic:
    """The traffic of one cluster. Read-only outside this module."""

    __slots__ = ("_checked_generation", "_rate", "_totals", "last_request", "nodes")

    def __init__(self) -> None:
        # The fields of `Totals` and `Rate`. Lists, since each report changes them in place.
        self._totals = [0, 0, 0, 0]
        self._rate = [0, 0, 0, 0, 0]
        # Number of nodes whose newest report has requests for this cluster.
        self.nodes = 0
        # Time of the newest report with requests for this cluster, seconds since the epoch; 0 before any.
        self.last_request = 0.0
        # The generation of models in which this cluster was last checked to belong to a model.
        self._checked_generation = 0

    @property
    def totals(self) -> Totals:
        """Return the requests since the control plane started."""
        return Totals(*(min(count, _MAX_TOTAL) for count in self._totals))

    @property
    def rate(self) -> Rate:
        """Return the sum of the newest reports of all clients."""
        return Rate(*self._rate)


@dataclass(slots=True, eq=False)
class _Stream:
    node: str
    # The newest report, by cluster. Clusters without requests are left out.
    rates: dict[str, _RateTuple] = field(default_factory=dict)


NO_TRAFFIC = ClusterTraffic()


class Traffic:
    """The traffic of every version, and the nodes that send it."""

    def __init__(self, since: float = 0.0) -> None:
        # The time when all totals were zero, seconds since the epoch.
        self.since = since
        self._models: Mapping[str, Model] = {}
        # Counts the calls of `publish`.
        self._generation = 1
        self._streams: dict[StreamId, _Stream] = {}
        # Streams by node id, for nodes that have any. A gRPC client has one stream for each channel to the control plane.
        self._nodes: dict[str, list[_Stream]] = {}
        # By cluster name: the clusters of desired state, and some that have left it.
        self._clusters: dict[str, ClusterTraffic] = {}
        # `publish` looks for clusters that left desired state if there are more clusters than this.
        self._purge_above = _FEW_CLUSTERS
        # Number of entries in the `rates` of all streams.
        self._rate_count = 0
        # The time when the newest report arrived, seconds since the epoch; 0 before any.
        self.last_report = 0.0

    @property
    def reporting(self) -> int:
        """Return the number of nodes that report."""
        return len(self._nodes)

    def reports(self, node_id: str) -> bool:
        """Return True if a node has an open stream of load reports."""
        return node_id in self._nodes

    def cluster(self, name: str) -> ClusterTraffic:
        """Return the traffic of a cluster; NO_TRAFFIC if no report has named it."""
        return self._clusters.get(name, NO_TRAFFIC)

    def by_node(self, cluster: str) -> dict[str, Rate]:
        """Return by node id the rate at which each node sends to a cluster. The cost grows with the number of streams."""
        rates: dict[str, Rate] = {}
        for stream in self._streams.values():
            if rate := stream.rates.get(cluster):
                earlier = rates.get(stream.node, Rate())
                rates[stream.node] = Rate(*(a + b for a, b in zip(earlier, rate, strict=True)))
        return rates

    def publish(self, models: Mapping[str, Model]) -> None:
        """Accept only reports about clusters of `models` from now on.

        Clusters that left desired state are dropped when they may outnumber the clusters of desired state.
        """
        self._models = models
        self._generation += 1
        if len(self._clusters) > self._purge_above:
            self._clusters = {c: traffic for c, traffic in self._clusters.items() if traffic.nodes or self._in_state(c)}
            self._purge_above = _FEW_CLUSTERS + 2 * len(self._clusters)

    def apply(self, stream: StreamId, event: TrafficEvent, now: float) -> None:
        """Apply an event of a stream. Events of a stream that is not open change nothing."""
        if isinstance(event, ReporterIdentified):
            opened = self._streams[stream] = _Stream(event.node)
            self._nodes.setdefault(event.node, []).append(opened)
            return
        reporter = self._streams.get(stream)
        if reporter is None:
            return
        if isinstance(event, LoadReported):
            self._replace(reporter, self._add_to_totals(event.loads, now))
            self.last_report = now
            return
        self._replace(reporter, {})
        del self._streams[stream]
        streams = self._nodes[reporter.node]
        streams.remove(reporter)
        if not streams:
            del self._nodes[reporter.node]

    def _add_to_totals(self, loads: Iterable[ClusterLoad], now: float) -> dict[str, _RateTuple]:
        """Add a report to the totals, and return its rates by cluster."""
        rates: dict[str, _RateTuple] = {}
        for cluster, issued, succeeded, failed, dropped, active, milliseconds in loads:
            traffic = self._clusters.get(cluster)
            if traffic is None or traffic._checked_generation != self._generation:
                if not self._in_state(cluster):
                    continue
                traffic = self._clusters.setdefault(cluster, ClusterTraffic())
                traffic._checked_generation = self._generation
            totals = traffic._totals
            totals[0] += issued
            totals[1] += succeeded
            totals[2] += failed
            totals[3] += dropped
            if issued or dropped:
                traffic.last_request = now
            if milliseconds:
                k, ms = 1_000_000, milliseconds  # requests per millisecond, times k, are thousandths of a request per second
                rate = (issued * k // ms, succeeded * k // ms, failed * k // ms, dropped * k // ms, active)
            else:  # the rate is unknown without the length of the interval
                rate = (0, 0, 0, 0, active)
            if cluster in rates:
                a, b, c, d, e = rates[cluster]
                rate = (a + rate[0], b + rate[1], c + rate[2], d + rate[3], e + rate[4])
            if any(rate):
                rates[cluster] = rate
        return rates

    def _replace(self, stream: _Stream, rates: dict[str, _RateTuple]) -> None:
        """Replace a stream's newest report, and update the sums."""
        if self._rate_count - len(stream.rates) + len(rates) > MAX_RATES:
            rates = {}
        self._rate_count += len(rates) - len(stream.rates)
        others = [s for s in self._nodes[stream.node] if s is not stream]
        for change, sign in ((stream.rates, -1), (rates, 1)):
            for cluster, (issued, succeeded, failed, dropped, active) in change.items():
                traffic = self._clusters[cluster]
                rate = traffic._rate
                rate[0] += sign * issued
                rate[1] += sign * succeeded
                rate[2] += sign * failed
                rate[3] += sign * dropped
                rate[4] += sign * active
                if not others or not any(cluster in s.rates for s in others):
                    traffic.nodes += sign
        stream.rates = rates

    def _in_state(self, cluster: str) -> bool:
        """Return True if a cluster is the cluster or the mirror cluster of a version of `models`."""
        name, _, remainder = cluster.partition("/")
        model = self._models.get(name)
        if model is None:
            return False
        version = remainder.partition("/")[0]
        valid_name = cluster in (cluster_name(name, version), mirror_name(name, version))
        return valid_name and any(v.name == version for v in model.versions)


def model_clusters(model: Model) -> Iterator[tuple[str, str, bool]]:
    """Yield the clusters of a model as (cluster, version, True for a mirror's copies), the newest version first."""
    for version in reversed(model.versions):
        yield cluster_name(model.name, version.name), version.name, False
        if model.mirror is not None and model.mirror.version == version.name:
            yield mirror_name(model.name, version.name), version.name, True

"""Loads: what clients reported of their requests, folded into what each version gets.

A report names clusters, so a load is a cluster's: `MODEL/VERSION`, or that of a mirror's copies. Two things are kept of
each. Totals, since the control plane started: they only grow. And what it gets now: the sum, over the clients that report, of
what each said last; so a client that leaves is in the totals, and no longer in that.

Everything here is a fold of values, as the fleet is: no sockets, and the time is an argument. A report costs as much as it
names clusters that had requests, however large the fleet is: the sums are kept up, in whole numbers so that they stay exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from controlplane.compiler.clusters import cluster_name, mirror_name
from controlplane.domain import Model
from controlplane.xds.events import ClusterLoad, LoadReported, ReporterIdentified, StreamClosed, StreamId

# Pairs of a client and a cluster that it sends requests to of which the newest load is known: about 100 MB of them. A report
# that does not fit any more counts in the totals only.
MOST_PAIRS = 500_000

# What int64 holds; totals stay there.
_MOST = 2**63 - 1


TrafficEvent = ReporterIdentified | LoadReported | StreamClosed


class Rate(NamedTuple):
    """What is sent to a cluster: requests in thousandths of one a second, and how many are under way."""

    issued: int = 0
    succeeded: int = 0
    failed: int = 0
    dropped: int = 0
    active: int = 0


class Totals(NamedTuple):
    """Requests since the control plane started, as far as they were reported."""

    issued: int = 0
    succeeded: int = 0
    failed: int = 0
    dropped: int = 0


class ClusterTraffic:
    """What one cluster gets. Read-only outside."""

    __slots__ = ("_checked", "_rate", "_totals", "last_request", "nodes")

    def __init__(self) -> None:
        # As in `Totals` and `Rate`: changed in place, at each report.
        self._totals = [0, 0, 0, 0]
        self._rate = [0, 0, 0, 0, 0]
        # How many nodes send it anything, as they said last.
        self.nodes = 0
        # When it was last reported that something was sent to it, seconds since the epoch; 0 for never.
        self.last_request = 0.0
        # The generation of models in which it was last seen to be one of theirs.
        self._checked = 0

    @property
    def totals(self) -> Totals:
        """Since the control plane started."""
        return Totals(*(min(count, _MOST) for count in self._totals))

    @property
    def rate(self) -> Rate:
        """The sum of what each client said last."""
        return Rate(*self._rate)


@dataclass(slots=True, eq=False)
class _Stream:
    node: str
    # What it said last, by cluster, as in `Rate`; nothing of what had no requests.
    rates: dict[str, tuple[int, int, int, int, int]] = field(default_factory=dict)


NO_TRAFFIC = ClusterTraffic()


class Traffic:
    """What every version gets, and from whom."""

    def __init__(self, since: float = 0.0) -> None:
        # When the totals were all zero, seconds since the epoch.
        self.since = since
        self._models: Mapping[str, Model] = {}
        # Grows by one with each of them.
        self._generation = 1
        self._streams: dict[StreamId, _Stream] = {}
        # Streams by node id; of nodes that have one. A gRPC client has one for each channel to the control plane.
        self._nodes: dict[str, list[_Stream]] = {}
        # By cluster; of clusters that are in desired state, but for some that have left it.
        self._loads: dict[str, ClusterTraffic] = {}
        # More loads than these are looked through for what is gone.
        self._enough = 64
        self._pairs = 0
        # When the newest report came, seconds since the epoch; 0 before any.
        self.last_report = 0.0

    @property
    def reporting(self) -> int:
        """How many nodes report."""
        return len(self._nodes)

    def reports(self, node: str) -> bool:
        """Whether a node reports."""
        return node in self._nodes

    def load(self, cluster: str) -> ClusterTraffic:
        """What a cluster gets; nothing of one that was never heard of."""
        return self._loads.get(cluster, NO_TRAFFIC)

    def by_node(self, cluster: str) -> dict[str, Rate]:
        """Who sends something to a cluster, and what, by node id. Costs as much as there are clients."""
        found: dict[str, Rate] = {}
        for stream in self._streams.values():
            if rate := stream.rates.get(cluster):
                before = found.get(stream.node, Rate())
                found[stream.node] = Rate(*(a + b for a, b in zip(before, rate, strict=True)))
        return found

    def publish(self, models: Mapping[str, Model]) -> None:
        """These are the models from now on. Loads of what is gone are forgotten, once it could be more than there is."""
        self._models = models
        self._generation += 1
        if len(self._loads) > self._enough:
            self._loads = {c: load for c, load in self._loads.items() if load.nodes or self._known(c)}
            self._enough = 64 + 2 * len(self._loads)

    def apply(self, stream: StreamId, event: TrafficEvent, now: float) -> None:
        """Folds in what a stream reported. What comes of a stream that is not open changes nothing."""
        if isinstance(event, ReporterIdentified):
            opened = self._streams[stream] = _Stream(event.node)
            self._nodes.setdefault(event.node, []).append(opened)
            return
        known = self._streams.get(stream)
        if known is None:
            return
        if isinstance(event, LoadReported):
            self._replace(known, self._counted(event.loads, now))
            self.last_report = now
            return
        self._replace(known, {})
        del self._streams[stream]
        streams = self._nodes[known.node]
        streams.remove(known)
        if not streams:
            del self._nodes[known.node]

    def _counted(self, loads: Iterable[ClusterLoad], now: float) -> dict[str, tuple[int, int, int, int, int]]:
        """Adds a report to the totals; returns it as rates."""
        rates: dict[str, tuple[int, int, int, int, int]] = {}
        for cluster, issued, succeeded, failed, dropped, active, lasted in loads:
            load = self._loads.get(cluster)
            if load is None or load._checked != self._generation:
                if not self._known(cluster):
                    continue
                load = self._loads.setdefault(cluster, ClusterTraffic())
                load._checked = self._generation
            totals = load._totals
            totals[0] += issued
            totals[1] += succeeded
            totals[2] += failed
            totals[3] += dropped
            if issued or dropped:
                load.last_request = now
            if lasted:
                k = 1_000_000
                rate = (issued * k // lasted, succeeded * k // lasted, failed * k // lasted, dropped * k // lasted, active)
            else:  # it does not say how long this is of
                rate = (0, 0, 0, 0, active)
            if cluster in rates:
                a, b, c, d, e = rates[cluster]
                rate = (a + rate[0], b + rate[1], c + rate[2], d + rate[3], e + rate[4])
            if any(rate):
                rates[cluster] = rate
        return rates

    def _replace(self, stream: _Stream, rates: dict[str, tuple[int, int, int, int, int]]) -> None:
        """What a stream said last is now this."""
        if self._pairs - len(stream.rates) + len(rates) > MOST_PAIRS:
            rates = {}
        self._pairs += len(rates) - len(stream.rates)
        others = [s for s in self._nodes[stream.node] if s is not stream]
        for change, sign in ((stream.rates, -1), (rates, 1)):
            for cluster, (issued, succeeded, failed, dropped, active) in change.items():
                load = self._loads[cluster]
                rate = load._rate
                rate[0] += sign * issued
                rate[1] += sign * succeeded
                rate[2] += sign * failed
                rate[3] += sign * dropped
                rate[4] += sign * active
                if not others or not any(cluster in s.rates for s in others):
                    load.nodes += sign
        stream.rates = rates

    def _known(self, cluster: str) -> bool:
        """Whether a cluster is a version's of today, or its mirror's."""
        name, _, rest = cluster.partition("/")
        model = self._models.get(name)
        if model is None:
            return False
        version = rest.partition("/")[0]
        here = cluster in (cluster_name(name, version), mirror_name(name, version))
        return here and any(v.name == version for v in model.versions)


def clusters(model: Model) -> Iterator[tuple[str, str, bool]]:
    """The clusters of a model, as (cluster, version, whether it is for copies): the newest version first."""
    for version in reversed(model.versions):
        yield cluster_name(model.name, version.name), version.name, False
        if model.mirror is not None and model.mirror.version == version.name:
            yield mirror_name(model.name, version.name), version.name, True

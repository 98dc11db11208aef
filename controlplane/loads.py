"""Loads: what clients reported of their requests, folded into what each version gets.

A report names clusters, so a load is a cluster's: `MODEL/VERSION`, or that of a mirror's copies. Two things are kept of
each. Totals, since the control plane started: they only grow. And what it gets now: the sum, over the clients that report, of
what each said last; so a client that leaves is in the totals, and no longer in that.

Everything here is a fold of values, as the fleet is: no sockets, and the time is an argument. A report costs as much as it
names clusters that had requests, however large the fleet is: the sums are kept up, in whole numbers so that they stay exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from controlplane.compiler.clusters import cluster_name, mirror_name
from controlplane.fleet import Closed, StreamId
from controlplane.model import Model
from controlplane.xds.load import ClusterLoad, Joined, Reported

# Pairs of a client and a cluster that it sends requests to of which the newest load is known: about 100 MB of them. A report
# that does not fit any more counts in the totals only.
MOST_PAIRS = 500_000

# What int64 holds; totals stay there.
_MOST = 2**63 - 1


Report = Joined | Reported | Closed


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


@dataclass(slots=True, eq=False)
class Load:
    """What one cluster gets. Read-only outside."""

    totals: Totals = Totals()
    # The sum of what each client said last, and how many nodes that is; of those that send it anything.
    rate: Rate = Rate()
    nodes: int = 0
    # When it was last reported that something was sent to it, seconds since the epoch; 0 for never.
    last_request: float = 0.0


@dataclass(slots=True, eq=False)
class _Stream:
    node: str
    # What it said last, by cluster; nothing of what had no requests.
    rates: dict[str, Rate] = field(default_factory=dict)
    last_report: float = 0.0


NO_LOAD = Load()


class Loads:
    """What every version gets, and from whom."""

    def __init__(self, since: float = 0.0) -> None:
        # When the totals were all zero, seconds since the epoch.
        self.since = since
        self._models: Mapping[str, Model] = {}
        self._streams: dict[StreamId, _Stream] = {}
        # Streams by node id; of nodes that have one. A gRPC client has one for each channel to the control plane.
        self._nodes: dict[str, list[_Stream]] = {}
        # By cluster; of clusters that are in desired state, but for some that have left it.
        self._loads: dict[str, Load] = {}
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

    def load(self, cluster: str) -> Load:
        """What a cluster gets; nothing of one that was never heard of."""
        return self._loads.get(cluster, NO_LOAD)

    def by_node(self, cluster: str) -> dict[str, Rate]:
        """Who sends something to a cluster, and what, by node id. Costs as much as there are clients."""
        found: dict[str, Rate] = {}
        for stream in self._streams.values():
            if rate := stream.rates.get(cluster):
                found[stream.node] = _sum(found[stream.node], rate) if stream.node in found else rate
        return found

    def publish(self, models: Mapping[str, Model]) -> None:
        """These are the models from now on. Loads of what is gone are forgotten, once it could be more than there is."""
        self._models = models
        if len(self._loads) > self._enough:
            self._loads = {c: load for c, load in self._loads.items() if load.nodes or self._known(c)}
            self._enough = 64 + 2 * len(self._loads)

    def apply(self, stream: StreamId, event: Report, now: float) -> None:
        """Folds in what a stream reported. What comes of a stream that is not open changes nothing."""
        if isinstance(event, Joined):
            opened = self._streams[stream] = _Stream(event.node)
            self._nodes.setdefault(event.node, []).append(opened)
            return
        known = self._streams.get(stream)
        if known is None:
            return
        if isinstance(event, Reported):
            rates: dict[str, Rate] = {}
            for load in event.loads:
                if self._known(load.cluster):
                    self._count(load, now)
                    if any(rate := _rate(load)):
                        rates[load.cluster] = _sum(rates.get(load.cluster, Rate()), rate)
            self._replace(known, rates)
            known.last_report = self.last_report = now
            return
        self._replace(known, {})
        del self._streams[stream]
        streams = self._nodes[known.node]
        streams.remove(known)
        if not streams:
            del self._nodes[known.node]

    def _count(self, load: ClusterLoad, now: float) -> None:
        kept = self._loads.setdefault(load.cluster, Load())
        counts = zip(kept.totals, (load.issued, load.succeeded, load.failed, load.dropped), strict=True)
        kept.totals = Totals(*(min(a + b, _MOST) for a, b in counts))
        if load.issued or load.dropped:
            kept.last_request = now

    def _replace(self, stream: _Stream, rates: dict[str, Rate]) -> None:
        """What a stream said last is now this."""
        if self._pairs - len(stream.rates) + len(rates) > MOST_PAIRS:
            rates = {}
        self._pairs += len(rates) - len(stream.rates)
        others = [s for s in self._nodes[stream.node] if s is not stream]
        for cluster, rate in stream.rates.items():
            load = self._loads[cluster]
            load.rate = Rate(*(a - b for a, b in zip(load.rate, rate, strict=True)))
            load.nodes -= not any(cluster in s.rates for s in others)
        for cluster, rate in rates.items():
            load = self._loads[cluster]
            load.rate = _sum(load.rate, rate)
            load.nodes += not any(cluster in s.rates for s in others)
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


def _rate(load: ClusterLoad) -> Rate:
    """A load in thousandths of requests a second; of one that does not say how long it is of, only what is under way."""
    lasted = load.milliseconds
    counts = (load.issued, load.succeeded, load.failed, load.dropped)
    issued, succeeded, failed, dropped = (count * 1_000_000 // lasted if lasted else 0 for count in counts)
    return Rate(issued, succeeded, failed, dropped, load.active)


def _sum(a: Rate, b: Rate) -> Rate:
    return Rate(*(x + y for x, y in zip(a, b, strict=True)))


def clusters(model: Model) -> Iterator[tuple[str, str, bool]]:
    """The clusters of a model, as (cluster, version, whether it is for copies): the newest version first."""
    for version in reversed(model.versions):
        yield cluster_name(model.name, version.name), version.name, False
        if model.mirror is not None and model.mirror.version == version.name:
            yield mirror_name(model.name, version.name), version.name, True

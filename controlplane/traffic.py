"""Observed traffic: a fold of the clients' load reports into the traffic of each version.

A report names clusters, so traffic is counted by cluster: `MODEL/VERSION`, `MODEL/VERSION/mirror` for a mirror's copies, or
`MODEL/VERSION/fallback/FALLBACK` for the requests of VERSION that a fallback takes over. A model with gRPC ports has each of
these twice; what the second one, `MODEL/VERSION/grpc…`, reports is counted as the first one's.
There are three numbers for each cluster:

    totals    tries since the control plane started; they only grow
    rate      tries per second now: the sum of the newest reports of all connected clients
    recent    tries of the last 30 to 60 seconds

When a client disconnects, its tries stay in the totals, and its rate is subtracted.

Clients count tries, not requests: a request that is retried twice is three tries, and a report can't tell them apart.

    issued      the try was sent to an endpoint. Envoy counts no try here whose connection failed
    succeeded   the head of an answer came, and it is not an error. With gRPC: the trailers came
    failed      an error came, no connection could be made, or the answer did not come in time
    active      the try is in flight: it is not complete. A streamed answer counts as succeeded and as active
    unsent      failed without being issued: more failed than could have been in flight
    gone        issued, and neither succeeded nor failed nor in flight: the client left before an answer

Reports have neither `unsent` nor `gone`. Both follow from the other counts, as the least number that explains them:

    tries = issued + unsent             unsent = succeeded + failed - issued - active before, of each report; at most failed
    gone  = tries - succeeded - failed - active      of all reports so far

A request that a fallback takes over is an error of the version that was chosen for it, its first try. The version's cluster
reports an error if it answered 429 or 503, or if a connection failed. It reports nothing if it had no healthy endpoint. So

    unreached = tries at the fallbacks - errors of the version, of each report, as the least number

are counted as tries of the version that failed. An error of one report can lead to a fallback's try of the next, so what is
left of the errors counts against the next report, too. The fallback's own cluster, MODEL/FALLBACK, has nothing of all this.

Everything here is a fold of events: there is no I/O, and the time is an argument. The cost of a report depends on the number
of clusters that it names, and not on the size of the fleet. Sums are updated in place, in whole numbers, so that they stay
exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from controlplane.compiler.clusters import cluster_name, mirror_name
from controlplane.compiler.fallback import fallback_name
from controlplane.compiler.grpc_ports import without_grpc
from controlplane.domain import Model
from controlplane.xds.events import ClusterLoad, LoadReported, ReporterIdentified, StreamClosed, StreamId

# Maximum number of pairs of a stream and a cluster whose newest rate is kept; they take about 100 MB. At the bound, a report
# counts only in the totals.
MAX_RATES = 500_000

# Totals are capped at the largest int64, the type of the API's fields.
_MAX_TOTAL = 2**63 - 1

# With at most this many clusters, `publish` does not look for clusters that left desired state.
_FEW_CLUSTERS = 64


# The part of the name of a fallback's cluster between the two versions.
_FALLBACK = fallback_name("", "", "").removeprefix(cluster_name("", "") + "/")
# The same part of the cluster of a mirror's copies.
_MIRROR = mirror_name("", "").removeprefix(cluster_name("", "") + "/")

# Seconds that one half of `Recent` covers.
_HALF = 30.0

TrafficEvent = ReporterIdentified | LoadReported | StreamClosed

# One stream's rate for one cluster, with the fields of `Rate`.
_RateTuple = tuple[int, int, int, int, int]


class Rate(NamedTuple):
    """The tries at a cluster now: thousandths of a try per second, and `active` as a count."""

    tries: int = 0
    succeeded: int = 0
    failed: int = 0
    dropped: int = 0
    active: int = 0


class Totals(NamedTuple):
    """Tries reported since the control plane started."""

    tries: int = 0
    succeeded: int = 0
    failed: int = 0
    dropped: int = 0
    gone: int = 0


class Recent(NamedTuple):
    """Tries that ended within the last 30 to 60 seconds."""

    succeeded: int = 0
    failed: int = 0
    gone: int = 0
    # The length of the time in which these tries ended.
    seconds: float = 2 * _HALF

    @property
    def gone_per_second(self) -> float:
        """Return the number of tries that are gone, per second."""
        return self.gone / self.seconds


class ClusterTraffic:
    """The traffic of one cluster. Read-only outside this module. Times are seconds since the epoch; 0 before any."""

    __slots__ = (
        *("_checked_generation", "_half_end", "_half_number", "_halves", "_rate", "_totals", "_unknown"),
        *("chosen", "last_failure", "last_success", "last_try", "nodes"),
    )

    def __init__(self) -> None:
        # The fields of `Totals` and `Rate`. Lists, since each report changes them in place.
        self._totals = [0, 0, 0, 0, 0]
        self._rate = [0, 0, 0, 0, 0]
        # The counts of `Recent` twice: of the newest half minute with a try, and of the half minute before that one.
        self._halves = ([0, 0, 0], [0, 0, 0])
        # The newest of these half minutes: its start divided by _HALF, and its end.
        self._half_number = self._half_end = 0.0
        # Tries in flight whose end nobody reports: those of clients that disconnected.
        self._unknown = 0
        # Number of nodes whose newest report has tries at this cluster.
        self.nodes = 0
        # Times of the newest report with tries at this cluster, with successes, and with errors.
        self.last_try = self.last_success = self.last_failure = 0.0
        # If it is a cluster of a version with fallbacks, or of one of its fallbacks: the version's cluster. Else "".
        self.chosen = ""
        # The generation of models in which this cluster was last checked to belong to a model.
        self._checked_generation = 0

    @property
    def totals(self) -> Totals:
        """Return the tries since the control plane started."""
        return Totals(*(min(count, _MAX_TOTAL) for count in self._totals))

    @property
    def rate(self) -> Rate:
        """Return the sum of the newest reports of all clients."""
        return Rate(*self._rate)

    def recent(self, now: float) -> Recent:
        """Return the tries that ended in the last 30 to 60 seconds."""
        age = now // _HALF - self._half_number
        halves = self._halves if age <= 0 else self._halves[:1] if age == 1 else ()
        succeeded, failed, gone = (sum(half[i] for half in halves) for i in range(3))
        return Recent(succeeded, failed, gone, _HALF + now % _HALF)

    def _count(self, load: ClusterLoad, active_before: int, now: float) -> int:
        """Add a report to the totals, and return the number of tries."""
        _, tries, succeeded, failed, dropped, _, _ = load
        finished = succeeded + failed
        unsent = finished - tries - active_before
        if unsent > 0:
            tries += min(unsent, failed)
        totals = self._totals
        totals[0] += tries
        totals[1] += succeeded
        totals[2] += failed
        totals[3] += dropped
        if tries or dropped:
            self.last_try = now
        if finished:
            half = self._half(now)
            if succeeded:
                self.last_success = now
                half[0] += succeeded
            if failed:
                self.last_failure = now
                half[1] += failed
        return tries

    def _count_gone(self, now: float) -> None:
        """Count the tries that are gone. Call it once the rate has the newest number of tries in flight."""
        totals = self._totals
        gone = totals[0] - totals[1] - totals[2] - self._rate[4] - self._unknown
        if gone > totals[4]:
            self._half(now)[2] += gone - totals[4]
            totals[4] = gone

    def _half(self, now: float) -> list[int]:
        """Return the counts of the newest half of `Recent`. Start a new half if the newest is over."""
        if now >= self._half_end:
            number = now // _HALF
            consecutive = number == self._half_number + 1
            self._halves = [0, 0, 0], (self._halves[0] if consecutive else [0, 0, 0])
            self._half_number = number
            self._half_end = (number + 1) * _HALF
        return self._halves[0]


@dataclass(slots=True, eq=False)
class _Stream:
    node: str
    # The newest report, by cluster. Clusters without requests are left out.
    rates: dict[str, _RateTuple] = field(default_factory=dict)
    # Errors of versions with fallbacks in the newest report that no fallback's try follows yet, by cluster.
    surplus: dict[str, int] = field(default_factory=dict)


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

    def suspicious(self, share: float) -> Iterator[tuple[str, ClusterTraffic]]:
        """Yield the clusters that may have a problem, by name. Most have none, so this is quick.

        These are clusters of whose tries at least `share` fail now, whose last tries failed, or that have lost tries lately.
        """
        for name, traffic in self._clusters.items():
            _, succeeded, failed, _, _ = traffic._rate
            newest, before = traffic._halves
            errors = failed and failed >= share * (succeeded + failed)
            if errors or newest[2] or before[2] or traffic.last_failure > traffic.last_success:
                yield name, traffic

    def finished(self) -> tuple[int, int]:
        """Return the tries that end and those that fail now, without copies, in thousandths of a try per second."""
        rates = [traffic._rate for name, traffic in self._clusters.items() if not receiver_of(name).copies]
        failed = sum(rate[2] for rate in rates)
        return sum(rate[1] for rate in rates) + failed, failed

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
            self._replace(reporter, self._add_to_totals(reporter, _with_grpc_ports(event.loads), now), now)
            self.last_report = now
            return
        for cluster, rate in reporter.rates.items():
            self._clusters[cluster]._unknown += rate[4]
        self._replace(reporter, {}, now)
        del self._streams[stream]
        streams = self._nodes[reporter.node]
        streams.remove(reporter)
        if not streams:
            del self._nodes[reporter.node]

    def _add_to_totals(self, stream: _Stream, loads: Iterable[ClusterLoad], now: float) -> dict[str, _RateTuple]:
        """Add a report of a stream to the totals, and return its rates by cluster."""
        rates: dict[str, _RateTuple] = {}
        before = stream.rates
        levels: list[ClusterLoad] = []
        for load in chain(loads, self._unreached(stream, levels)):
            cluster, _, succeeded, failed, dropped, active, milliseconds = load
            traffic = self._clusters.get(cluster)
            if traffic is None or traffic._checked_generation != self._generation:
                if not self._in_state(cluster):
                    continue
                traffic = self._clusters.setdefault(cluster, ClusterTraffic())
                traffic._checked_generation = self._generation
                traffic.chosen = self._chosen(cluster)
            if traffic.chosen:
                levels.append(load)
            # A report may name a cluster twice. What was in flight before counts once.
            tries = traffic._count(load, before[cluster][4] if cluster in before and cluster not in rates else 0, now)
            if milliseconds:
                k, ms = 1_000_000, milliseconds  # tries per millisecond, times k, are thousandths of a try per second
                rate = (tries * k // ms, succeeded * k // ms, failed * k // ms, dropped * k // ms, active)
            else:  # the rate is unknown without the length of the interval
                rate = (0, 0, 0, 0, active)
            if cluster in rates:
                a, b, c, d, e = rates[cluster]
                rate = (a + rate[0], b + rate[1], c + rate[2], d + rate[3], e + rate[4])
            if any(rate):
                rates[cluster] = rate
        return rates

    def _replace(self, stream: _Stream, rates: dict[str, _RateTuple], now: float) -> None:
        """Replace a stream's newest report, and update the sums."""
        if self._rate_count - len(stream.rates) + len(rates) > MAX_RATES:
            for cluster, rate in rates.items():
                self._clusters[cluster]._unknown += rate[4]
            rates = {}
        self._rate_count += len(rates) - len(stream.rates)
        others = [s for s in self._nodes[stream.node] if s is not stream]
        for change, sign in ((stream.rates, -1), (rates, 1)):
            for cluster, (tries, succeeded, failed, dropped, active) in change.items():
                traffic = self._clusters[cluster]
                sums = traffic._rate
                sums[0] += sign * tries
                sums[1] += sign * succeeded
                sums[2] += sign * failed
                sums[3] += sign * dropped
                sums[4] += sign * active
                if not others or not any(cluster in s.rates for s in others):
                    traffic.nodes += sign
                if sign > 0:
                    traffic._count_gone(now)
        for cluster in stream.rates.keys() - rates.keys():
            self._clusters[cluster]._count_gone(now)
        stream.rates = rates

    def _unreached(self, stream: _Stream, levels: list[ClusterLoad]) -> Iterator[ClusterLoad]:
        """Yield loads of the requests that fallbacks took over and that their versions' reports don't explain.

        `levels` are the loads of the clusters with `chosen`. They are complete when the first load is asked for.
        """
        balances: dict[str, int] = {}
        for load in levels:
            chosen = self._clusters[load.cluster].chosen
            balances[chosen] = balances.get(chosen, 0) + (-load.failed if load.cluster == chosen else load.issued)
        earlier, stream.surplus = stream.surplus, {c: -balance for c, balance in balances.items() if balance < 0}
        for chosen, balance in balances.items():
            if (unreached := balance - earlier.get(chosen, 0)) > 0:
                yield ClusterLoad(chosen, 0, 0, unreached, 0, 0, levels[0].milliseconds)

    def _in_state(self, cluster: str) -> bool:
        """Return True if a cluster is one of `model_clusters` of a model of `models`."""
        receiver = receiver_of(cluster)
        model = self._models.get(receiver.model)
        if model is None or all(v.name != receiver.version for v in model.versions):
            return False
        if receiver.fallback_for:
            return any(v.name == receiver.fallback_for and receiver.version in v.fallback for v in model.versions)
        return cluster in (cluster_name(model.name, receiver.version), mirror_name(model.name, receiver.version))

    def _chosen(self, cluster: str) -> str:
        """Return the value of `ClusterTraffic.chosen` for a cluster of desired state."""
        receiver = receiver_of(cluster)
        version = receiver.fallback_for or receiver.version
        own = cluster_name(receiver.model, version)
        return own if not receiver.copies and self._models[receiver.model].version(version).fallback else ""


def _with_grpc_ports(loads: Sequence[ClusterLoad]) -> Sequence[ClusterLoad]:
    """Return the loads with those of gRPC ports added to those of the same version and use."""
    if not any("/grpc" in load.cluster for load in loads):
        return loads
    sums: dict[str, ClusterLoad] = {}
    for load in loads:
        name = without_grpc(load.cluster)
        if (other := sums.get(name)) is None:
            sums[name] = load._replace(cluster=name)
        else:
            _, issued, succeeded, failed, dropped, active, milliseconds = other
            sums[name] = ClusterLoad(
                name,
                issued + load.issued,
                succeeded + load.succeeded,
                failed + load.failed,
                dropped + load.dropped,
                active + load.active,
                max(milliseconds, load.milliseconds),
            )
    return list(sums.values())


class Receiver(NamedTuple):
    """The endpoints that a cluster sends to, and what for."""

    model: str
    version: str
    # True for a mirror's copies.
    copies: bool = False
    # The version that was chosen for the requests, if they went to a fallback; "" else.
    fallback_for: str = ""


def model_clusters(model: Model) -> Iterator[tuple[str, Receiver]]:
    """Yield the clusters of a model that get requests, each with its receiver, the newest version first."""
    name = model.name
    for version in reversed(model.versions):
        yield cluster_name(name, version.name), Receiver(name, version.name)
        if model.mirror is not None and model.mirror.version == version.name:
            yield mirror_name(name, version.name), Receiver(name, version.name, copies=True)
        for fallback in version.fallback:
            yield fallback_name(name, version.name, fallback), Receiver(name, fallback, fallback_for=version.name)


def receiver_of(cluster: str) -> Receiver:
    """Return the receiver of a cluster, going by its name."""
    model, _, remainder = cluster.partition("/")
    version, _, use = remainder.partition("/")
    if use.startswith(_FALLBACK):
        return Receiver(model, use.removeprefix(_FALLBACK), fallback_for=version)
    return Receiver(model, version, copies=use == _MIRROR)

"""Load reports (LRS, `envoy.service.load_stats.v3`, rule 36): how many requests clients sent to each cluster, and the results.

The client opens the stream and names itself. The server answers what to report, and how often. Then the client reports at that
interval until the stream ends. Clients report in this way:

    reports are deltas        a counter has the requests since the previous report. Only the number of requests in progress is
                              a level
    nothing is ACKed          the counters of the last interval of a broken stream may never be reported
    counting starts late      Envoy counts a cluster from the interval after it first saw it: a new cluster's first requests
                              are missing
    idle clusters             Envoy lists each in every report, without counters; gRPC's client leaves them out
    the node                  Envoy repeats it in every report, with the list of its extensions: 60 KB

Because of the last two, reports cost more CPU and more of the network the larger the fleet is. So the interval depends on the
amount to read (`pace`), and the server asks again when it has changed by a factor of two. A client that can't report all
clusters by itself is sent their names, and again when they change.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from envoy.service.load_stats.v3 import lrs_pb2

from controlplane.xds.events import ClusterLoad, Identified, LoadEvent, LoadReported, ReporterIdentified
from controlplane.xds.node import identified

# A client with this feature can be asked for all of its clusters, without their names.
SEND_ALL = "envoy.lrs.supports_send_all_clusters"

# Seconds between two reports of a client: the shortest interval; the longest one that is chosen to save bytes on the network;
# the longest one.
SHORTEST, MODERATE, LONGEST = 2.0, 10.0, 600.0

# The sum of all reports of a second in bytes, as long as the interval is below MODERATE. It is that of 16 Envoys.
_BYTES_PER_SECOND = 1_000_000
# Size of an Envoy's report.
_REPORT_BYTES = 60_000

# Costs of reading, in units of one idle cluster (about 0.6 µs): all reports of a second, which may take about a twentieth of a
# core; one Envoy's report without its clusters; a cluster with requests.
_COST_PER_SECOND, _REPORT_COST, _BUSY_COST = 100_000, 600, 8

# No client sends as many requests between two reports, so a larger number is invalid.
_MOST_REQUESTS = 2**48
_LONGEST_REPORTED = 24 * 3600


def pace(streams: int, size: int, length: int = _REPORT_BYTES, shortest: float = SHORTEST) -> float:
    """Return the seconds between two reports of a client if this many streams report.

    `size` and `length` are those of its newest report (`LoadStream.size`, `LoadStream.length`). The result is at least
    `shortest`. A fleet of up to 33 Envoys reports every 2 s, one of 160 Envoys every 10 s. Larger fleets report less often if
    reading would take more than a twentieth of a core.
    """
    for_network = min(streams * length / _BYTES_PER_SECOND, MODERATE)
    return max(shortest, for_network, min(streams * size / _COST_PER_SECOND, LONGEST))


class LoadStream:
    """One stream of LoadReportingService, from the server's side."""

    def __init__(self) -> None:
        # None until the first request.
        self.client: Identified | None = None
        # The client can be asked for all of its clusters.
        self.sends_all = False
        # The cost of reading the newest report, in idle clusters, and its bytes.
        self.size, self.length = _REPORT_COST, _REPORT_BYTES
        # The interval and the cluster names of the newest response; 0 and None before the first.
        self._pace = 0.0
        self._names: frozenset[str] | None = None
        self._out: list[bytes] = []

    def receive(self, request: Any, length: int = _REPORT_BYTES) -> list[LoadEvent]:
        """Take a LoadStatsRequest of `length` bytes."""
        self.length = length
        events: list[LoadEvent] = []
        if self.client is None:
            self.client = identified(request.node)
            self.sends_all = SEND_ALL in request.node.client_features
            events.append(ReporterIdentified(self.client.id))
        # The first request only opens the stream. But after a break it may already carry a report.
        if self._pace or request.cluster_stats:
            loads = tuple([load for stats in request.cluster_stats if (load := _load(stats)) is not None])
            self.size = _REPORT_COST + len(request.cluster_stats) + _BUSY_COST * len(loads)
            events.append(LoadReported(loads))
        return events

    def ask(self, seconds: float, names: Iterable[str]) -> None:
        """Ask for reports at this interval: of all clusters, or of these if the client needs their names.

        Sends nothing if the client was already asked for these clusters at nearly this interval.
        """
        wanted = None if self.sends_all else frozenset(names)
        if wanted == self._names and self._pace / 2 < seconds < self._pace * 2:
            return
        self._pace, self._names = seconds, wanted
        response = lrs_pb2.LoadStatsResponse(send_all_clusters=self.sends_all, clusters=sorted(wanted or ()))
        response.load_reporting_interval.FromMilliseconds(round(seconds * 1000))
        self._out.append(response.SerializeToString())

    def to_send(self) -> list[bytes]:
        """Take out the serialised responses, in the order to send."""
        out, self._out = self._out, []
        return out


def _load(stats: Any) -> ClusterLoad | None:
    """Return one cluster's part of a report; None if it has no requests, or is invalid."""
    dropped = stats.total_dropped_requests
    localities = stats.upstream_locality_stats
    if not localities and not dropped:
        return None
    issued = succeeded = failed = active = 0
    for part in localities:
        issued += part.total_issued_requests
        succeeded += part.total_successful_requests
        failed += part.total_error_requests
        active += part.total_requests_in_progress
    interval = stats.load_report_interval
    valid = 0 <= interval.seconds <= _LONGEST_REPORTED and 0 <= interval.nanos < 1_000_000_000
    counts = (issued, succeeded, failed, dropped, active)
    if not valid or max(counts) > _MOST_REQUESTS or not any(counts):
        return None
    return ClusterLoad(stats.cluster_name, *counts, interval.seconds * 1000 + interval.nanos // 1_000_000)

"""Load reports (LRS, `envoy.service.load_stats.v3`): clients say how many requests they sent where, and how those ended.

The client opens the stream and says who it is; the server answers what to report and how often; then the client reports at
that pace until one of them ends the stream. What counts is decided by how clients do it:

    reports are deltas        a counter is what came since the report before; only requests under way are a level
    nothing is acknowledged   what was counted in the last interval of a stream that breaks may never be reported
    counting starts late      Envoy counts a cluster from the interval after it first saw it: a new cluster's first requests
                              are missing
    idle clusters             Envoy names each in every report, with nothing in it; gRPC's client leaves them out
    the node                  Envoy repeats it in every report, with the list of its extensions: 60 KB

The last two make reports dear, the more so the larger the fleet is. So the pace follows from what there is to read (`pace`),
and the server asks anew when it has become another by a factor of two. A client that can't send all clusters is
told which, and again when they change.

As all of `xds`: no sockets and no clock, and events are plain values.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from envoy.service.load_stats.v3 import lrs_pb2

from controlplane.xds.events import ClusterLoad, Identified, LoadEvent, LoadReported, ReporterIdentified
from controlplane.xds.node import identified

# A client that says so can be asked for all of its clusters, without their names.
SEND_ALL = "envoy.lrs.supports_send_all_clusters"

# Seconds between two reports of a client, at least and at most.
SHORTEST, LONGEST = 10.0, 600.0

# What may be read in a second, in idle clusters, at about 0.6 µs each; and what is as dear as so many of them: the rest of an
# Envoy's report, and a cluster that has requests. So reports take about a twentieth of a core.
_READ, _REPORT, _BUSY = 100_000, 600, 8

# No client sends as many requests between two reports: such numbers are garbage.
_MOST_REQUESTS = 2**48
_LONGEST_REPORTED = 24 * 3600


def pace(streams: int, size: int, shortest: float = SHORTEST) -> float:
    """Seconds between reports of this size (`LoadStream.size`), when so many streams report; `shortest` at least."""
    return max(shortest, min(streams * size / _READ, LONGEST))


class LoadStream:
    """One stream of LoadReportingService, from the server's side."""

    def __init__(self) -> None:
        # None until the client has said who it is.
        self.client: Identified | None = None
        # Whether it can be asked for all of its clusters.
        self.sends_all = False
        # What it took to read its newest report, in idle clusters.
        self.size = _REPORT
        # What it was last asked for; 0 and None before.
        self._pace = 0.0
        self._names: frozenset[str] | None = None
        self._out: list[bytes] = []

    def receive(self, request: Any) -> list[LoadEvent]:
        """Takes a LoadStatsRequest."""
        events: list[LoadEvent] = []
        if self.client is None:
            self.client = identified(request.node)
            self.sends_all = SEND_ALL in request.node.client_features
            events.append(ReporterIdentified(self.client.id))
        # The first request only opens the stream; but one that comes after a break may already carry a report.
        if self._pace or request.cluster_stats:
            loads = tuple([load for stats in request.cluster_stats if (load := _load(stats)) is not None])
            self.size = _REPORT + len(request.cluster_stats) + _BUSY * len(loads)
            events.append(LoadReported(loads))
        return events

    def ask(self, seconds: float, names: Iterable[str]) -> None:
        """Asks for a report each so many seconds: of all clusters, or of these where the client wants to be told.

        Nothing is sent when it was asked for that already, or for nearly that.
        """
        wanted = None if self.sends_all else frozenset(names)
        if wanted == self._names and self._pace / 2 < seconds < self._pace * 2:
            return
        self._pace, self._names = seconds, wanted
        response = lrs_pb2.LoadStatsResponse(send_all_clusters=self.sends_all, clusters=sorted(wanted or ()))
        response.load_reporting_interval.FromMilliseconds(round(seconds * 1000))
        self._out.append(response.SerializeToString())

    def to_send(self) -> list[bytes]:
        """Serialised responses, in the order to send."""
        out, self._out = self._out, []
        return out


def _load(stats: Any) -> ClusterLoad | None:
    """One cluster's part of a report; None when there was nothing, or it can't be."""
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
    lasted = stats.load_report_interval
    sound = 0 <= lasted.seconds <= _LONGEST_REPORTED and 0 <= lasted.nanos < 1_000_000_000
    counts = (issued, succeeded, failed, dropped, active)
    if not sound or max(counts) > _MOST_REQUESTS or not any(counts):
        return None
    return ClusterLoad(stats.cluster_name, *counts, lasted.seconds * 1000 + lasted.nanos // 1_000_000)

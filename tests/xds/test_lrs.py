"""Load reports: what the server asks a client to report, and what the reports mean (rule 36)."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from envoy.config.endpoint.v3 import load_report_pb2
from envoy.service.load_stats.v3 import lrs_pb2

from controlplane.xds.events import ClusterLoad, Identified, LoadReported, ReporterIdentified
from controlplane.xds.lrs import LONGEST, SEND_ALL, SHORTEST, LoadStream, pace

NAMES = ("iris/blue", "iris/green")


def hello(*features: str) -> Any:
    request = lrs_pb2.LoadStatsRequest()
    request.node.id, request.node.cluster = "edge-1", "edge"
    request.node.user_agent_name = "envoy"
    request.node.client_features.extend(features)
    return request


def stats(cluster: str = "iris/blue", milliseconds: int = 10_000, **counts: int) -> Any:
    """A cluster with one locality; `issued=3` is its `total_issued_requests`."""
    names = {
        "issued": "total_issued_requests",
        "succeeded": "total_successful_requests",
        "failed": "total_error_requests",
        "active": "total_requests_in_progress",
    }
    part = load_report_pb2.UpstreamLocalityStats(**{names[name]: count for name, count in counts.items()})
    cluster_stats = load_report_pb2.ClusterStats(cluster_name=cluster, upstream_locality_stats=[part] if counts else [])
    cluster_stats.load_report_interval.FromMilliseconds(milliseconds)
    return cluster_stats


def report(*clusters: Any) -> Any:
    return lrs_pb2.LoadStatsRequest(cluster_stats=clusters)


def answers(stream: LoadStream) -> list[Any]:
    return [lrs_pb2.LoadStatsResponse.FromString(message) for message in stream.to_send()]


def opened(*features: str) -> LoadStream:
    stream = LoadStream()
    stream.receive(hello(*features))
    stream.ask(SHORTEST, NAMES)
    stream.to_send()
    return stream


def test_the_first_report_is_answered_with_what_to_send_and_how_often() -> None:
    stream = LoadStream()
    assert stream.receive(hello(SEND_ALL)) == [ReporterIdentified("edge-1")]
    assert stream.client == Identified("edge-1", "edge", {}, "envoy")
    assert stream.to_send() == []
    stream.ask(12.5, NAMES)
    (answer,) = answers(stream)
    assert (answer.send_all_clusters, list(answer.clusters)) == (True, [])
    assert answer.load_reporting_interval.ToMilliseconds() == 12_500
    assert answers(stream) == []


def test_a_client_that_needs_names_is_sent_them_and_again_when_they_change() -> None:
    stream = LoadStream()
    stream.receive(hello())
    stream.ask(SHORTEST, reversed(NAMES))
    (answer,) = answers(stream)
    assert (answer.send_all_clusters, list(answer.clusters)) == (False, list(NAMES))
    stream.receive(report())
    stream.ask(SHORTEST, NAMES)
    assert answers(stream) == []
    stream.ask(SHORTEST, ["iris/red"])
    assert [list(a.clusters) for a in answers(stream)] == [["iris/red"]]


def test_a_report_is_not_answered_while_the_pace_is_about_the_same() -> None:
    stream = opened(SEND_ALL)
    for seconds in (SHORTEST, SHORTEST * 1.9, SHORTEST * 0.6):
        stream.receive(report(stats(issued=1)))
        stream.ask(seconds, NAMES)
        assert answers(stream) == [], seconds
    stream.ask(SHORTEST * 2, NAMES)
    assert [a.load_reporting_interval.seconds for a in answers(stream)] == [2 * SHORTEST]
    stream.ask(SHORTEST * 1.5, NAMES)
    assert answers(stream) == []


def test_reports_are_deltas_and_requests_in_progress_are_a_level() -> None:
    stream = opened(SEND_ALL)
    (event,) = stream.receive(report(stats(issued=5, succeeded=3, failed=1, active=1), stats("iris/green")))
    assert event == LoadReported((ClusterLoad("iris/blue", 5, 3, 1, 0, 1, 10_000),))
    assert stream.receive(report(stats(), stats("iris/green"))) == [LoadReported(())]


def test_localities_are_added_up_and_dropped_requests_count() -> None:
    both = stats(issued=2, succeeded=2)
    both.upstream_locality_stats.append(stats(issued=3, failed=3).upstream_locality_stats[0])
    both.total_dropped_requests = 7
    only_drops = stats("iris/green", 500)
    only_drops.total_dropped_requests = 1
    (event,) = opened(SEND_ALL).receive(report(both, only_drops))
    assert event == LoadReported(
        (ClusterLoad("iris/blue", 5, 2, 3, 7, 0, 10_000), ClusterLoad("iris/green", 0, 0, 0, 1, 0, 500))
    )


def test_the_first_request_after_a_reconnect_may_be_a_report() -> None:
    request = hello(SEND_ALL)
    request.cluster_stats.append(stats(issued=4))
    joined, reported = LoadStream().receive(request)
    assert joined == ReporterIdentified("edge-1")
    assert reported == LoadReported((ClusterLoad("iris/blue", 4, 0, 0, 0, 0, 10_000),))


def test_the_client_is_reported_once() -> None:
    stream = opened(SEND_ALL)
    again = hello()
    again.cluster_stats.append(stats(issued=1))
    (event,) = stream.receive(again)
    assert isinstance(event, LoadReported)
    assert stream.sends_all


@pytest.mark.parametrize(
    "garbage",
    [
        stats(issued=2**63),
        stats(issued=2**64 - 1, succeeded=1),
        stats(active=2**60),
        stats(issued=1, milliseconds=-5),
        stats(issued=1, milliseconds=86_400_000 * 2),
        stats(issued=0),
    ],
)
def test_impossible_numbers_are_left_out(garbage: Any) -> None:
    (event,) = opened(SEND_ALL).receive(report(garbage, stats("iris/green", issued=1)))
    assert isinstance(event, LoadReported)
    assert [load.cluster for load in event.loads] == ["iris/green"]


def test_the_pace_depends_on_the_amount_to_read() -> None:
    envoy = 60_000
    assert pace(1, 1_000, envoy) == SHORTEST
    assert pace(1, 1_000, envoy, 1.0) == 1.0
    # The network: 1 MB a second, until the interval is 10 s.
    assert pace(33, 1_000, envoy) == SHORTEST
    assert pace(100, 1_000, envoy) == pytest.approx(6.0)
    assert pace(1_000, 1_000, envoy) == pytest.approx(10.0)
    assert pace(1_000, 100, 500) == SHORTEST  # clients with small reports
    # The processor.
    assert pace(5_000, 1_000, envoy) == pytest.approx(50.0)
    assert pace(100_000, 10_000, envoy) == LONGEST
    assert pace(1, 1_000, envoy, 3_600.0) == 3_600.0


def test_the_size_of_a_report_grows_with_clusters_and_with_busy_clusters() -> None:
    stream = opened(SEND_ALL)
    sizes = []
    for clusters in ((), [stats()] * 100, [stats(issued=1)] * 100):
        stream.receive(report(*clusters))
        sizes.append(stream.size)
    assert sizes[0] < sizes[1] < sizes[2]


def test_events_can_be_pickled() -> None:
    events = [*LoadStream().receive(hello(SEND_ALL)), *opened(SEND_ALL).receive(report(stats(issued=1)))]
    assert pickle.loads(pickle.dumps(events)) == events

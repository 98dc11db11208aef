"""Observed traffic: a fold of load reports into the totals and the rate of each version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane import traffic as module
from controlplane.domain import Endpoint, Mirror, Model, Version
from controlplane.traffic import NO_TRAFFIC, Rate, Receiver, Recent, Totals, Traffic, model_clusters, receiver_of
from controlplane.xds.events import ClusterLoad, LoadReported, ReporterIdentified, StreamClosed


def model(name: str = "iris", *versions: str, mirror: str = "") -> Model:
    of = tuple(Version(v, (Endpoint("127.0.0.1", 9001),)) for v in versions or ("blue", "green"))
    return Model(name, ("edge",), of, {of[0].name: 10_000}, mirror=Mirror(mirror) if mirror else None)


def models(*objects: Model) -> Mapping[str, Model]:
    return {m.name: m for m in objects}


@pytest.fixture
def traffic() -> Traffic:
    empty = Traffic()
    empty.publish(models(model(mirror="green")))
    return empty


def load(cluster: str = "iris/blue", issued: int = 0, failed: int = 0, active: int = 0, ms: int = 10_000) -> ClusterLoad:
    return ClusterLoad(cluster, issued, issued - failed, failed, 0, active, ms)


def connect(traffic: Traffic, stream: int, node: str = "") -> None:
    traffic.apply(stream, ReporterIdentified(node or f"edge-{stream}"), 100.0)


def test_totals_are_the_sum_of_all_reports_and_the_rate_is_of_the_newest_report(traffic: Traffic) -> None:
    connect(traffic, 1)
    traffic.apply(1, LoadReported((load(issued=100, failed=10),)), 110.0)
    traffic.apply(1, LoadReported((load(issued=50, active=2),)), 120.0)
    blue = traffic.cluster("iris/blue")
    assert blue.totals == Totals(150, 140, 10, 0)
    assert blue.rate == Rate(5_000, 5_000, 0, 0, 2)
    assert (blue.nodes, blue.last_try, traffic.last_report) == (1, 120.0, 120.0)


def reported(
    issued: int = 0, succeeded: int = 0, failed: int = 0, active: int = 0, cluster: str = "iris/blue"
) -> LoadReported:
    """Return a report with one cluster, as Envoy sends it."""
    return LoadReported((ClusterLoad(cluster, issued, succeeded, failed, 0, active, 1_000),))


# What a real Envoy reports second by second (tests/envoy/test_tries.py), and the totals and the rate after the last report.
@pytest.mark.parametrize(
    ("reports", "totals", "tries_per_second"),
    [
        ([reported(3, 3)], Totals(3, 3, 0, 0, 0), 3),
        ([reported(3, 0, 3)], Totals(3, 0, 3, 0, 0), 3),
        # Three requests with two retries each.
        ([reported(9, 0, 9)], Totals(9, 0, 9, 0, 0), 9),
        # Refused connections are not issued.
        ([reported(0, 0, 3)], Totals(3, 0, 3, 0, 0), 3),
        # Three clients leave before an answer.
        ([reported(3, active=3), reported(0, active=3), reported()], Totals(3, 0, 0, 0, 3), 0),
        # A streamed answer is a success from its head on, and is in flight until it ends.
        ([reported(1, 1, active=1), reported(0, active=1), reported()], Totals(1, 1, 0, 0, 0), 0),
        # An answer that takes several reports.
        ([reported(2, active=2), reported(active=2), reported(0, 1, 1)], Totals(2, 1, 1, 0, 0), 0),
        # Clients have left, then connections are refused.
        ([reported(3, active=3), reported(), reported(0, 0, 9)], Totals(12, 0, 9, 0, 3), 9),
        # Clients leave while streams are open: the streams hide them until they end.
        ([reported(3, 1, active=3), reported(active=1), reported()], Totals(3, 1, 0, 0, 2), 0),
    ],
)
def test_tries_errors_and_gone(traffic: Traffic, reports: list[LoadReported], totals: Totals, tries_per_second: int) -> None:
    connect(traffic, 1)
    for i, report in enumerate(reports):
        traffic.apply(1, report, 110.0 + i)
    blue = traffic.cluster("iris/blue")
    assert (blue.totals, blue.rate.tries) == (totals, tries_per_second * 1000)


def test_tries_in_flight_at_a_client_that_disconnects_are_not_gone(traffic: Traffic) -> None:
    connect(traffic, 1)
    traffic.apply(1, reported(5, active=5), 110.0)
    traffic.apply(1, StreamClosed(), 111.0)
    assert traffic.cluster("iris/blue").totals == Totals(5)
    connect(traffic, 2, "edge-1")
    traffic.apply(2, reported(0, 5), 112.0)
    assert traffic.cluster("iris/blue").totals == Totals(5, 5)


def test_recent_tries_are_those_of_the_last_30_to_60_seconds(traffic: Traffic) -> None:
    connect(traffic, 1)
    blue = traffic.cluster
    assert blue("iris/blue").recent(100.0) == Recent(seconds=40.0)
    traffic.apply(1, reported(10, 6, 4), 100.0)
    traffic.apply(1, reported(13, 10, active=3), 125.0)
    traffic.apply(1, reported(), 140.0)
    assert blue("iris/blue").recent(149.0) == Recent(16, 4, 3, 59.0)
    assert blue("iris/blue").recent(150.0) == Recent(10, 0, 3, 30.0)
    assert blue("iris/blue").recent(150.0).gone_per_second == 0.1
    assert blue("iris/blue").recent(180.0) == Recent(seconds=30.0)
    traffic.apply(1, reported(1, 1), 300.0)
    assert blue("iris/blue").recent(301.0) == Recent(1, seconds=31.0)
    assert (blue("iris/blue").last_success, blue("iris/blue").last_failure, blue("iris/blue").last_try) == (300, 100, 300)


def test_only_clusters_with_errors_or_gone_tries_are_suspicious(traffic: Traffic) -> None:
    connect(traffic, 1)
    traffic.apply(1, reported(9, 9), 100.0)
    assert list(traffic.suspicious(0.05)) == []
    traffic.apply(1, reported(9, 8, 1, cluster="iris/green/mirror"), 110.0)
    assert [name for name, _ in traffic.suspicious(0.05)] == ["iris/green/mirror"]
    assert list(traffic.suspicious(0.5)) == []
    traffic.apply(1, reported(9, 9, cluster="iris/green/mirror"), 120.0)
    traffic.apply(1, reported(9, active=9), 125.0)
    traffic.apply(1, reported(), 126.0)
    assert [name for name, _ in traffic.suspicious(0.05)] == ["iris/blue"]


def test_the_tries_of_all_versions_are_summed_without_copies(traffic: Traffic) -> None:
    connect(traffic, 1)
    loads = (
        *reported(9, 7, 2).loads,
        *reported(3, 3, cluster="iris/green").loads,
        *reported(5, 5, cluster="iris/green/mirror").loads,
    )
    traffic.apply(1, LoadReported(loads), 100.0)
    assert traffic.finished() == (12_000, 2_000)


@pytest.mark.parametrize(
    ("cluster", "receiver"),
    [
        ("iris/green", Receiver("iris", "green")),
        ("iris/green/mirror", Receiver("iris", "green", copies=True)),
        ("iris/mirror", Receiver("iris", "mirror")),
        ("iris/mirror/mirror", Receiver("iris", "mirror", copies=True)),
        ("iris/green/fallback/mirror", Receiver("iris", "mirror", fallback_for="green")),
        ("iris/fallback/mirror", Receiver("iris", "fallback", copies=True)),
        ("mirror/green", Receiver("mirror", "green")),
    ],
)
def test_a_cluster_names_its_receiver_whatever_versions_are_called(cluster: str, receiver: Receiver) -> None:
    assert receiver_of(cluster) == receiver


def test_a_version_called_mirror_is_no_mirror() -> None:
    first = replace(model().version("blue"), name="mirror")
    traffic = Traffic()
    traffic.publish({"iris": replace(model(), versions=(first,), split={"mirror": 10_000}, mirror=None)})
    connect(traffic, 1)
    traffic.apply(1, reported(10, 9, 1, cluster="iris/mirror"), 100.0)
    assert traffic.finished() == (10_000, 1_000)


def test_a_version_without_requests_keeps_its_totals(traffic: Traffic) -> None:
    connect(traffic, 1)
    traffic.apply(1, LoadReported((load(issued=100, active=3),)), 110.0)
    traffic.apply(1, LoadReported((load(active=3), load("iris/green", issued=90))), 120.0)
    assert traffic.cluster("iris/blue").rate == Rate(active=3)
    traffic.apply(1, LoadReported((load("iris/green", issued=90),)), 130.0)
    blue, green = traffic.cluster("iris/blue"), traffic.cluster("iris/green")
    assert (blue.totals.tries, blue.rate, blue.nodes, blue.last_try) == (100, Rate(), 0, 110.0)
    assert (green.totals.tries, green.rate.tries, green.nodes, green.last_try) == (180, 9_000, 1, 130.0)


def test_a_client_that_disconnects_stays_in_the_totals(traffic: Traffic) -> None:
    connect(traffic, 1)
    connect(traffic, 2)
    for stream in (1, 2):
        traffic.apply(stream, LoadReported((load(issued=100),)), 110.0)
    assert (traffic.cluster("iris/blue").rate.tries, traffic.cluster("iris/blue").nodes, traffic.reporting) == (20_000, 2, 2)
    traffic.apply(1, StreamClosed(), 120.0)
    blue = traffic.cluster("iris/blue")
    assert (blue.totals.tries, blue.rate.tries, blue.nodes) == (200, 10_000, 1)
    assert (traffic.reporting, list(traffic.by_node("iris/blue"))) == (1, ["edge-2"])
    traffic.apply(1, LoadReported((load(issued=1),)), 121.0)
    assert traffic.cluster("iris/blue").totals.tries == 200


def test_several_streams_of_a_node_are_one_node(traffic: Traffic) -> None:
    connect(traffic, 1, "app")
    connect(traffic, 2, "app")
    for stream in (1, 2):
        traffic.apply(stream, LoadReported((load(issued=100),)), 110.0)
    assert (traffic.cluster("iris/blue").nodes, traffic.reporting) == (1, 1)
    assert traffic.by_node("iris/blue") == {"app": Rate(20_000, 20_000)}
    traffic.apply(2, LoadReported(()), 120.0)
    assert traffic.cluster("iris/blue").nodes == 1
    traffic.apply(1, StreamClosed(), 121.0)
    assert (traffic.cluster("iris/blue").nodes, traffic.reporting, traffic.by_node("iris/blue")) == (0, 1, {})


def test_one_report_may_name_a_cluster_twice(traffic: Traffic) -> None:
    connect(traffic, 1)
    traffic.apply(1, LoadReported((load(issued=10), load(issued=20))), 110.0)
    assert (traffic.cluster("iris/blue").totals.tries, traffic.cluster("iris/blue").rate.tries) == (30, 3_000)


@pytest.mark.parametrize("name", ["turnout", "", "/", "iris", "iris/red", "rose/blue", "iris/blue/", "iris/blue/x", "a/b/c/d"])
def test_reports_of_unknown_clusters_are_dropped(traffic: Traffic, name: str) -> None:
    connect(traffic, 1)
    traffic.apply(1, LoadReported((load(name, issued=10),)), 110.0)
    assert traffic.cluster(name) is NO_TRAFFIC
    assert traffic.by_node(name) == {}


def test_grpc_ports_are_counted_with_their_version(traffic: Traffic) -> None:
    connect(traffic, 1)
    in_flight = (load("iris/blue/grpc", issued=10, active=4), load(issued=100, failed=10, active=1))
    traffic.apply(1, LoadReported((*in_flight, load("iris/green/grpc/mirror", issued=5))), 110.0)
    blue = traffic.cluster("iris/blue")
    assert blue.totals == Totals(110, 100, 10, 0)
    assert blue.rate == Rate(11_000, 10_000, 1_000, 0, 5)
    assert traffic.cluster("iris/green/mirror").totals.tries == 5
    assert traffic.cluster("iris/blue/grpc") is NO_TRAFFIC
    assert traffic.by_node("iris/blue") == {"edge-1": blue.rate}
    # The errors of calls that were in flight are no further tries.
    traffic.apply(1, LoadReported((ClusterLoad("iris/blue/grpc", 0, 0, 4, 0, 0, 10_000), load(active=1))), 120.0)
    assert blue.totals == Totals(110, 100, 14, 0)


def test_a_version_may_be_called_grpc() -> None:
    traffic = Traffic()
    traffic.publish(models(model("iris", "grpc", "green")))
    connect(traffic, 1)
    traffic.apply(1, LoadReported((load("iris/grpc", issued=1), load("iris/grpc/grpc", issued=1))), 110.0)
    assert traffic.cluster("iris/grpc").totals.tries == 2


def test_copies_of_a_mirror_are_counted_separately(traffic: Traffic) -> None:
    connect(traffic, 1)
    traffic.apply(1, LoadReported((load("iris/green/mirror", issued=10),)), 110.0)
    assert traffic.cluster("iris/green/mirror").totals.tries == 10
    assert traffic.cluster("iris/green") is NO_TRAFFIC
    assert list(model_clusters(model(mirror="green"))) == [
        ("iris/green", Receiver("iris", "green")),
        ("iris/green/mirror", Receiver("iris", "green", copies=True)),
        ("iris/blue", Receiver("iris", "blue")),
    ]


TAKEN_OVER = "iris/green/fallback/blue"


@pytest.fixture
def fallback() -> Traffic:
    """Green has the fallback blue, and one stream reports."""
    iris = model()
    green = replace(iris.version("green"), fallback=("blue",))
    traffic = Traffic()
    traffic.publish(models(replace(iris, versions=(iris.version("blue"), green))))
    connect(traffic, 1)
    return traffic


# The reports about green, as (issued, failed), and about what blue took over; green's tries and errors.
@pytest.mark.parametrize(
    ("reports", "tries", "errors"),
    [
        ([((0, 0), 10)], 10, 10),  # no healthy endpoint: green's cluster reports nothing
        ([((10, 10), 10)], 10, 10),  # each was answered 503, or 429, which is an error if it is retried
        ([((20, 20), 10)], 20, 20),  # two endpoints of green were tried for each
        ([((6, 4), 10)], 12, 10),  # four were answered 503, for the other six there was no healthy endpoint
        ([((10, 10), 8), ((0, 0), 2)], 10, 10),  # the last two errors and the tries that followed are in two reports
        ([((10, 10), 8), ((0, 0), 2), ((0, 0), 5)], 15, 15),
        ([((10, 10), 10), ((0, 0), 10)], 20, 20),
    ],
)
def test_what_a_fallback_takes_over_is_an_error_of_the_version_that_was_chosen(
    fallback: Traffic, reports: list[tuple[tuple[int, int], int]], tries: int, errors: int
) -> None:
    for i, ((issued, failed), taken_over) in enumerate(reports):
        loads = (load("iris/green", issued, failed), load(TAKEN_OVER, taken_over))
        fallback.apply(1, LoadReported(loads if i % 2 else loads[::-1]), 110.0 + i)
    green = fallback.cluster("iris/green")
    assert (green.totals.tries, green.totals.failed, green.totals.gone) == (tries, errors, 0)
    assert fallback.cluster(TAKEN_OVER).totals.tries == sum(count for _, count in reports)
    # Who compares blue with green sees only what each was chosen for: blue's own cluster has nothing of this.
    assert fallback.cluster("iris/blue") is NO_TRAFFIC
    assert green.last_failure


def test_a_fallback_is_a_receiver_of_its_own(fallback: Traffic) -> None:
    assert receiver_of(TAKEN_OVER) == Receiver("iris", "blue", fallback_for="green")
    iris = model()
    versions = (iris.version("blue"), replace(iris.version("green"), fallback=("blue",)))
    assert [cluster for cluster, _ in model_clusters(replace(iris, versions=versions))] == [
        "iris/green",
        TAKEN_OVER,
        "iris/blue",
    ]
    for name in ("iris/green/fallback", "iris/blue/fallback/green", "iris/green/fallback/red"):
        fallback.apply(1, LoadReported((load(name, 5),)), 110.0)
        assert fallback.cluster(name) is NO_TRAFFIC


def test_the_rate_of_a_version_has_what_its_fallback_takes_over(fallback: Traffic) -> None:
    fallback.apply(1, LoadReported((load(TAKEN_OVER, 10),)), 110.0)
    assert fallback.cluster("iris/green").rate == Rate(tries=1_000, failed=1_000)
    assert [name for name, _ in fallback.suspicious(0.5)] == ["iris/green"]
    fallback.apply(1, LoadReported((load("iris/green", 10),)), 120.0)
    assert fallback.cluster("iris/green").rate == Rate(1_000, 1_000)


def test_a_report_without_an_interval_counts_in_the_totals_only(traffic: Traffic) -> None:
    connect(traffic, 1)
    traffic.apply(1, LoadReported((load(issued=10, active=1, ms=0),)), 110.0)
    assert (traffic.cluster("iris/blue").totals.tries, traffic.cluster("iris/blue").rate) == (10, Rate(active=1))


def test_totals_are_capped_at_the_largest_int64(traffic: Traffic) -> None:
    connect(traffic, 1)
    for _ in range(3):
        traffic.apply(1, LoadReported((load(issued=2**62),)), 110.0)
    assert traffic.cluster("iris/blue").totals.tries == 2**63 - 1


def test_clusters_that_left_desired_state_are_dropped(traffic: Traffic) -> None:
    connect(traffic, 1)
    for i in range(1_000):
        traffic.publish(models(model(f"m{i}", "v1")))
        traffic.apply(1, LoadReported((load(f"m{i}/v1", issued=1),)), 110.0)
    assert len(traffic._clusters) <= 66
    assert traffic.cluster("m999/v1").totals.tries == 1
    traffic.apply(1, LoadReported(()), 120.0)
    assert traffic.cluster("m999/v1").rate == Rate()


def test_rates_are_bounded_and_reports_above_the_bound_count_in_the_totals(
    traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_RATES", 3)
    for stream in (1, 2):
        connect(traffic, stream)
        traffic.apply(stream, LoadReported((load(issued=10), load("iris/green", issued=10))), 110.0)
    blue = traffic.cluster("iris/blue")
    assert (blue.totals.tries, blue.rate.tries, blue.nodes) == (20, 1_000, 1)
    traffic.apply(1, StreamClosed(), 111.0)
    traffic.apply(2, LoadReported((load(issued=10), load("iris/green", issued=10))), 120.0)
    assert (blue.totals.tries, blue.rate.tries, blue.nodes) == (30, 1_000, 1)


NAMES = ("iris/blue", "iris/green", "rose/blue")
EVENTS = st.one_of(
    st.builds(
        lambda loads: LoadReported(tuple(load(c, n, 0, a, ms) for c, (n, a, ms) in loads.items())),
        st.dictionaries(st.sampled_from(NAMES), st.tuples(st.integers(0, 50), st.integers(0, 3), st.integers(0, 9_999))),
    ),
    st.just(StreamClosed()),
    st.sampled_from(["a", "b"]).map(ReporterIdentified),
)


@given(st.lists(st.tuples(st.integers(0, 3), EVENTS), max_size=30))
def test_random_events_keep_the_sums_equal_to_those_of_all_streams(
    events: list[tuple[int, ReporterIdentified | LoadReported | StreamClosed]],
) -> None:
    traffic = Traffic()
    traffic.publish(models(model()))
    open_now: set[int] = set()
    for stream, event in events:
        if isinstance(event, ReporterIdentified):
            if stream in open_now:
                continue
            open_now.add(stream)
        elif isinstance(event, StreamClosed):
            open_now.discard(stream)
        traffic.apply(stream, event, 100.0)
        for cluster in NAMES:
            by_node = traffic.by_node(cluster)
            sums = [sum(column) for column in zip(*by_node.values(), strict=True)]
            assert list(traffic.cluster(cluster).rate) == (sums or [0] * 5)
            assert traffic.cluster(cluster).nodes == len(by_node)
        assert traffic._rate_count == sum(len(s.rates) for s in traffic._streams.values())
        assert traffic.reporting == len({s.node for s in traffic._streams.values()})

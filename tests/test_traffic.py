"""Observed traffic: a fold of load reports into the totals and the rate of each version."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane import traffic as module
from controlplane.domain import Endpoint, Mirror, Model, Version
from controlplane.traffic import NO_TRAFFIC, Rate, Totals, Traffic, model_clusters
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
    assert (blue.nodes, blue.last_request, traffic.last_report) == (1, 120.0, 120.0)


def test_a_version_without_requests_keeps_its_totals(traffic: Traffic) -> None:
    connect(traffic, 1)
    traffic.apply(1, LoadReported((load(issued=100, active=3),)), 110.0)
    traffic.apply(1, LoadReported((load(active=3), load("iris/green", issued=90))), 120.0)
    assert traffic.cluster("iris/blue").rate == Rate(active=3)
    traffic.apply(1, LoadReported((load("iris/green", issued=90),)), 130.0)
    blue, green = traffic.cluster("iris/blue"), traffic.cluster("iris/green")
    assert (blue.totals.issued, blue.rate, blue.nodes, blue.last_request) == (100, Rate(), 0, 110.0)
    assert (green.totals.issued, green.rate.issued, green.nodes, green.last_request) == (180, 9_000, 1, 130.0)


def test_a_client_that_disconnects_stays_in_the_totals(traffic: Traffic) -> None:
    connect(traffic, 1)
    connect(traffic, 2)
    for stream in (1, 2):
        traffic.apply(stream, LoadReported((load(issued=100),)), 110.0)
    assert (traffic.cluster("iris/blue").rate.issued, traffic.cluster("iris/blue").nodes, traffic.reporting) == (20_000, 2, 2)
    traffic.apply(1, StreamClosed(), 120.0)
    blue = traffic.cluster("iris/blue")
    assert (blue.totals.issued, blue.rate.issued, blue.nodes) == (200, 10_000, 1)
    assert (traffic.reporting, list(traffic.by_node("iris/blue"))) == (1, ["edge-2"])
    traffic.apply(1, LoadReported((load(issued=1),)), 121.0)
    assert traffic.cluster("iris/blue").totals.issued == 200


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
    assert (traffic.cluster("iris/blue").totals.issued, traffic.cluster("iris/blue").rate.issued) == (30, 3_000)


@pytest.mark.parametrize("name", ["turnout", "", "/", "iris", "iris/red", "rose/blue", "iris/blue/", "iris/blue/x", "a/b/c/d"])
def test_reports_of_unknown_clusters_are_dropped(traffic: Traffic, name: str) -> None:
    connect(traffic, 1)
    traffic.apply(1, LoadReported((load(name, issued=10),)), 110.0)
    assert traffic.cluster(name) is NO_TRAFFIC
    assert traffic.by_node(name) == {}


def test_copies_of_a_mirror_are_counted_separately(traffic: Traffic) -> None:
    connect(traffic, 1)
    traffic.apply(1, LoadReported((load("iris/green/mirror", issued=10),)), 110.0)
    assert traffic.cluster("iris/green/mirror").totals.issued == 10
    assert traffic.cluster("iris/green") is NO_TRAFFIC
    assert list(model_clusters(model(mirror="green"))) == [
        ("iris/green", "green", False),
        ("iris/green/mirror", "green", True),
        ("iris/blue", "blue", False),
    ]


def test_a_report_without_an_interval_counts_in_the_totals_only(traffic: Traffic) -> None:
    connect(traffic, 1)
    traffic.apply(1, LoadReported((load(issued=10, active=1, ms=0),)), 110.0)
    assert (traffic.cluster("iris/blue").totals.issued, traffic.cluster("iris/blue").rate) == (10, Rate(active=1))


def test_totals_are_capped_at_the_largest_int64(traffic: Traffic) -> None:
    connect(traffic, 1)
    for _ in range(3):
        traffic.apply(1, LoadReported((load(issued=2**62),)), 110.0)
    assert traffic.cluster("iris/blue").totals.issued == 2**63 - 1


def test_clusters_that_left_desired_state_are_dropped(traffic: Traffic) -> None:
    connect(traffic, 1)
    for i in range(1_000):
        traffic.publish(models(model(f"m{i}", "v1")))
        traffic.apply(1, LoadReported((load(f"m{i}/v1", issued=1),)), 110.0)
    assert len(traffic._clusters) <= 66
    assert traffic.cluster("m999/v1").totals.issued == 1
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
    assert (blue.totals.issued, blue.rate.issued, blue.nodes) == (20, 1_000, 1)
    traffic.apply(1, StreamClosed(), 111.0)
    traffic.apply(2, LoadReported((load(issued=10), load("iris/green", issued=10))), 120.0)
    assert (blue.totals.issued, blue.rate.issued, blue.nodes) == (30, 1_000, 1)


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

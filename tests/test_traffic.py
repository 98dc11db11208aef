"""Loads: reports folded into totals, and into what each version gets now."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane import traffic as module
from controlplane.domain import Endpoint, Mirror, Model, Version
from controlplane.traffic import NO_TRAFFIC, Rate, Totals, Traffic, clusters
from controlplane.xds.events import ClusterLoad, LoadReported, ReporterIdentified, StreamClosed


def model(name: str = "iris", *versions: str, mirror: str = "") -> Model:
    made = tuple(Version(v, (Endpoint("127.0.0.1", 9001),)) for v in versions or ("blue", "green"))
    return Model(name, ("edge",), made, {made[0].name: 10_000}, mirror=Mirror(mirror) if mirror else None)


def models(*made: Model) -> Mapping[str, Model]:
    return {m.name: m for m in made}


@pytest.fixture
def loads() -> Traffic:
    made = Traffic()
    made.publish(models(model(mirror="green")))
    return made


def load(cluster: str = "iris/blue", issued: int = 0, failed: int = 0, active: int = 0, ms: int = 10_000) -> ClusterLoad:
    return ClusterLoad(cluster, issued, issued - failed, failed, 0, active, ms)


def connect(loads: Traffic, stream: int, node: str = "") -> None:
    loads.apply(stream, ReporterIdentified(node or f"edge-{stream}"), 100.0)


def test_what_is_reported_adds_up_and_the_last_interval_is_what_there_is_now(loads: Traffic) -> None:
    connect(loads, 1)
    loads.apply(1, LoadReported((load(issued=100, failed=10),)), 110.0)
    loads.apply(1, LoadReported((load(issued=50, active=2),)), 120.0)
    blue = loads.load("iris/blue")
    assert blue.totals == Totals(150, 140, 10, 0)
    assert blue.rate == Rate(5_000, 5_000, 0, 0, 2)
    assert (blue.nodes, blue.last_request, loads.last_report) == (1, 120.0, 120.0)


def test_a_version_that_gets_nothing_any_more_has_its_totals(loads: Traffic) -> None:
    connect(loads, 1)
    loads.apply(1, LoadReported((load(issued=100, active=3),)), 110.0)
    loads.apply(1, LoadReported((load(active=3), load("iris/green", issued=90))), 120.0)
    assert loads.load("iris/blue").rate == Rate(active=3)
    loads.apply(1, LoadReported((load("iris/green", issued=90),)), 130.0)
    blue, green = loads.load("iris/blue"), loads.load("iris/green")
    assert (blue.totals.issued, blue.rate, blue.nodes, blue.last_request) == (100, Rate(), 0, 110.0)
    assert (green.totals.issued, green.rate.issued, green.nodes, green.last_request) == (180, 9_000, 1, 130.0)


def test_a_client_that_leaves_stays_in_the_totals(loads: Traffic) -> None:
    connect(loads, 1)
    connect(loads, 2)
    for stream in (1, 2):
        loads.apply(stream, LoadReported((load(issued=100),)), 110.0)
    assert (loads.load("iris/blue").rate.issued, loads.load("iris/blue").nodes, loads.reporting) == (20_000, 2, 2)
    loads.apply(1, StreamClosed(), 120.0)
    blue = loads.load("iris/blue")
    assert (blue.totals.issued, blue.rate.issued, blue.nodes) == (200, 10_000, 1)
    assert (loads.reporting, loads.reports("edge-1"), loads.reports("edge-2")) == (1, False, True)
    loads.apply(1, LoadReported((load(issued=1),)), 121.0)
    assert loads.load("iris/blue").totals.issued == 200


def test_several_streams_of_a_node_are_one_node(loads: Traffic) -> None:
    connect(loads, 1, "app")
    connect(loads, 2, "app")
    for stream in (1, 2):
        loads.apply(stream, LoadReported((load(issued=100),)), 110.0)
    assert (loads.load("iris/blue").nodes, loads.reporting) == (1, 1)
    assert loads.by_node("iris/blue") == {"app": Rate(20_000, 20_000)}
    loads.apply(2, LoadReported(()), 120.0)
    assert loads.load("iris/blue").nodes == 1
    loads.apply(1, StreamClosed(), 121.0)
    assert (loads.load("iris/blue").nodes, loads.reporting, loads.by_node("iris/blue")) == (0, 1, {})


def test_one_report_may_name_a_cluster_twice(loads: Traffic) -> None:
    connect(loads, 1)
    loads.apply(1, LoadReported((load(issued=10), load(issued=20))), 110.0)
    assert (loads.load("iris/blue").totals.issued, loads.load("iris/blue").rate.issued) == (30, 3_000)


@pytest.mark.parametrize("name", ["turnout", "", "/", "iris", "iris/red", "rose/blue", "iris/blue/", "iris/blue/x", "a/b/c/d"])
def test_clusters_that_are_no_versions_are_dropped(loads: Traffic, name: str) -> None:
    connect(loads, 1)
    loads.apply(1, LoadReported((load(name, issued=10),)), 110.0)
    assert loads.load(name) is NO_TRAFFIC
    assert loads.by_node(name) == {}


def test_copies_are_counted_on_their_own(loads: Traffic) -> None:
    connect(loads, 1)
    loads.apply(1, LoadReported((load("iris/green/mirror", issued=10),)), 110.0)
    assert loads.load("iris/green/mirror").totals.issued == 10
    assert loads.load("iris/green") is NO_TRAFFIC
    assert list(clusters(model(mirror="green"))) == [
        ("iris/green", "green", False),
        ("iris/green/mirror", "green", True),
        ("iris/blue", "blue", False),
    ]


def test_a_report_that_does_not_say_how_long_it_is_of_counts_in_the_totals(loads: Traffic) -> None:
    connect(loads, 1)
    loads.apply(1, LoadReported((load(issued=10, active=1, ms=0),)), 110.0)
    assert (loads.load("iris/blue").totals.issued, loads.load("iris/blue").rate) == (10, Rate(active=1))


def test_totals_stay_within_what_the_api_can_say(loads: Traffic) -> None:
    connect(loads, 1)
    for _ in range(3):
        loads.apply(1, LoadReported((load(issued=2**62),)), 110.0)
    assert loads.load("iris/blue").totals.issued == 2**63 - 1


def test_what_left_desired_state_is_forgotten_in_time(loads: Traffic) -> None:
    connect(loads, 1)
    for i in range(1_000):
        loads.publish(models(model(f"m{i}", "v1")))
        loads.apply(1, LoadReported((load(f"m{i}/v1", issued=1),)), 110.0)
    assert len(loads._loads) <= 66
    assert loads.load("m999/v1").totals.issued == 1
    loads.apply(1, LoadReported(()), 120.0)
    assert loads.load("m999/v1").rate == Rate()


def test_pairs_are_bounded_and_what_does_not_fit_is_in_the_totals(loads: Traffic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PAIRS", 3)
    for stream in (1, 2):
        connect(loads, stream)
        loads.apply(stream, LoadReported((load(issued=10), load("iris/green", issued=10))), 110.0)
    blue = loads.load("iris/blue")
    assert (blue.totals.issued, blue.rate.issued, blue.nodes) == (20, 1_000, 1)
    loads.apply(1, StreamClosed(), 111.0)
    loads.apply(2, LoadReported((load(issued=10), load("iris/green", issued=10))), 120.0)
    assert (blue.totals.issued, blue.rate.issued, blue.nodes) == (30, 1_000, 1)


NAMES = ("iris/blue", "iris/green", "rose/blue")
EVENTS = st.one_of(
    st.builds(
        lambda found: LoadReported(tuple(load(c, n, 0, a, ms) for c, (n, a, ms) in found.items())),
        st.dictionaries(st.sampled_from(NAMES), st.tuples(st.integers(0, 50), st.integers(0, 3), st.integers(0, 9_999))),
    ),
    st.just(StreamClosed()),
    st.sampled_from(["a", "b"]).map(ReporterIdentified),
)


@given(st.lists(st.tuples(st.integers(0, 3), EVENTS), max_size=30))
def test_the_sums_are_what_adding_up_would_give(
    events: list[tuple[int, ReporterIdentified | LoadReported | StreamClosed]],
) -> None:
    loads = Traffic()
    loads.publish(models(model()))
    open_now: set[int] = set()
    for stream, event in events:
        if isinstance(event, ReporterIdentified):
            if stream in open_now:
                continue
            open_now.add(stream)
        elif isinstance(event, StreamClosed):
            open_now.discard(stream)
        loads.apply(stream, event, 100.0)
        for cluster in NAMES:
            by_node = loads.by_node(cluster)
            sums = [sum(column) for column in zip(*by_node.values(), strict=True)]
            assert list(loads.load(cluster).rate) == (sums or [0] * 5)
            assert loads.load(cluster).nodes == len(by_node)
        assert loads._pairs == sum(len(s.rates) for s in loads._streams.values())
        assert loads.reporting == len({s.node for s in loads._streams.values()})

"""Problems of traffic."""

from dataclasses import replace

import pytest

from controlplane.domain.revision import ObjectMeta
from controlplane.problems.reasons import Level
from controlplane.problems.traffic import percent
from controlplane.xds.events import ClusterLoad
from tests.problems.fleets import SampleFleet
from tests.test_traffic import load


def test_a_version_that_answers_everybody_with_errors_is_critical() -> None:
    """The status was green here."""
    sample = SampleFleet().add(1, 2).report(1, 110, load("iris/green", issued=100, failed=100))
    (problem,) = sample.problems()
    assert (problem.reason.name, problem.level, problem.models) == ("VERSION_FAILS", Level.CRITICAL, ("iris",))
    assert problem.text == "models/iris: 100% of the tries at version green end with an error (10.0 tries/s)"
    sample.report(1, 120, load("iris/green", issued=100))
    assert sample.problems() == []


@pytest.mark.parametrize(("failed", "level"), [(4, None), (5, Level.WARNING), (49, Level.WARNING), (50, Level.CRITICAL)])
def test_the_level_follows_the_share_of_errors(failed: int, level: Level | None) -> None:
    sample = SampleFleet().add(1).report(1, 110, load("iris/green", issued=100, failed=failed))
    assert [p.level for p in sample.problems()] == ([level] if level else [])


def test_single_errors_beside_successes_are_no_problem() -> None:
    sample = SampleFleet().add(1).report(1, 110, load("iris/green", issued=10, failed=4))
    assert sample.problems() == []
    # But a version that has not succeeded at all within a minute is.
    sample = SampleFleet().add(1).report(1, 110, load("iris/green", issued=1, failed=1))
    assert [p.level for p in sample.problems()] == [Level.CRITICAL]


def test_a_version_whose_last_tries_failed_is_a_problem_until_one_succeeds() -> None:
    """With few requests, most reports have none."""
    sample = SampleFleet().add(1).report(1, 110, load("iris/green", issued=1, failed=1)).report(1, 120)
    (problem,) = sample.problems(now=150)
    text = "models/iris: the last tries at version green ended with an error 40 s ago, and none has succeeded since"
    assert (problem.level, problem.text) == (Level.CRITICAL, text)
    assert sample.problems(now=721) == []
    # A version that nobody is sent to any more is no problem.
    assert SampleFleet().add(1).report(1, 110, load("iris/blue", issued=9, failed=9)).report(1, 120).problems() == []
    assert sample.report(1, 160, load("iris/green", issued=1)).report(1, 170).problems(now=180) == []


def test_errors_from_before_the_model_changed_do_not_count() -> None:
    sample = SampleFleet().add(1).report(1, 110, load("iris/green", issued=1, failed=1)).report(1, 120)
    assert sample.reasons() == ["VERSION_FAILS"]
    sample.head = replace(sample.head, meta={"models/iris": ObjectMeta(2, 100.0, 115.0)})
    assert sample.reasons() == []


def test_a_version_that_hangs_until_its_clients_leave() -> None:
    """Tries that are gone are no errors, so the share of errors is 0."""
    sample = SampleFleet().add(1).report(1, 110, ClusterLoad("iris/green", 9, 0, 0, 0, 9, 10_000)).report(1, 120)
    (problem,) = sample.problems(now=121)
    assert (problem.reason.name, problem.level) == ("CLIENTS_LEAVE", Level.CRITICAL)
    assert problem.text == "models/iris: 100% of the tries at version green are gone: the client left before an answer"
    sample.report(1, 125, load("iris/green", issued=4))
    assert [p.level for p in sample.problems(now=126)] == [Level.WARNING]
    sample.report(1, 126, load("iris/green", issued=10))
    assert sample.problems(now=127) == []


def test_copies_that_are_gone_were_too_large_or_had_no_answer() -> None:
    sample = SampleFleet().add(1).report(1, 110, ClusterLoad("iris/blue/mirror", 9, 0, 0, 0, 9, 10_000)).report(1, 120)
    (problem,) = sample.problems(now=121)
    assert problem.level is Level.WARNING
    assert problem.text == (
        "models/iris: 100% of the tries at the copies for blue are gone: they were too large, or had no answer in time"
    )


def test_errors_of_a_version_without_a_share_are_a_warning() -> None:
    sample = SampleFleet().add(1).report(1, 110, load("iris/blue", issued=100, failed=100))
    assert [p.level for p in sample.problems()] == [Level.WARNING]


def test_a_node_that_does_not_report_its_load_makes_the_traffic_unknown() -> None:
    sample = SampleFleet().add(1).add(2, reports=False)
    assert sample.problems(now=109) == []
    (problem,) = sample.problems()
    assert (problem.reason.name, problem.level, problem.nodes) == ("TRAFFIC_UNKNOWN", Level.WARNING, ("edge-2",))


@pytest.mark.parametrize(("share", "text"), [(1, "100%"), (0.125, "12.5%"), (0.0004, "<0.1%"), (0.001, "0.1%")])
def test_shares_of_errors(share: float, text: str) -> None:
    assert percent(share) == text

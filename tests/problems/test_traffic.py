"""Problems of traffic."""

import pytest

from controlplane.problems.reasons import Level
from controlplane.problems.traffic import percent
from tests.problems.fleets import World
from tests.test_traffic import load


def test_a_version_that_answers_everybody_with_errors_is_critical() -> None:
    """The status was green here."""
    world = World().add(1, 2).report(1, 110, load("iris/green", issued=100, failed=100))
    (problem,) = world.problems()
    assert (problem.reason.name, problem.level, problem.models) == ("VERSION_FAILS", Level.CRITICAL, ("iris",))
    assert problem.text == "models/iris: 100% of the tries at version green end with an error (10.0 tries/s)"
    world.report(1, 120, load("iris/green", issued=100))
    assert world.problems() == []


@pytest.mark.parametrize(("failed", "level"), [(4, None), (5, Level.WARNING), (49, Level.WARNING), (50, Level.CRITICAL)])
def test_the_level_follows_the_share_of_errors(failed: int, level: Level | None) -> None:
    world = World().add(1).report(1, 110, load("iris/green", issued=100, failed=failed))
    assert [p.level for p in world.problems()] == ([level] if level else [])


def test_errors_of_a_version_without_a_share_are_a_warning() -> None:
    world = World().add(1).report(1, 110, load("iris/blue", issued=100, failed=100))
    assert [p.level for p in world.problems()] == [Level.WARNING]


def test_a_node_that_does_not_report_its_load_makes_the_traffic_unknown() -> None:
    world = World().add(1).add(2, reports=False)
    assert world.problems(now=109) == []
    (problem,) = world.problems()
    assert (problem.reason.name, problem.level, problem.nodes) == ("TRAFFIC_UNKNOWN", Level.WARNING, ("edge-2",))


@pytest.mark.parametrize(("share", "text"), [(1, "100%"), (0.125, "12.5%"), (0.0004, "<0.1%"), (0.001, "0.1%")])
def test_shares_of_errors(share: float, text: str) -> None:
    assert percent(share) == text

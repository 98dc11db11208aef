"""The judgement over everything that is observed, and the sentence that sums it up."""

from controlplane.domain.revision import Head
from controlplane.problems.judge import level_of, summary
from controlplane.problems.reasons import Level
from tests.problems.fleets import World
from tests.test_traffic import load


def test_everything_is_fine() -> None:
    world = World().add(1, 2)
    assert level_of(world.problems()) is Level.OK
    assert summary(world.observed, []) == "OK: revision 1 is held by 2 nodes; no requests now"
    world.report(1, 110, load("iris/green", issued=1000, failed=5), load("iris/blue", issued=200))
    assert summary(world.observed, world.problems()) == "OK: revision 1 is held by 2 nodes; 120.0 tries/s, 0.4% errors"
    world.report(1, 120, load("iris/green", issued=1000))
    assert summary(world.observed, world.problems()) == "OK: revision 1 is held by 2 nodes; 100.0 tries/s, no errors"


def test_users_who_are_affected_come_first() -> None:
    world = World().add(1, 2).refuse(1, "iris/blue", message="bad\nsecond line")
    assert summary(world.observed, world.problems()) == "WARNING: 1 problem: NODES_REFUSE nodes/edge-1"
    world.report(2, 110, load("wine/blue", issued=100, failed=90))
    problems = world.problems()
    assert [p.reason.name for p in problems] == ["VERSION_FAILS", "NODES_REFUSE"]
    assert level_of(problems) is Level.CRITICAL
    assert summary(world.observed, problems) == "CRITICAL: 2 problems: VERSION_FAILS models/wine, NODES_REFUSE nodes/edge-1"


def test_a_store_without_a_revision_is_not_fine() -> None:
    world = World(head=Head())
    assert world.reasons() == ["NO_REVISION"]


def test_a_store_that_can_not_be_written() -> None:
    world = World(store_failure="there is no space left on the disk").add(1)
    (problem,) = world.problems()
    assert (problem.reason.name, problem.level) == ("STORE_FAILS", Level.WARNING)
    assert problem.text == "the newest change could not be saved: there is no space left on the disk"


def test_nodes_that_have_a_moment_left_are_counted() -> None:
    world = World().add(1)
    world.fleet.publish(2)
    assert summary(world.observed, world.problems(now=105)) == (
        "OK: revision 2 is held by 0 nodes, 1 more not yet; no requests now"
    )

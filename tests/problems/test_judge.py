"""The judgement over everything that is observed, and the sentence that sums it up."""

from controlplane.domain.revision import Head
from controlplane.problems.judge import level_of, summary
from controlplane.problems.reasons import Level
from tests.problems.fleets import SampleFleet
from tests.test_traffic import load


def test_everything_is_fine() -> None:
    sample = SampleFleet().add(1, 2)
    assert level_of(sample.problems()) is Level.OK
    assert summary(sample.observed, []) == "OK: revision 1 is held by 2 nodes; no requests now"
    sample.report(1, 110, load("iris/green", issued=1000, failed=5), load("iris/blue", issued=200))
    assert summary(sample.observed, sample.problems()) == "OK: revision 1 is held by 2 nodes; 120.0 tries/s, 0.4% errors"
    sample.report(1, 120, load("iris/green", issued=1000))
    assert summary(sample.observed, sample.problems()) == "OK: revision 1 is held by 2 nodes; 100.0 tries/s, no errors"


def test_users_who_are_affected_come_first() -> None:
    sample = SampleFleet().add(1, 2).refuse(1, "iris/blue", message="bad\nsecond line")
    assert summary(sample.observed, sample.problems()) == "WARNING: 1 problem: NODES_REFUSE nodes/edge-1"
    sample.report(2, 110, load("wine/blue", issued=100, failed=90))
    problems = sample.problems()
    assert [p.reason.name for p in problems] == ["VERSION_FAILS", "NODES_REFUSE"]
    assert level_of(problems) is Level.CRITICAL
    assert summary(sample.observed, problems) == "CRITICAL: 2 problems: VERSION_FAILS models/wine, NODES_REFUSE nodes/edge-1"


def test_a_store_without_a_revision_is_not_fine() -> None:
    sample = SampleFleet(head=Head())
    assert sample.reasons() == ["NO_REVISION"]


def test_a_revision_that_can_not_be_compiled_here() -> None:
    (problem,) = SampleFleet(not_served="the plug-in is gone").add(1).problems()
    assert (problem.reason.name, problem.level) == ("NOT_SERVED", Level.WARNING)
    assert problem.text == "revision 1 is not served: the plug-in is gone"


def test_a_store_that_can_not_be_written() -> None:
    sample = SampleFleet(store_failure="there is no space left on the disk").add(1)
    (problem,) = sample.problems()
    assert (problem.reason.name, problem.level) == ("STORE_FAILS", Level.WARNING)
    assert problem.text == "the newest change could not be saved: there is no space left on the disk"


def test_nodes_that_may_still_ack_in_time_are_counted_in_the_line() -> None:
    sample = SampleFleet().add(1)
    sample.fleet.publish(2)
    assert summary(sample.observed, sample.problems(now=105)) == (
        "OK: revision 2 is held by 0 nodes, 1 more not yet; no requests now"
    )

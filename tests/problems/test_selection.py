"""Filters of problems and nodes."""

from controlplane.fleet import NodeState
from controlplane.problems.selection import Selection
from controlplane.xds.events import StreamClosed
from tests.problems.fleets import SampleFleet
from tests.test_traffic import load


def sample() -> SampleFleet:
    """Return a fleet in which everything is wrong: 1 refuses iris, 2 refuses wine, 3 is gone, 4 is fine, and wine fails."""
    created = SampleFleet().add(1, 2, 3, 4).refuse(1, "iris/blue").refuse(2, "wine/blue", message="Unknown field")
    created.fleet.apply(3, StreamClosed(), 103)
    return created.report(4, 110, load("wine/blue", issued=100, failed=100))


def selected(selection: Selection) -> tuple[list[str], list[str]]:
    """Return the reasons and the nodes that are selected."""
    everything = sample()
    problems = selection.problems(everything.problems(), everything.fleet)
    return [p.reason.name for p in problems], [n.id for n in selection.nodes(everything.fleet)]


def test_without_a_filter_all_problems_and_all_nodes_that_are_not_in_sync_are_selected() -> None:
    reasons = ["VERSION_FAILS", "NODES_REFUSE", "NODES_REFUSE", "NODES_GONE"]
    assert selected(Selection()) == (reasons, ["edge-1", "edge-2", "edge-3"])


def test_by_model() -> None:
    assert selected(Selection(models=frozenset({"wine"}))) == (["VERSION_FAILS", "NODES_REFUSE"], ["edge-2"])


def test_by_state() -> None:
    assert selected(Selection(states=frozenset({NodeState.GONE}))) == (["NODES_GONE"], ["edge-3"])
    assert selected(Selection(states=frozenset({NodeState.SYNCED}))) == ([], ["edge-4"])


def test_by_error_and_by_reason() -> None:
    assert selected(Selection(error="unknown f")) == (["NODES_REFUSE"], ["edge-2"])
    assert selected(Selection(ignored_reasons=frozenset({"NODES_REFUSE", "NODES_GONE"})))[0] == ["VERSION_FAILS"]


def test_a_released_node_is_no_problem_and_is_selected_by_its_state() -> None:
    everything = sample()
    everything.fleet.members.release(1e9)
    assert [n.id for n in Selection().nodes(everything.fleet)] == ["edge-1", "edge-2"]
    assert "NODES_GONE" not in [p.reason.name for p in everything.problems()]
    assert [n.id for n in Selection(states=frozenset({NodeState.RELEASED})).nodes(everything.fleet)] == ["edge-3"]

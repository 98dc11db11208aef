"""Problems of nodes."""

import pytest

from controlplane.domain import Gateway
from controlplane.domain.revision import Head
from controlplane.fleet import Fleet, members
from controlplane.problems.nodes import FOREIGN_SHOWN, models_of, named, node_problems
from controlplane.published import NO_REVISION
from controlplane.snapshot import Audience
from controlplane.xds.events import AudienceAssigned, Claimed, Held, HeldBack, StreamClosed
from tests.fleet.clients import LISTENER, connect
from tests.problems.fleets import CLUSTERS, SampleFleet


def test_nodes_that_hold_the_revision_are_no_problem() -> None:
    assert SampleFleet().add(1, 2).problems() == []


def test_nodes_that_refuse_the_same_are_one_problem_and_the_most_nodes_come_first() -> None:
    sample = SampleFleet().add(1, 2, 3).refuse(1, "0.0.0.0:80", type_url=LISTENER, message="no permission")
    sample.refuse(2, "iris/blue", "iris/green").refuse(3, "iris/blue", "iris/green")
    first, second = sample.problems()
    assert (first.reason.name, first.nodes, first.models) == ("NODES_REFUSE", ("edge-2", "edge-3"), ("iris",))
    assert first.text == "nodes/edge-2, nodes/edge-3 refuse Cluster iris/blue, iris/green of revision 1: cannot bind"
    assert (second.nodes, second.models) == (("edge-1",), ())
    assert second.text == "nodes/edge-1 refuses Listener 0.0.0.0:80 of revision 1: no permission"


def test_a_node_is_behind_ten_seconds_after_the_revision_and_after_it_connected() -> None:
    sample = SampleFleet().add(1)
    sample.fleet.publish(2)
    assert sample.problems(now=109) == []
    (problem,) = sample.problems(now=111)
    assert (problem.reason.name, problem.nodes) == ("NODES_BEHIND", ("edge-1",))
    assert problem.text == "nodes/edge-1 has not ACKed all of revision 2 yet, and holds revision 1"
    assert (
        "have not ACKed all of revision 2 yet, and hold revision 1 or a newer one" in sample.add(2).problems(now=111)[0].text
    )


def test_a_node_that_is_gone_and_a_fleet_without_nodes() -> None:
    sample = SampleFleet().add(1, 2)
    sample.fleet.apply(1, StreamClosed(), 103)
    (problem,) = sample.problems()
    assert (problem.reason.name, problem.nodes, problem.text) == ("NODES_GONE", ("edge-1",), "nodes/edge-1 is not connected")
    sample.fleet.apply(2, StreamClosed(), 103)
    assert sample.reasons() == ["NODES_GONE", "NO_NODES"]
    assert SampleFleet().reasons() == ["NO_NODES"]


def test_a_node_that_no_gateway_selects_is_not_fine() -> None:
    """After a typo in a selector the status was green."""
    sample = SampleFleet().add(1, 2)
    for stream in (1, 2):
        sample.fleet.apply(stream, AudienceAssigned(Audience(), "no gateway selects it: edge wants id in [egde-1]"), 103)
    (problem,) = sample.problems()
    assert (problem.reason.name, problem.nodes) == ("NODES_INCOMPLETE", ("edge-1", "edge-2"))
    assert problem.text == "nodes/edge-1, nodes/edge-2: no gateway selects it: edge wants id in [egde-1]"


def test_too_few_nodes_and_nodes_that_are_not_remembered_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MAX_REMEMBERED", 1)
    fleet = Fleet()
    fleet.members.set_gateways({"edge": Gateway("edge", 80, expected_nodes=3)})
    for stream, node in enumerate(("a", "b")):
        connect(fleet, stream, node)
        fleet.apply(stream, AudienceAssigned(Audience(("edge",))), 100)
        fleet.apply(stream, Held(1), 100)
    assert [(p.reason.name, p.text) for p in node_problems(fleet, 100, 200)] == [
        ("NODES_TOO_FEW", "gateways/edge expects 3 nodes, and has 2"),
        (
            "NODES_NOT_REMEMBERED",
            "1 connected node is not remembered, so no command waits for it once it disconnects",
        ),
    ]


def test_many_names_are_counted() -> None:
    ids = tuple(f"n{i}" for i in range(1000))
    assert named(ids) == "1,000 nodes (nodes/n0, nodes/n1, nodes/n2 and 997 more)"
    assert models_of(CLUSTERS, ("iris/blue", "wine/v1", "iris/green")) == ("iris", "wine")
    assert models_of(LISTENER, ("0.0.0.0:80",)) == ()


def test_without_a_revision_nodes_are_not_behind_and_those_of_another_history_are_counted() -> None:
    sample = SampleFleet(head=Head()).add(1, 2, 3, held=0)
    for stream in (1, 2, 3):
        sample.fleet.apply(stream, AudienceAssigned(Audience(), NO_REVISION), 101)
    (problem,) = sample.problems(now=200)
    assert (problem.reason.name, problem.text) == ("NO_REVISION", "there is no revision yet: no node gets anything")
    sample.fleet.apply(1, Claimed(CLUSTERS, None, "v7"), 101)
    (problem,) = sample.problems(now=200)
    assert problem.text == "there is no revision yet: 1 node holds configuration of another history, and keeps it"
    sample.fleet.apply(2, Claimed(CLUSTERS, None, "v7"), 101)
    (problem,) = sample.problems(now=200)
    assert problem.text == "there is no revision yet: 2 nodes hold configuration of another history, and keep it"


def test_nodes_with_versions_of_another_history_are_a_problem_for_an_hour() -> None:
    sample = SampleFleet().add(1, 2)
    sample.fleet.apply(1, Claimed(CLUSTERS, None, "v7"), 101)
    sample.fleet.apply(1, Held(1), 102)
    (problem,) = sample.problems()
    assert (problem.reason.name, problem.nodes) == ("FOREIGN_VERSIONS", ("edge-1",))
    assert problem.text == "nodes/edge-1 came with versions that this history never made, and got revision 1 instead"
    assert sample.problems(now=101 + FOREIGN_SHOWN) == []


def test_held_back_nodes_are_a_problem_of_their_own_with_what_they_would_lose() -> None:
    sample = SampleFleet().add(1, 2, held=0)
    for stream in (1, 2):
        sample.fleet.apply(stream, Claimed(CLUSTERS, None, "v7"), 101)
        sample.fleet.apply(stream, HeldBack(1, ((CLUSTERS, "iris/blue"),)), 101)
    (problem,) = sample.problems(now=200)
    assert (problem.reason.name, problem.nodes) == ("HELD_BACK", ("edge-1", "edge-2"))
    assert problem.text == (
        "nodes/edge-1, nodes/edge-2 hold configuration of another history, and keep it. They would lose with revision 1: "
        "cluster iris/blue"
    )
    assert "`turnout nodes adopt edge-1 edge-2`" in problem.action


def test_nodes_that_are_too_old_for_their_gateway() -> None:
    sample = SampleFleet().add(1)
    connect(sample.fleet, 2, "edge-2", user_agent="envoy 1.35.1")
    sample.fleet.apply(2, AudienceAssigned(Audience(("edge",)), ""), 101)
    (problem,) = [p for p in sample.problems() if p.reason.name == "NODES_OUTDATED"]
    assert (problem.nodes, problem.models) == (("edge-2",), ())
    assert problem.text == "nodes/edge-2 runs Envoy 1.35.1, and gateways/edge needs 1.36: older versions are not supported"
    sample.fleet.apply(2, StreamClosed(), 110)
    assert "NODES_OUTDATED" not in sample.reasons()

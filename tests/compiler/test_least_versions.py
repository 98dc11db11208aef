"""The table of least Envoy versions, and the nodes that are too old for what they get."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.compiler import audience
from controlplane.compiler.least_versions import FEATURES, Feature, envoy_version, needs, new_needs, older_nodes, outdated
from controlplane.domain import Gateway, Mirror, NodeSelector
from controlplane.domain.state import State
from tests.compiler.test_audience import EDGE, Node, model, state

VERSIONS = (Path(__file__).parents[1] / "envoy" / "versions.txt").read_text().split()
OLDEST = min(tuple(map(int, line.partition("==")[2].split("."))) for line in VERSIONS)
MIRROR = Feature("mirror", (1, 41), "copies are not sent", model=lambda m: m.mirror is not None)
OTHER = Gateway("other", 2, nodes=NodeSelector(clusters=("y",)))
IRIS, WINE = model("iris"), model("wine", "other")
MIRRORED = replace(IRIS, mirror=Mirror("blue"))


def texts(desired: State, *nodes: Node, before: State | None = None) -> list[str]:
    """The sentences about nodes that are too old for a state, or for what they did not need before."""
    features = (*FEATURES[:1], MIRROR)
    needed = needs(desired, features) if before is None else new_needs(before, desired, features)
    return [found.text for found in outdated(needed, ((node, audience(desired, node)) for node in nodes))]


def test_each_row_is_about_one_noun_and_newer_than_the_oldest_supported_envoy() -> None:
    supported = OLDEST[:2]
    assert FEATURES[0].least == supported
    for feature in FEATURES:
        assert (feature.gateway is None) != (feature.model is None)
        assert feature.least > supported or feature is FEATURES[0]
        assert feature.otherwise[0].islower()
        assert not feature.otherwise.endswith(".")


@pytest.mark.parametrize(
    ("user_agent", "version"),
    [("envoy 1.40.0", (1, 40, 0)), ("envoy 1.36.4-dev", (1, 36, 4)), ("envoy", None), ("", None), ("grpc 1.85.0", None)],
)
def test_the_version_of_a_node(user_agent: str, version: tuple[int, int, int] | None) -> None:
    assert envoy_version(user_agent) == version


def test_a_node_that_is_older_than_its_gateway_needs_is_named() -> None:
    desired = state(EDGE, OTHER, models=(MIRRORED, WINE))
    old = "envoy 1.35.2"
    assert texts(desired, Node("a", user_agent=old)) == [
        "nodes/a runs Envoy 1.35.2, and mirror of models/iris needs 1.41: copies are not sent",
        "nodes/a runs Envoy 1.35.2, and gateways/edge needs 1.36: older versions are not supported",
    ]
    assert texts(desired, Node("a", user_agent="envoy 1.40.3"), Node("b", user_agent="envoy 1.39.0")) == [
        "nodes/a, nodes/b run Envoy 1.39.0 or newer, and mirror of models/iris needs 1.41: copies are not sent"
    ]
    many = [Node(f"n{i}", "y", user_agent=old) for i in range(5)]
    assert texts(desired, *many)[-1] == (
        "nodes/n0, nodes/n1, nodes/n2 and 2 more run Envoy 1.35.2 or newer, and gateways/edge, gateways/other need 1.36: "
        "older versions are not supported"
    )


def test_a_node_that_does_not_get_the_object_or_is_new_enough_or_unknown_is_not_named() -> None:
    desired = state(EDGE, OTHER, models=(MIRRORED, WINE))
    for node in (
        Node("new", user_agent="envoy 1.41.0"),
        Node("unknown", user_agent="envoy"),
        Node("client", user_agent="grpc-python 1.85.0"),
        Node("proxyless", metadata={"turnout.client": "grpc"}, user_agent="envoy 1.1.0"),
        Node("subset", metadata={"turnout.models": "wine"}, user_agent="envoy 1.36.0"),
    ):
        assert texts(desired, node) == []
    assert texts(state(OTHER, models=(WINE,)), Node("unselected", user_agent="envoy 1.1.0")) == []


def test_only_what_nodes_did_not_need_before_is_new() -> None:
    before, after = state(EDGE, OTHER, models=(IRIS,)), state(EDGE, OTHER, models=(MIRRORED,))
    old = Node("a", "y", user_agent="envoy 1.35.0")
    (text,) = texts(after, old, before=before)
    assert text.startswith("nodes/a runs Envoy 1.35.0, and mirror of")
    assert texts(before, old, before=after) == []
    assert texts(after, old, before=after) == []
    # The gateway selects the node only now.
    elsewhere = state(replace(EDGE, nodes=NodeSelector(clusters=("z",))), OTHER, models=(MIRRORED,))
    assert len(texts(after, old, before=elsewhere)) == 2
    # The model gets a second gateway.
    both = state(EDGE, OTHER, models=(replace(MIRRORED, gateways=("edge", "other")),))
    assert len(texts(both, replace(old, cluster="y"), before=after)) == 1


def test_a_fleet_of_new_envoys_costs_nothing() -> None:
    nodes = [Node("a"), Node("b", user_agent="envoy 1.1.0"), Node("c", user_agent="")]
    assert older_nodes(nodes, (MIRROR,)) == nodes[:2]
    assert older_nodes(nodes, FEATURES[:1]) == nodes[1:2]

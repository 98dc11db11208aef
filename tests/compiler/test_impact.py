"""The impact of a change: counted over all audiences and nodes, before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from controlplane.compiler import Compiler, audience
from controlplane.compiler.impact import NO_IMPACT, Impact, impact_of
from controlplane.compiler.response_size import delta_size
from controlplane.domain import Endpoint, Gateway, Model, NodeSelector, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import State
from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, ORDER, ROUTES
from controlplane.fleet import Node
from controlplane.snapshot import Audience, Diff, DiffCache, Snapshot

BLUE, GREEN = (Version(n, (Endpoint(f"10.0.0.{i}", 80),)) for i, n in enumerate(("blue", "green"), 1))
IRIS = Model("iris", ("edge",), (BLUE, GREEN), {"blue": 10_000})
EDGE = Gateway("edge", 8080)


class Compiled:
    """A state, compiled when asked."""

    def __init__(self, *objects: Gateway | Model) -> None:
        self.state = State(
            {o.name: o for o in objects if isinstance(o, Gateway)}, {o.name: o for o in objects if isinstance(o, Model)}
        )
        self._compiler = Compiler()

    def snapshot(self, audience: Audience) -> Snapshot:
        return self._compiler.compile(self.state, NO_LIVE_ENDPOINTS, audience, 1)


def switched(model: Model) -> Model:
    return replace(model, split={"green": 10_000})


def impact(before: Compiled, after: Compiled, nodes: Mapping[Audience, int]) -> Impact:
    return impact_of(before, after, nodes, nodes, DiffCache())


def test_names_count_once_and_nodes_where_they_are_sent_anything() -> None:
    nodes = {Audience(("a",)): 2, Audience(("b",)): 3, Audience(("a", "b")): 4, Audience(): 50}
    a, b = Gateway("a", 81, nodes=NodeSelector(clusters=("x",))), Gateway("b", 82)
    on_a, on_both = replace(IRIS, gateways=("a",)), replace(IRIS, name="rose", gateways=("a", "b"))
    before = Compiled(a, b, on_a, on_both)
    of_a = impact(before, Compiled(a, b, switched(on_a), on_both), nodes)
    assert (of_a.types, of_a.nodes) == ({ROUTES: (1, 0)}, 6)
    of_both = impact(before, Compiled(a, b, on_a, switched(on_both)), nodes)
    assert (of_both.types, of_both.nodes) == ({ROUTES: (1, 0)}, 9)
    deleted = impact(before, Compiled(a, b, on_both), nodes)
    # Gateway a lists its models in a RouteConfiguration of its own.
    assert (deleted.types[ROUTES], deleted.types[ENDPOINTS], deleted.nodes) == ((1, 1), (0, 2), 6)
    assert 0 < deleted.bytes_per_node < 1_500  # names, and the answers


def test_nothing_changed_is_no_impact() -> None:
    assert impact(Compiled(EDGE, IRIS), Compiled(EDGE, IRIS), {Audience(("edge",)): 10}) == NO_IMPACT


def test_types_are_in_the_order_in_which_they_are_sent() -> None:
    types = list(impact(Compiled(), Compiled(EDGE, IRIS), {}).types)
    assert {CLUSTER, LISTENER, ROUTES} < set(types)
    assert types == [t for t in ORDER if t in types]


def test_the_bytes_are_those_of_the_node_that_is_sent_most() -> None:
    small, large = replace(IRIS, name="s", gateways=("a",)), replace(IRIS, name="l" * 40, gateways=("b",))
    a, b = Gateway("a", 81), Gateway("b", 82)
    before, after = Compiled(a, b, small, large), Compiled(a, b, switched(small), switched(large))
    every = {g: after.snapshot(Audience(tuple(g))).resources for g in ("a", "b", "ab")}
    sizes = {
        g: delta_size(
            new, {t: Diff(tuple(new[t][m] for m in new[t] if t == ROUTES and m in (small.name, large.name))) for t in ORDER}
        )
        for g, new in every.items()
    }
    assert 0 < sizes["a"] < sizes["b"] < sizes["ab"]
    assert impact(before, after, {Audience(("a",)): 1}).bytes_per_node == sizes["a"]
    assert impact(before, after, {Audience(("a",)): 1, Audience(("b",)): 1}).bytes_per_node == sizes["b"]
    # No node is connected: the audience that would be sent most, which has both gateways.
    assert impact(before, after, {}).bytes_per_node == sizes["ab"]


def test_a_sotw_client_is_sent_all_clusters_when_one_is_new() -> None:
    audience, models = Audience(("edge",)), [replace(IRIS, name=f"m{i}") for i in range(50)]
    before, after = Compiled(EDGE, *models), Compiled(EDGE, *models, replace(IRIS, name="new"))
    delta = impact_of(before, after, {audience: 1}, {audience: 1}, DiffCache()).bytes_per_node
    sotw = impact_of(before, after, {audience: 1}, {audience: 1}, DiffCache(), {audience: {"sotw"}}).bytes_per_node
    assert sotw > 5 * delta


def test_nodes_that_move_to_another_audience_count() -> None:
    """Such a node is sent resources, although neither audience changes."""
    wide, narrow = Gateway("edge", 80), Gateway("edge", 80, nodes=NodeSelector(clusters=("x",)))
    before, after = Compiled(wide), Compiled(narrow)
    nodes = [Node("1", "x"), Node("2", "y"), Node("3", "y")]
    counts: list[dict[Audience, int]] = []
    for compiled in (before, after):
        of = [audience(compiled.state, node) for node in nodes]
        counts.append({a: of.count(a) for a in of})
    assert counts == [{Audience(("edge",)): 3}, {Audience(("edge",)): 1, Audience(): 2}]
    still = impact_of(before, after, counts[0], counts[1], DiffCache())
    assert (still.nodes, LISTENER in still.types) == (2, False)
    # Nodes 2 and 3 lose the listener, although each audience has the same as before.
    moved = impact_of(before, after, counts[0], counts[1], DiffCache(), moves=[(Audience(("edge",)), Audience())])
    assert (moved.nodes, moved.types[LISTENER]) == (2, (0, 1))

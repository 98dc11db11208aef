"""Scopes of gateways: they stay when gateways move, and no two gateways of a node share one."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain import Gateway, NodeSelector
from controlplane.domain.scopes import with_scopes
from controlplane.domain.state import Changes, State
from tests.nouns import some

EAST, WEST = NodeSelector(clusters=("east",)), NodeSelector(clusters=("west",))


def changed(state: State, *gateways: Gateway, deleted: tuple[str, ...] = ()) -> State:
    """Return the state with gateways set and deleted, and with their scopes."""
    objects = {g.resource_name: g for g in gateways} | {f"gateways/{name}": None for name in deleted}
    return state.replayed(Changes(with_scopes(state, objects)))


def scopes(state: State) -> dict[str, str]:
    return {name: gateway.scope for name, gateway in sorted(state.gateways.items())}


def test_a_gateway_that_never_moves_has_its_address_as_scope_and_stores_none() -> None:
    state = changed(State(), Gateway("a", 80), Gateway("b", 81, "::1"))
    assert scopes(state) == {"a": "0.0.0.0:80", "b": "[::1]:81"}
    assert {g.scope_id for g in state.gateways.values()} == {""}


def test_a_gateway_keeps_its_scope_when_it_moves_and_comes_back() -> None:
    state = changed(State(), Gateway("a", 80))
    for port in (81, 82):
        state = changed(state, Gateway("a", port))
        assert (scopes(state), state.gateways["a"].scope_id) == ({"a": "0.0.0.0:80"}, "0.0.0.0:80")
    assert changed(state, Gateway("a", 80)).gateways["a"].scope_id == ""


def test_gateways_that_exchange_addresses_keep_their_scopes() -> None:
    state = changed(State(), Gateway("a", 80), Gateway("b", 81))
    assert scopes(changed(state, Gateway("a", 81), Gateway("b", 80))) == {"a": "0.0.0.0:80", "b": "0.0.0.0:81"}


def test_a_new_gateway_at_an_address_that_another_has_left_gets_another_scope() -> None:
    moved = changed(State(), Gateway("b", 80))
    moved = changed(moved, Gateway("b", 81), Gateway("a", 80))
    assert scopes(moved) == {"a": "a", "b": "0.0.0.0:80"}
    again = changed(moved, Gateway("a", 82), Gateway("c", 80))
    assert scopes(again) == {"a": "a", "b": "0.0.0.0:80", "c": "c"}
    # The name may be taken, too: by the successor of a gateway that had it.
    renamed = changed(again, Gateway("a2", 82), deleted=("a",))
    assert scopes(renamed)["a2"] == "a"
    assert scopes(changed(renamed, Gateway("c", 83), Gateway("a", 80)))["a"] == "a-2"


def test_a_gateway_with_another_name_at_the_same_address_keeps_the_scope() -> None:
    moved = changed(changed(State(), Gateway("a", 80)), Gateway("a", 81))
    assert scopes(changed(moved, Gateway("z", 81), deleted=("a",))) == {"z": "0.0.0.0:80"}


def test_gateways_at_one_address_on_different_nodes_share_a_scope_until_a_node_may_have_both() -> None:
    state = changed(State(), Gateway("east", 80, nodes=EAST), Gateway("west", 80, nodes=WEST))
    assert scopes(state) == {"east": "0.0.0.0:80", "west": "0.0.0.0:80"}
    state = changed(state, Gateway("east", 81, nodes=EAST))
    assert scopes(state) == {"east": "0.0.0.0:80", "west": "0.0.0.0:80"}
    # West's nodes may now be east's, and west is the one that changes.
    assert scopes(changed(state, Gateway("west", 80))) == {"east": "0.0.0.0:80", "west": "west"}


def test_other_objects_are_left_alone() -> None:
    objects: dict[str, None] = {"models/iris": None}
    assert with_scopes(State(), objects) is objects


names = st.sampled_from(("a", "b", "c"))
gateways = st.builds(Gateway, names, st.integers(80, 83), nodes=st.sampled_from((NodeSelector(), EAST, WEST)))
steps = st.lists(st.tuples(st.lists(gateways, max_size=3, unique_by=lambda g: g.name), st.sets(names)), max_size=6)


@some
@given(steps)
def test_random_histories_never_share_a_scope_on_a_node(history: list[tuple[list[Gateway], set[str]]]) -> None:
    state = State()
    for new, absent in history:
        before, selected = state, [g for g in new if g.name not in absent]
        state = changed(state, *selected, deleted=tuple(absent & state.gateways.keys()))
        for a, b in combinations(state.gateways.values(), 2):
            assert a.scope != b.scope or not a.nodes.overlaps(b.nodes)
        for gateway in selected:
            old = before.gateways.get(gateway.name)
            if old is not None and old.nodes == gateway.nodes:
                assert state.gateways[gateway.name].scope == old.scope or any(
                    other.scope == old.scope for other in state.gateways.values()
                )
        # The same change again changes nothing.
        assert changed(state, *(g for g in new if g.name in state.gateways)).gateways == state.gateways

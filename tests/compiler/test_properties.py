"""Compiling step by step gives the same as compiling at once, whatever the state and its history."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.compiler import Compiler, audiences
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import State
from controlplane.envoy_types import ORDER
from controlplane.snapshot import Snapshot
from tests.compiler.cases import check
from tests.compiler.strategies import GATEWAYS, MODELS, gateways, models, states

quick = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
long = settings(max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck))

changes = st.lists(
    st.one_of(
        st.sampled_from(MODELS).flatmap(lambda n: st.tuples(st.just(n), st.none() | models(n))),
        st.sampled_from(GATEWAYS).flatmap(lambda n: st.tuples(st.just(n), gateways(n))),
    ),
    max_size=6,
)


def changed(state: State, name: str, new: Any) -> State:
    """The state with one object added, replaced or deleted."""
    if name in GATEWAYS:
        return State({**state.gateways, name: new}, state.models)
    return State(state.gateways, {n: m for n, m in {**state.models, name: new}.items() if m is not None})


def whole(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot. Check that Envoy accepts it, that its references exist, and that its versions fit its content."""
    check((r for t in ORDER for r in snapshot.resources[t].values()), snapshot)
    again = Snapshot.of(snapshot.revision, snapshot.audience, [r for t in ORDER for r in snapshot.resources[t].values()])
    assert again == snapshot
    return snapshot


def histories_agree(state: State, history: list[tuple[str, Any]]) -> None:
    compiler = Compiler()
    held = {a: whole(compiler.compile(state, NO_LIVE_ENDPOINTS, a, 0)) for a in audiences(state)}
    for i, (name, new) in enumerate(history, 1):
        state = changed(state, name, new)
        for a in audiences(state):
            before = held.get(a)
            held[a] = whole(compiler.compile(state, NO_LIVE_ENDPOINTS, a, i, before))
            assert held[a] == Compiler().compile(state, NO_LIVE_ENDPOINTS, a, i)
            for t in ORDER:
                assert before is None or (before.resources[t] is held[a].resources[t]) == (
                    before.versions[t] == held[a].versions[t]
                )


@quick
@given(states(), changes)
def test_earlier_results_never_change_the_result(state: State, history: list[tuple[str, Any]]) -> None:
    """A mapping is kept exactly if its content is equal."""
    histories_agree(state, history)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@long
@given(states(), changes)
def test_earlier_results_never_change_the_result_long(state: State, history: list[tuple[str, Any]]) -> None:
    histories_agree(state, history)
